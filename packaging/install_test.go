//go:build packaging

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/cli"
	"millrace/cli/term"
	"millrace/docs"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// These tests install what was built where nothing of Go is: in a root of Debian's own that
// mmdebstrap makes, with systemd as its first process and a network of its own. They need
// root, and skip without it.

// A machine is a container with its own processes, network and files.
type machine struct {
	t    *testing.T
	root string
	init int // its first process, as seen from here
}

// startMachine makes a bare Debian and boots it.
func startMachine(t *testing.T) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a root file system and boot it")
	}
	for _, tool := range []string{"mmdebstrap", "systemd-nspawn", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: apt-get install mmdebstrap systemd-container util-linux", tool)
		}
	}
	root := filepath.Join(t.TempDir(), "root")
	begin := time.Now()
	debstrap(t, root)
	t.Logf("a bare root after %.1f s", time.Since(begin).Seconds())
	begin = time.Now()
	// Nobody here registers machines; the container gets no unit of its own.
	cmd := exec.Command("systemd-nspawn", "--quiet", "--directory="+root, "--boot", "--private-network",
		"--register=no", "--keep-unit", fmt.Sprintf("--machine=millrace-%d", os.Getpid()), "--console=pipe", "--kill-signal=SIGRTMIN+4")
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM) // an orderly end
		select {
		case <-ended:
		case <-time.After(time.Minute):
			cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Logf("the machine:\n%s", log.String())
		}
	})
	// Nothing of Millrace is in it yet: what keeps it from booting is this machine.
	const cannot = "systemd-nspawn cannot boot a bare Debian here"
	m := &machine{t: t, root: root}
	for m.init == 0 {
		select {
		case err := <-ended:
			ended <- err
			t.Skipf("%s: %v: %s", cannot, err, log.String())
		case <-time.After(20 * time.Millisecond):
			if time.Since(begin) > 2*time.Minute {
				t.Skipf("%s: no systemd after %v", cannot, time.Since(begin))
			}
		}
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		for _, child := range strings.Fields(string(children)) {
			if name, _ := os.ReadFile("/proc/" + child + "/comm"); strings.TrimSpace(string(name)) == "systemd" {
				m.init, _ = strconv.Atoi(child)
			}
		}
	}
	// Degraded is a container without this or that of a machine.
	for state := (said{}); !strings.Contains(state.out, "running") && !strings.Contains(state.out, "degraded"); {
		select {
		case err := <-ended:
			ended <- err
			t.Skipf("%s: %v: %s", cannot, err, log.String())
		case <-time.After(50 * time.Millisecond):
		}
		if state = m.try("systemctl is-system-running --wait"); time.Since(begin) > 2*time.Minute {
			t.Skipf("%s: %+v", cannot, state)
		}
	}
	t.Logf("booted after %.1f s", time.Since(begin).Seconds())
	return m
}

// debstrap makes a root with what every Debian with systemd has, from where this machine
// has its packages.
func debstrap(t *testing.T, root string) {
	t.Helper()
	sources, err := os.ReadFile("/etc/apt/sources.list.d/debian.sources")
	if err != nil {
		if sources, err = os.ReadFile("/etc/apt/sources.list"); err != nil {
			t.Skipf("needs Debian's package sources: %v", err)
		}
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		t.Fatal(err)
	}
	_, suite, _ := strings.Cut(string(release), "VERSION_CODENAME=")
	suite, _, _ = strings.Cut(suite, "\n")
	list := filepath.Join(t.TempDir(), "debian.sources")
	if err := os.WriteFile(list, sources, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("mmdebstrap", "--quiet", "--variant=apt", "--format=directory",
		"--include=systemd,systemd-sysv,adduser,procps", strings.Trim(suite, `"`), root, list)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, out)
	}
}

// A said is what a command said.
type said struct {
	out string // and what it said about it
	err error
}

