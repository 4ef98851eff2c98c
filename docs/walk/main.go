//go:build unix

// Command walk does what a stranger does who follows the README: in a new clone it pastes
// every command as it stands, one after the other, into a shell, and does between them
// what the sentences ask for. Only the section about installing is left out: a clone has
// nothing to install. It writes a transcript with the time of each command, and
// ends with status 1 when a command fails or takes longer than the README says.
//
//	go run ./docs/walk                             on a terminal of 80 columns
//	go run ./docs/walk -pipe                       without one
//	go run ./docs/walk -readme README.zh-CN.md     the Chinese one
//	go run ./docs/walk -cold -tests                with an empty build cache; go test ./... as well
//
// The transcript goes to standard output. The ports are those of the README.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"millrace/docs"

	"github.com/creack/pty"
)

var (
	readme = flag.String("readme", "README.md", "the `FILE` to follow")
	piped  = flag.Bool("pipe", false, "in a pipe and not on a terminal")
	cold   = flag.Bool("cold", false, "with an empty build cache, as on a machine that has never built Go")
	tests  = flag.Bool("tests", false, "run go test ./... too")
	factor = flag.Int("patience", 1, "let a command take `N` times as long as the README says: a machine may be busy with other work")
)

// A promise is how long the README says that a command takes. The sentence must stand
// there, in the version that is followed.
type promise struct {
	command string // what it begins with
	says    map[string]string
	within  time.Duration
}

var promises = []promise{
	{"go run ./cli/millrace demo", map[string]string{"README.md": "a minute or two on two cores", "README.zh-CN.md": "双核机器上编译需要一两分钟"}, 2*time.Minute + 10*time.Second},
	{"go test ./...", map[string]string{"README.md": "four to five minutes on two cores", "README.zh-CN.md": "双核机器上四到五分钟"}, 5 * time.Minute},
	{"go build", map[string]string{"README.md": "Later builds take seconds", "README.zh-CN.md": "之后的构建只要几秒"}, 10 * time.Second},
	{"millrace bench produce", map[string]string{"README.md": "--duration 3s", "README.zh-CN.md": "--duration 3s"}, 10 * time.Second},
	// Of the others it says that all of its tour takes five minutes.
	{"", map[string]string{"README.md": "## Five minutes", "README.zh-CN.md": "## 五分钟上手"}, 20 * time.Second},
}

func main() {
	flag.Parse()
	if err := walk(); err != nil {
		fmt.Fprintln(os.Stderr, "walk:", err)
		os.Exit(1)
	}
}

