package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	urfave "github.com/urfave/cli/v2"
)

// UpCommand is `millrace up`.
func UpCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "up",
		Usage:     "run a real cluster of several nodes on this machine",
		ArgsUsage: "[N]",
		Description: `   N processes of serve (3, or as many as the folder has), a data folder each, on the ports
   base, base+1, … Prints a table of them when all are ready, tells when one ends, and stops
   them all on Ctrl-C or SIGTERM. On the same folder it continues with what is there. The nodes'
   logs are DIR/node-N.log. MILLRACE_DATA_DIR and so on stand for the flags, and settings are
   taken from the environment as serve does, MILLRACE_CFG_NUM_PARTITIONS=6 for all nodes.

   Try: kill -9 one of the pids.

EXAMPLES:
   $ millrace up
   $ millrace up 5 --base-port 19092 --data-dir ./five --restart`,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "data-dir", Value: DataDir, DefaultText: DataDir, Usage: "`DIR` for the nodes' folders"},
			&urfave.IntFlag{Name: "base-port", Value: 9092, DefaultText: "9092", Usage: "`PORT`: that of node 1"},
			&urfave.BoolFlag{Name: "restart", Usage: "start a node again that has ended"},
		},
		Action: up,
	}
}

const (
	maxNodes     = 32 // children of one process on one machine
	StartTimeout = 60 * time.Second
	saySlow      = 3 * time.Second // after which a start says what it waits for
	seeReturn    = time.Second     // how often it is looked whether a node was started by hand

	// A node that ends again and again is restarted ever more slowly, and quickly
	// again once it has run for steadyAfter.
	firstRestart = 100 * time.Millisecond
	lastRestart  = 10 * time.Second
	steadyAfter  = time.Minute
)

func up(c *urfave.Context) error {
	if err := keepsLogs(); err != nil {
		return err
	}
	if _, err := flagsFromEnvironment(c); err != nil {
		return err
	}
	env, err := environmentOfAll(c)
	if err != nil {
		return err
	}
	n, err := nodesWanted(c)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(c.String("data-dir"))
	if err != nil {
		return err
	}
	var addresses []string
	for i := range n {
		addresses = append(addresses, net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Int("base-port")+i)))
	}
	for _, address := range addresses { // before the first node is started, and under up's own flag
		l, err := net.Listen("tcp", address)
		if err != nil {
			return alreadyUp(dir, address, err)
		}
		l.Close()
	}
	cluster := NewNodes(dir, addresses, false)
	cluster.env = env
	defer cluster.Stop()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(c.Context, StartTimeout)
	defer cancel()
	slow := time.AfterFunc(saySlow, func() {
		fmt.Fprintf(c.App.ErrWriter, "waiting for %s to get ready, for %s at most; the logs are %s\n", term.Count(n, "node"), term.Seconds(StartTimeout), filepath.Join(dir, "node-*.log"))
	})
	defer slow.Stop()
	if err := cluster.StartAll(ctx); err != nil {
		if c.Context.Err() != nil {
			return nil
		}
		return err
	}
	slow.Stop()
	if err := printNodes(c, cluster); err != nil {
		return err
	}
	fmt.Fprintf(c.App.ErrWriter, "%s ready after %s; Ctrl-C stops them\n", term.Count(n, "node"), term.Seconds(time.Since(begin)))
	exe := ownName()
	fmt.Fprintf(c.App.ErrWriter, "next, in another terminal:\n   export MILLRACE_BROKERS=%s\n   %s produce greetings hello; %s consume greetings -e\n", strings.Join(cluster.Addresses(), ","), exe, exe)
	return follow(c, cluster)
}

