package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStatIsReadBehindTheProgramsName(t *testing.T) {
	const numbers = " S 1 2 2 0 -1 4194560 1000 2000 0 0 150 50 7 3 20 0 12 0 99 1000000 2000"
	for _, name := range []string{"java", "a b", "a) S 9 (b", ""} {
		cpu, err := parseStat([]byte("4711 (" + name + ")" + numbers))
		if want := 2100 * time.Millisecond; err != nil || cpu != want {
			t.Errorf("of %q: %v, %v, want %v", name, cpu, err, want)
		}
	}
	for _, bad := range []string{"", "1 (a", "1 (a) S 1 2", strings.Replace("1 (a)"+numbers, "150", "x", 1)} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestStatusIsReadInBytes(t *testing.T) {
	var u Usage
	err := u.parseStatus([]byte("Name:\tjava\nVmPeak:\t  900 kB\nVmHWM:\t  2048 kB\nVmRSS:\t    1024 kB\nRssAnon:\t 512 kB\nThreads:\t1\n"))
	if want := (Usage{Resident: 1 << 20, Own: 1 << 19, Peak: 2 << 20}); err != nil || u != want {
		t.Errorf("%+v, %v", u, err)
	}
	for _, bad := range []string{"", "VmRSS:\t1 kB\n", "VmRSS:\t1 MB\nVmHWM:\t1 kB\nRssAnon:\t1 kB\n"} {
		if err := new(Usage).parseStatus([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	u, err := usageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if u.Resident < 1<<20 || u.Peak < 1<<20 || u.CPU < 0 {
		t.Errorf("%+v", u)
	}
}

func TestRunKillsTheGroupWhenItIsTimeToGo(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("sh", "-c", "sleep 60 & echo $!; wait")
	cmd.Stdout = in
	var child int
	read := make(chan error, 1)
	go func() { // it is time to go once the child runs
		_, err := fmt.Fscan(out, &child)
		cancel()
		read <- err
	}()
	_, err = Run(ctx, cmd)
	in.Close()
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			break
		}
		if time.Since(begin) > time.Minute {
			syscall.Kill(child, syscall.SIGKILL)
			t.Fatal("what the command started still runs")
		}
	}
}

func TestRunSaysWhatACommandSaid(t *testing.T) {
	_, err := Run(t.Context(), exec.Command("sh", "-c", "echo broken pipe dream >&2; exit 3"))
	if err == nil || !strings.Contains(err.Error(), "broken pipe dream") {
		t.Errorf("%v", err)
	}
}