// try runs a line of shell in the machine.
func (m *machine) try(line string) said {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(m.init), "-m", "-u", "-i", "-n", "-p", "-r", "-w",
		"/bin/bash", "-e", "-c", line)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return said{string(out), err}
}

// do runs a line of shell in the machine, and returns what it said.
func (m *machine) do(line string) string {
	m.t.Helper()
	s := m.try(line)
	if s.err != nil {
		m.t.Fatalf("$ %s\n%s%v\n%s", line, s.out, s.err, m.try("journalctl -u millrace -n 30 --no-pager; systemctl status millrace --no-pager").out)
	}
	return s.out
}

// wants runs a line of shell in the machine, which must say something.
func (m *machine) wants(line, want string) {
	m.t.Helper()
	if out := m.do(line); !strings.Contains(out, want) {
		m.t.Errorf("$ %s\n%swant %q", line, out, want)
	}
}

// put copies a file of here into the machine.
func (m *machine) put(from, to string) {
	m.t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.root, to), text, 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// tour is a script of the README's tour as its reader types it, save for what Go builds
// there and what is not installed, with up in the background.
func tour(t *testing.T) string {
	t.Helper()
	readme, err := docs.Read("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	script, lines := "", 0
	for _, section := range readme.Sections {
		if section.Heading == "Install" || section.Heading == "Connect" {
			continue
		}
		for _, block := range section.Blocks {
			for line := range strings.Lines(block.Code) {
				first, _, _ := strings.Cut(line, " ")
				if block.Language != "sh" || first == "go" || first == "kcat" || strings.HasPrefix(line, "export PATH=") || strings.HasPrefix(line, "millrace up ") {
					continue
				}
				script, lines = script+line, lines+1
			}
		}
	}
	if lines < 10 {
		t.Fatalf("the README has %d lines to run", lines)
	}
	return `mkdir -p bin
millrace up 3 >up.log 2>&1 &
up=$!
disown
until grep -q ready up.log; do kill -0 $up || { cat up.log; exit 1; }; sleep 0.1; done
` + script + `kill $up
while kill -0 $up 2>/dev/null; do sleep 0.1; done
`
}

// Where nobody has Go: the archive is unpacked and does everything; the package has a broker
// running, and keeps its records through a crash, an upgrade, a removal and a purge.
func TestInstallWithoutGo(t *testing.T) {
	one := dist(t, testVersion, "one")
	const next = "0.9.1"
	two := dist(t, next, "one")
	m := startMachine(t)
	if s := m.try("command -v go || command -v millrace"); s.err == nil {
		t.Fatalf("the bare root has %s", s.out)
	}
	sub := func(name string, f func(t *testing.T)) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			before := m.t
			m.t = t
			defer func() { m.t = before }()
			begin := time.Now()
			f(t)
			fmt.Printf("figure packaging: %s took %.1f s\n", name, time.Since(begin).Seconds())
		})
	}

	sub("archive", func(t *testing.T) {
		m.put(filepath.Join(one, archiveName(testVersion)), "srv/"+archiveName(testVersion))
		folder := strings.TrimSuffix(archiveName(testVersion), ".tar.gz")
		m.do("cd /srv && tar -xzf " + archiveName(testVersion))
		in := "cd /srv/" + folder + " && export PATH=$PWD:$PATH && "
		m.wants(in+"millrace version", "millrace "+testVersion+" (")
		m.wants(in+"millrace demo", "Nothing was lost.")
		m.do(in + tour(t))
		m.do("rm -r /srv/" + folder)
	})

	sub("install", func(t *testing.T) {
		m.put(filepath.Join(one, debName(testVersion)), "srv/one.deb")
		m.put(filepath.Join(two, debName(next)), "srv/two.deb")
		if out := m.do("dpkg -i /srv/one.deb"); !strings.Contains(out, "a broker runs on 127.0.0.1:9092") {
			t.Errorf("it does not say that a broker runs:\n%s", out)
		}
		if out := m.try("systemd-analyze --man=no verify /usr/lib/systemd/system/millrace.service"); out.err != nil || strings.TrimSpace(out.out) != "" {
			t.Errorf("systemd-analyze verify: %v\n%s", out.err, out.out)
		}
		m.wants("systemctl is-active millrace", "active")
		m.wants("systemctl is-enabled millrace", "enabled")
		m.wants("systemctl show -p StatusText millrace", "StatusText=node 1 of cluster ")
		m.wants("systemctl show -p LimitNOFILE millrace", "LimitNOFILE=1048576")
		m.wants("ps -o user= -p $(systemctl show -p MainPID --value millrace)", "millrace")
		m.wants("stat -c '%U %a' /var/lib/millrace", "millrace 700")
		exposure := m.do("systemd-analyze security --no-pager millrace | tail -1")
		fmt.Printf("figure packaging: %s\n", strings.TrimSpace(exposure))
		for _, path := range []string{
			"/usr/share/man/man1/millrace-topic-create.1.gz", "/usr/share/bash-completion/completions/millrace",
			"/usr/share/zsh/vendor-completions/_millrace", "/usr/share/fish/vendor_completions.d/millrace.fish",
		} {
			// What this root leaves out of packages, dpkg knows all the same.
			m.wants("dpkg -L millrace", path+"\n")
		}
		m.do("millrace topic create kept -p 1 && echo one | millrace produce kept -q")
	})

	sub("demo and tour", func(t *testing.T) {
		m.wants("su -s /bin/sh nobody -c 'millrace demo'", "Nothing was lost.")
		m.do("systemctl stop millrace")
		m.do("mkdir /srv/tour && cd /srv/tour && cp -r /usr/share/millrace/testdata . && " + tour(t))
		m.do("systemctl start millrace")
		m.wants("millrace consume kept -o start -e --format value", "one")
	})

	sub("crash", func(t *testing.T) {
		before := m.do("systemctl show -p MainPID --value millrace")
		m.do("kill -9 " + before)
		m.do("until [ $(systemctl show -p NRestarts --value millrace) = 1 ] && systemctl -q is-active millrace; do sleep 0.1; done")
		m.wants("millrace consume kept -o start -e --format value", "one")
	})

	sub("upgrade", func(t *testing.T) {
		m.do("echo num.partitions=3 >>/etc/millrace/millrace.properties")
		m.do("dpkg -i /srv/two.deb")
		m.wants("millrace version", "millrace "+next+" (")
		m.wants("cmp /proc/$(systemctl show -p MainPID --value millrace)/exe /usr/bin/millrace && echo same", "same")
		m.wants("cat /etc/millrace/millrace.properties", "num.partitions=3")
		m.wants("millrace topic create three && millrace topic describe three -o json", `"partition": 2`)
		m.wants("millrace consume kept -o start -e --format value", "one")
	})

	sub("a wrong configuration", func(t *testing.T) {
		m.do("echo log.retention.hours=soon >>/etc/millrace/millrace.properties")
		if s := m.try("systemctl restart millrace"); s.err == nil {
			t.Error("it starts with a wrong configuration")
		}
		m.wants("systemctl is-failed millrace", "failed")
		m.wants("journalctl -u millrace -n 20 --no-pager", "log.retention.hours=soon")
		m.do("sed -i '$d' /etc/millrace/millrace.properties && systemctl reset-failed millrace && systemctl start millrace")
	})

	sub("remove and purge", func(t *testing.T) {
		m.do("dpkg -r millrace")
		if s := m.try("pgrep -x millrace || command -v millrace"); s.err == nil {
			t.Errorf("after its removal there is %s", s.out)
		}
		m.do("test -f /etc/millrace/millrace.properties && test -d /var/lib/millrace/partitions")
		m.do("dpkg -i /srv/two.deb")
		m.wants("millrace consume kept -o start -e --format value", "one")
		out := m.do("dpkg -P millrace")
		if !strings.Contains(out, "of records stay in /var/lib/millrace") {
			t.Errorf("the purge does not say what stays:\n%s", out)
		}
		m.do("test -d /var/lib/millrace/partitions && ! test -e /etc/millrace")
		if s := m.try("systemctl cat millrace"); s.err == nil {
			t.Errorf("the unit is still there:\n%s", s.out)
		}
	})
}