// alreadyUp explains why an address cannot be listened on: it may be one of the nodes in
// dir that does, started by hand after it died.
func alreadyUp(dir, address string, err error) error {
	if pid := ListenerPID(address); errors.Is(err, term.ErrnoInUse) && pid > 0 {
		if data := servedBy(pid); filepath.Dir(data) == dir {
			if by := upOf(pid); by > 0 { // which would start a node again, or stand there with one less
				return term.Fail(term.StatusFailed, "%s is served already, at %s by a `millrace up`; stop that first: Ctrl-C where it runs, or kill %d", data, address, by)
			}
			return term.Fail(term.StatusFailed, "%s is served already, at %s by pid %d; stop that first: kill %[3]d", data, address, pid)
		}
	}
	return cannotListen(address, err, "--base-port")
}

// upOf is the process of `millrace up` that runs another process as one of its nodes, 0 if
// none does or that cannot be told.
func upOf(pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "\nPPid:")
	line, _, _ := strings.Cut(rest, "\n")
	parent, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return 0
	}
	exe, err1 := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	same, err2 := os.Readlink(fmt.Sprintf("/proc/%d/exe", parent))
	args, err3 := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", parent))
	if err1 != nil || err2 != nil || err3 != nil || exe != same || !slices.Contains(strings.Split(string(args), "\x00"), "up") {
		return 0
	}
	return parent
}

// servedBy is the data folder of another process that runs serve on this machine, "" if
// that cannot be told.
func servedBy(pid int) string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return ""
	}
	args := strings.Split(string(line), "\x00")
	if !slices.Contains(args, "serve") {
		return ""
	}
	for i, a := range args {
		data, ok := strings.CutPrefix(a, "--data-dir=")
		if a == "--data-dir" && i+1 < len(args) {
			data, ok = args[i+1], true
		}
		if ok && !filepath.IsAbs(data) {
			data = filepath.Join(cwd, data)
		}
		if ok {
			return filepath.Clean(data)
		}
	}
	return filepath.Join(cwd, DataDir)
}

// environmentOfAll is this process's environment for each of several nodes: what says
// which one a node is, and is up's to say, is left out with a warning.
func environmentOfAll(c *urfave.Context) ([]string, error) {
	warn := func(text string) { fmt.Fprintf(c.App.ErrWriter, "millrace: warning: %s\n", text) }
	var kept []string
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		switch {
		case value == "" || term.Lookup(c.Command, flagOf(name)) != nil:
			continue
		case ofOneNode(name):
			warn(fmt.Sprintf("environment: %s has no effect here: up says for each node what it is", name))
			continue
		}
		kept = append(kept, variable)
	}
	b := &broker{listeners: []listener{{name: plaintextProtocol, listen: kafka.DefaultBroker}}}
	err := b.configure("", kept, knownVariables(), func(string) bool { return true })
	for _, w := range b.warnings {
		warn(w)
	}
	return kept, err
}

// nodesWanted is how many nodes to run: the argument, what the folder has, or 3.
func nodesWanted(c *urfave.Context) (int, error) {
	dir := c.String("data-dir")
	if _, err := os.Stat(filepath.Join(dir, NodeFile)); err == nil {
		return 0, term.Usage("%s holds the one node of `millrace serve`; choose another folder with --data-dir", dir)
	}
	have := 0
	for i := range maxNodes {
		if _, err := os.Stat(filepath.Join(dir, fmt.Sprintf("node-%d", i+1), NodeFile)); err == nil {
			have = i + 1
		}
	}
	n := 3
	if have > 0 {
		n = have
	}
	switch c.NArg() {
	case 0:
	case 1:
		var err error
		if n, err = strconv.Atoi(c.Args().First()); err != nil || n < 1 || n > maxNodes {
			return 0, term.Usage("up %q: the number of nodes is 1 to %d", c.Args().First(), maxNodes)
		}
		if n < have {
			return 0, term.Usage("%s holds a cluster of %d nodes; leave the number out to start them all", dir, have)
		}
	default:
		return 0, term.Usage("up takes one argument, the number of nodes; see `millrace up --help`")
	}
	if base := c.Int("base-port"); base < 1 || base+n-1 > 65535 {
		return 0, term.Usage("--base-port %d: ports are 1 to 65535", base)
	}
	return n, nil
}