func walk() error {
	dir, err := os.MkdirTemp("", "millrace-walk-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w := &walker{dir: filepath.Join(dir, "millrace"), cache: filepath.Join(dir, "cache")}
	if out, err := exec.Command("git", "clone", "--quiet", ".", w.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("git clone: %w: %s", err, out)
	}
	document, err := docs.Read(filepath.Join(w.dir, *readme))
	if err != nil {
		return err
	}
	for _, p := range promises {
		if said := p.says[*readme]; !bytes.Contains(document.Source, []byte(said)) {
			return fmt.Errorf("%s does not say %q any more, which is how long %q may take", *readme, said, p.command)
		}
	}
	commit, err := exec.Command("git", "-C", w.dir, "log", "-1", "--format=%h %s").Output()
	if err != nil {
		return err
	}
	how := "on a terminal of 80 columns"
	if *piped {
		how = "in a pipe"
	}
	fmt.Printf("%s of a new clone (%s), %s, %s\n", *readme, bytes.TrimSpace(commit), how, time.Now().UTC().Format("2006-01-02 15:04 MST"))
	defer w.end()
	begun := time.Now()
	for _, section := range document.Sections {
		if section.Heading == "Install" || section.Heading == "安装" {
			continue // what it installs is built by make dist, which has tests of its own
		}
		if err := w.follow(section); err != nil {
			return err
		}
	}
	fmt.Printf("\n---- %d commands in %.0f s; %d failed or took too long\n", w.commands, time.Since(begun).Seconds(), w.failures)
	if w.failures > 0 {
		return fmt.Errorf("%d of %d commands failed or took longer than %s says", w.failures, w.commands, *readme)
	}
	return nil
}

// A walker is the stranger: a clone, a terminal in which up runs, and one for the rest.
type walker struct {
	dir, cache string
	up         *terminal
	work       *terminal
	produced   int // how often the flights have been written
	commands   int
	failures   int
}

func (w *walker) end() {
	if w.work != nil {
		w.work.close()
	}
	if w.up != nil {
		w.up.interrupt()
		w.up.close()
	}
}

// follow pastes a section's commands.
func (w *walker) follow(section *docs.Section) error {
	headed := false
	for _, block := range section.Blocks {
		if block.Language != "sh" {
			continue
		}
		for command := range strings.Lines(strings.ReplaceAll(block.Code, "\\\n", "")) {
			command = strings.TrimSuffix(command, "\n")
			if strings.HasPrefix(command, "go test") && !*tests || strings.TrimSpace(command) == "" {
				continue
			}
			if !headed {
				fmt.Printf("\n==== %s\n\n", section.Heading)
				headed = true
			}
			if err := w.between(command); err != nil {
				return err
			}
			if err := w.paste(command); err != nil {
				return err
			}
		}
	}
	return nil
}

// between does what the README asks for in a sentence before a command.
func (w *walker) between(command string) error {
	switch {
	case strings.HasPrefix(command, "millrace produce flights "):
		if w.produced++; w.produced == 2 {
			return w.killANode()
		}
	case strings.HasPrefix(command, "millrace consume flights -n 3"):
		fmt.Println("(Ctrl-C for up, which is started again)")
		w.up.interrupt()
		w.up.close()
		w.up = nil
		return w.startUp()
	}
	return nil
}

// killANode kills the second node of the table that up has printed.
func (w *walker) killANode() error {
	m := regexp.MustCompile(`(?m)^2 +(\d+) +127`).FindSubmatch(w.up.all)
	if m == nil {
		return errors.New("up has printed no table with node 2")
	}
	pid, err := strconv.Atoi(string(m[1]))
	if err != nil {
		return err
	}
	fmt.Printf("(kill -9 %d, which is node 2)\n", pid)
	return syscall.Kill(pid, syscall.SIGKILL)
}

// paste runs a command in the terminal where it belongs and judges how it went.
func (w *walker) paste(command string) error {
	w.commands++
	if strings.HasPrefix(command, "millrace up") {
		return w.startUp()
	}
	if w.work == nil {
		var err error
		if w.work, err = w.open(); err != nil {
			return err
		}
	}
	var limit time.Duration
	for _, p := range promises {
		if strings.HasPrefix(command, p.command) {
			limit = time.Duration(*factor) * p.within
			break
		}
	}
	begun := time.Now()
	output, status, err := w.work.run(command, 3*limit)
	took := time.Since(begun)
	fmt.Printf("$ %s\n%s", command, output)
	if len(output) > 0 && !strings.HasSuffix(output, "\n") {
		fmt.Println()
	}
	verdict := ""
	switch {
	case err != nil:
		verdict = ": " + err.Error()
	case status != 0:
		verdict = fmt.Sprintf(": FAILED with status %d", status)
	case took > limit:
		verdict = fmt.Sprintf(": TOO LONG for what %s says, which is %v", *readme, limit)
	}
	fmt.Printf("---- %.2f s%s\n", took.Seconds(), verdict)
	if verdict != "" {
		w.failures++
	}
	return err
}

// startUp runs up in a terminal of its own, and the commands after it in a new one.
func (w *walker) startUp() (err error) {
	if w.up, err = w.open(); err != nil {
		return err
	}
	begun := time.Now()
	if err := w.up.begin("export PATH=$PWD/bin:$PATH; millrace up 3"); err != nil {
		return err
	}
	const last = "consume greetings -e"
	for !bytes.Contains(w.up.all, []byte(last)) {
		if err := w.up.read(time.Minute); err != nil {
			return fmt.Errorf("up: %w\n%s", err, w.up.all)
		}
	}
	_, table, _ := strings.Cut(string(w.up.all), "NODE")
	fmt.Printf("$ millrace up 3\nNODE%s", tidy(table))
	fmt.Printf("---- %.2f s until it is ready\n", time.Since(begun).Seconds())
	if w.work != nil && w.produced == 0 { // it was the terminal where the program was built
		w.work.close()
		w.work = nil
	}
	return nil
}

// A terminal is a shell, on a terminal or in a pipe.
type terminal struct {
	shell  *exec.Cmd
	in     io.WriteCloser
	chunks chan []byte // what it prints
	all    []byte      // what has been read of it
}

// After each command the shell prints its status between these.
var ended = regexp.MustCompile("\x1e(\\d+)\x1f")

func (w *walker) open() (*terminal, error) {
	t := &terminal{chunks: make(chan []byte)}
	t.shell = exec.Command("bash", "--norc", "--noprofile")
	t.shell.Dir = w.dir
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "MILLRACE_") && !strings.HasPrefix(variable, "KAFKA_") {
			t.shell.Env = append(t.shell.Env, variable)
		}
	}
	if *cold {
		t.shell.Env = append(t.shell.Env, "GOCACHE="+w.cache)
	}
	var out io.Reader
	if *piped {
		r, wr, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		t.shell.Stdout, t.shell.Stderr = wr, wr
		t.shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if t.in, err = t.shell.StdinPipe(); err == nil {
			err = t.shell.Start()
		}
		wr.Close()
		if err != nil {
			return nil, err
		}
		out = r
	} else {
		t.shell.Args = append(t.shell.Args, "--noediting", "-i")
		t.shell.Env = append(t.shell.Env, "TERM=xterm", "PS1=\x1e$?\x1f", "PS2=")
		f, err := pty.StartWithSize(t.shell, &pty.Winsize{Rows: 25, Cols: 80})
		if err != nil {
			return nil, err
		}
		t.in, out = f, f
	}
	go func() { // the reader of a terminal: ends with it
		defer close(t.chunks)
		for {
			b := make([]byte, 4096)
			n, err := out.Read(b)
			if n > 0 {
				t.chunks <- b[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	if !*piped {
		_, _, err := t.wait(time.Minute) // its first prompt
		return t, err
	}
	return t, nil
}

// begin pastes a command.
func (t *terminal) begin(command string) error {
	t.all = nil
	if *piped {
		command += "\nprintf '\\036%d\\037' $?"
	}
	_, err := io.WriteString(t.in, command+"\n")
	return err
}

// run pastes a command and waits for its end; what it printed is as a reader sees it.
func (t *terminal) run(command string, patience time.Duration) (output string, status int, err error) {
	if err := t.begin(command); err != nil {
		return "", 0, err
	}
	output, status, err = t.wait(patience)
	if !*piped { // the terminal echoes what is typed
		_, output, _ = strings.Cut(output, "\n")
	}
	return output, status, err
}

func (t *terminal) wait(patience time.Duration) (output string, status int, err error) {
	deadline := time.Now().Add(patience)
	for {
		if m := ended.FindSubmatchIndex(t.all); m != nil {
			status, err = strconv.Atoi(string(t.all[m[2]:m[3]]))
			return tidy(string(t.all[:m[0]])), status, err
		}
		if err := t.read(time.Until(deadline)); err != nil {
			return tidy(string(t.all)), 0, err
		}
	}
}

// read takes in the next of what the shell prints.
func (t *terminal) read(patience time.Duration) error {
	select {
	case b, ok := <-t.chunks:
		if !ok {
			return errors.New("the shell has ended")
		}
		t.all = append(t.all, b...)
		return nil
	case <-time.After(patience):
		return fmt.Errorf("nothing more after %v", patience)
	}
}

// interrupt is Ctrl-C.
func (t *terminal) interrupt() {
	if *piped {
		syscall.Kill(-t.shell.Process.Pid, syscall.SIGINT)
		return
	}
	io.WriteString(t.in, "\x03")
	t.wait(time.Minute)
}

// close ends the shell, and what runs in it.
func (t *terminal) close() {
	if *piped {
		t.in.Close()
	} else {
		io.WriteString(t.in, "exit\n") // to close a terminal ends no read of it
		defer t.in.Close()
	}
	gone := time.AfterFunc(30*time.Second, func() { syscall.Kill(-t.shell.Process.Pid, syscall.SIGKILL) })
	defer gone.Stop()
	for range t.chunks { // until all of it is written, and nobody has the terminal any more
	}
	t.shell.Wait()
}

// erasures are what progress on a terminal is wiped out with.
var erasures = regexp.MustCompile(`\x1b\[\d*[JK]`)

// tidy is what is seen of an output: a line that was written over is its last state.
func tidy(output string) string {
	output = erasures.ReplaceAllString(strings.ReplaceAll(output, "\r\n", "\n"), "")
	var b strings.Builder
	for line := range strings.Lines(output) {
		b.WriteString(line[strings.LastIndexByte(line, '\r')+1:])
	}
	return b.String()
}