// The pages of the manual are what man reads without a complaint.
func TestTheManualIsReadWithoutComplaint(t *testing.T) {
	if _, err := exec.LookPath("man"); err != nil {
		t.Skip("needs man: apt-get install man-db")
	}
	dir := t.TempDir()
	out, err := exec.Command("tar", "-xzf", filepath.Join(dist(t, testVersion, "one"), archiveName(testVersion)), "-C", dir, "--strip-components=1").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "man/man1/*.1"))
	if err != nil || len(pages) < 20 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		cmd := exec.Command("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANROFFSEQ=", "MANWIDTH=80")
		var complaints strings.Builder
		cmd.Stderr = &complaints
		if err := cmd.Run(); err != nil || complaints.Len() > 0 {
			t.Errorf("%s: %v\n%s", filepath.Base(page), err, complaints.String())
		}
	}
}

// A container runs the image's entry point in its unpacked layers, as its user, with its
// variables and those of a compose file: what a runtime does, as far as a broker can tell.
func TestTheImageServes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to change the root and the user")
	}
	index, err := layout.ImageIndexFromPath(unpackLayout(t, testVersion))
	if err != nil {
		t.Fatal(err)
	}
	img := imageFor(t, index)
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for dir := root; dir != "/"; dir = filepath.Dir(dir) { // the image's user comes this way
		if info, err := os.Stat(dir); err == nil && info.Mode()&0o001 == 0 {
			os.Chmod(dir, info.Mode()|0o055)
			t.Cleanup(func() { os.Chmod(dir, info.Mode()) })
		}
	}
	unpack := exec.Command("tar", "-x", "-C", root, "--numeric-owner", "--same-owner", "-p")
	layers := mutate.Extract(img)
	defer layers.Close()
	unpack.Stdin = layers
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// What every runtime adds.
	if err := os.WriteFile(filepath.Join(root, "etc/hosts"), []byte("127.0.0.1 localhost broker\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o555); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("proc", filepath.Join(root, "proc"), "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(filepath.Join(root, "proc"), syscall.MNT_DETACH) })

	uid, gid, _ := strings.Cut(config.Config.User, ":")
	user, uerr := strconv.Atoi(uid)
	group, gerr := strconv.Atoi(gid)
	if uerr != nil || gerr != nil || user == 0 {
		t.Fatalf("the image's user is %q", config.Config.User)
	}
	// run runs the image until the returned function is called.
	run := func(t *testing.T, env ...string) (stop func()) {
		t.Helper()
		words := append(config.Config.Entrypoint, config.Config.Cmd...)
		var log strings.Builder
		cmd := &exec.Cmd{
			Path: words[0], Args: words, Dir: config.Config.WorkingDir, Env: append(append(config.Config.Env, "MILLRACE_READY_FILE=/tmp/ready", "MILLRACE_INSECURE=true"), env...),
			Stdout: &log, Stderr: &log,
			SysProcAttr: &syscall.SysProcAttr{
				Chroot: root, Credential: &syscall.Credential{Uid: uint32(user), Gid: uint32(group)}, Pdeathsig: syscall.SIGKILL,
			},
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for {
			if _, err := os.Stat(filepath.Join(root, "tmp/ready")); err == nil {
				break
			}
			select {
			case err := <-ended:
				t.Fatalf("the image ends: %v\n%s", err, log.String())
			case <-time.After(10 * time.Millisecond):
			}
		}
		return func() {
			t.Helper()
			cmd.Process.Signal(syscall.SIGTERM) // as a runtime does, StopSignal
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("at its end: %v\n%s", err, log.String())
				}
			case <-time.After(30 * time.Second):
				cmd.Process.Kill()
				t.Errorf("the image does not end:\n%s", log.String())
			}
			if strings.Contains(log.String(), "level=WARN") {
				t.Errorf("it warns:\n%s", log.String())
			}
		}
	}
	say := func(t *testing.T, address string, args ...string) string {
		t.Helper()
		var out, errs strings.Builder
		if status := cli.Run(t.Context(), append(args, "-b", address), strings.NewReader(""), &out, &errs); status != term.StatusDone {
			t.Fatalf("millrace %q: status %d: %s", args, status, errs.String())
		}
		return out.String()
	}

	t.Run("with the variables of a compose file for Kafka", func(t *testing.T) {
		at, controllers := freeAddress(t), freeAddress(t)
		env := []string{
			"KAFKA_NODE_ID=1", "KAFKA_PROCESS_ROLES=broker,controller", "KAFKA_CONTROLLER_LISTENER_NAMES=CONTROLLER",
			"KAFKA_LISTENERS=PLAINTEXT://" + at + ",CONTROLLER://" + controllers, "KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://" + at,
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
			"KAFKA_CONTROLLER_QUORUM_VOTERS=1@" + controllers, "KAFKA_LOG_RETENTION_HOURS=48", "KAFKA_LOG_DIRS=/var/lib/kafka/data",
		}
		stop := run(t, env...)
		say(t, at, "produce", "orders", "one espresso")
		if out := say(t, at, "cluster", "config", "list", "--changed"); !strings.Contains(out, "log.retention.hours") || !strings.Contains(out, "48") {
			t.Errorf("KAFKA_LOG_RETENTION_HOURS is not in force:\n%s", out)
		}
		stop()
		stop = run(t, env...)
		if out := say(t, at, "consume", "orders", "-o", "start", "-e", "--format", "value"); out != "one espresso\n" {
			t.Errorf("after a restart: %q", out)
		}
		stop()
		if _, err := os.Stat(filepath.Join(root, "var/lib/kafka/data/node.json")); err != nil {
			t.Error(err)
		}
	})
	t.Run("with its own variables", func(t *testing.T) {
		at := freeAddress(t)
		stop := run(t, "MILLRACE_LISTEN="+at, "MILLRACE_CFG_NUM_PARTITIONS=6")
		say(t, at, "topic", "create", "six")
		if out := say(t, at, "topic", "list", "-o", "jsonl"); !strings.Contains(out, `"partitions":6`) {
			t.Errorf("MILLRACE_CFG_NUM_PARTITIONS is not in force: %s", out)
		}
		stop()
	})
	t.Run("with a command of one's own", func(t *testing.T) {
		cmd := &exec.Cmd{
			Path: config.Config.Entrypoint[0], Args: append(config.Config.Entrypoint, "version"), Dir: "/", Env: config.Config.Env,
			SysProcAttr: &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: uint32(user), Gid: uint32(group)}},
		}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "millrace "+testVersion) {
			t.Errorf("%q, %v", out, err)
		}
	})
}

// imageFor is the image for this machine's processor: of the index that the layout's index
// names, as a runtime finds it.
func imageFor(t *testing.T, layoutIndex v1.ImageIndex) v1.Image {
	t.Helper()
	top, err := layoutIndex.IndexManifest()
	if err != nil || len(top.Manifests) != 1 {
		t.Fatalf("%+v, %v", top, err)
	}
	index, err := layoutIndex.ImageIndex(top.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range manifest.Manifests {
		if d.Platform != nil && d.Platform.OS == here.os && d.Platform.Architecture == here.arch {
			img, err := index.Image(d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			return img
		}
	}
	t.Fatalf("no image for %s", here)
	return nil
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