func printNodes(c *urfave.Context, cluster *Nodes) error {
	return term.PrintTable(c, cluster.All, []term.Column[*Child]{
		{Header: "NODE", Cell: func(c *Child) string { return strconv.Itoa(c.ID) }},
		{Header: "PID", Cell: func(c *Child) string { return strconv.Itoa(c.PID) }},
		{Header: "ADDRESS", Cell: func(c *Child) string { return c.Address }},
		{Header: "DATA", Cell: func(c *Child) string { return c.Data }},
	})
}

// follow reports nodes that end, and restarts them if that is wanted, until ctx ends.
func follow(c *urfave.Context, cluster *Nodes) error {
	say := func(format string, args ...any) { fmt.Fprintf(c.App.ErrWriter, format+"\n", args...) }
	ended := make(chan *Child)
	watch := func(n *Child) {
		exited := n.exited
		go func() { // the watcher: ends with the process it watches, or with the command
			select {
			case <-exited:
			case <-c.Context.Done():
				return
			}
			select {
			case ended <- n:
			case <-c.Context.Done():
			}
		}()
	}
	began := make(map[*Child]time.Time)
	pause := make(map[*Child]time.Duration)
	for _, n := range cluster.All {
		watch(n)
		began[n] = time.Now()
	}
	restart := make(chan *Child)
	byHand := make(map[*Child]int) // processes that serve a node that has ended
	look := time.NewTicker(seeReturn)
	defer look.Stop()
	for {
		select {
		case <-c.Context.Done():
			say("stopping")
			return nil
		case n := <-ended:
			if n.serves() { // it was killed; whoever takes its pid from there would kill another
				os.Remove(n.ready)
			}
			up := 0
			for _, other := range cluster.All {
				if other.Running() || other.free() != nil {
					up++
				}
			}
			say("node %d (pid %d) %s; %d of %s left", n.ID, n.PID, ending(n), up, term.Count(len(cluster.All), "node"))
			if !c.Bool("restart") {
				if up == 0 {
					return term.Fail(term.StatusFailed, "all nodes have ended; start them again with `millrace up --data-dir %s --base-port %d`", c.String("data-dir"), c.Int("base-port"))
				}
				say("start it again with: millrace serve --data-dir %s --listen %s --ready-file %s", n.Data, n.Address, n.ready)
				continue
			}
			if time.Since(began[n]) > steadyAfter || pause[n] == 0 {
				pause[n] = firstRestart
			} else {
				pause[n] = min(2*pause[n], lastRestart)
			}
			time.AfterFunc(pause[n], func() {
				select {
				case restart <- n:
				case <-c.Context.Done():
				}
			})
		case n := <-restart:
			err := cluster.Start(n)
			if served := (*servedError)(nil); errors.As(err, &served) {
				continue // by hand, before it was our turn
			}
			if err != nil {
				return err
			}
			began[n] = time.Now()
			watch(n)
			say("node %d started again, pid %d", n.ID, n.PID)
		case <-look.C:
			for _, n := range cluster.All {
				pid := n.readyPID()
				if !n.Running() && pid != 0 && pid != n.PID && pid != byHand[n] {
					say("node %d is back, pid %d; that was not started here, and Ctrl-C does not stop it", n.ID, pid)
				}
				byHand[n] = pid
			}
		}
	}
}

// ending says how a node's process ended.
func ending(n *Child) string {
	status, ok := n.state.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled() && status.Signal() == syscall.SIGKILL:
		return "was killed with -9"
	case ok && status.Signaled():
		return "was ended by signal " + strings.ToUpper(status.Signal().String())
	case n.state.ExitCode() == 0:
		return "has stopped"
	}
	if why := n.lastWords(); why != "" {
		return "failed: " + why
	}
	return fmt.Sprintf("ended with status %d, see %s", n.state.ExitCode(), n.Log)
}
