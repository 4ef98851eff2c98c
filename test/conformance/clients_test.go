//go:build conformance

package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A client is a program that uses one Kafka client library.
type client struct {
	name string
	// setUp makes the program ready to run, which may take minutes the first time
	// on a machine, and returns the command before its arguments and the
	// library's version.
	setUp func(t *testing.T) (command []string, version string)
	// lacks says why a client has no way to do an ability: a matter of its
	// design, or a fault of its own. Such a cell is not a test. The key is an
	// ability, or the beginning of several before a star.
	lacks map[string]string
}

// clients are the rows of the matrix, in its order.
var clients = slices.Concat(goClients, pythonClients, javaClients, nodeClients)

// cellTimeout bounds one run of a program. Most take a second or two; the
// longest wait for sessions of 6 s to end, and for heartbeats that are 5 s apart.
const cellTimeout = 120 * time.Second

// TestClients is the matrix. See the package comment.
func TestClients(t *testing.T) {
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			command, version := c.setUp(t)
			results.version(c.name, version)
			for _, a := range abilities {
				if reason := c.reason(a.name); reason != "" {
					results.lacks(c.name, a.name, reason)
					continue
				}
				t.Run(a.name, func(t *testing.T) {
					t.Parallel()
					began := time.Now()
					defer func() {
						if !t.Skipped() {
							results.ran(c.name, a.name, !t.Failed(), time.Since(began))
						}
					}()
					x := &cell{T: t, ability: a.name, prefix: c.name + "-" + a.name + suffix, brokers: brokers, own: own, admin: admin}
					if a.prepare != nil {
						a.prepare(x)
					}
					x.run(command)
					if a.verify != nil && !t.Failed() {
						a.verify(x)
					}
				})
			}
		})
	}
}

func (c *client) reason(ability string) string {
	for pattern, reason := range c.lacks {
		if start, many := strings.CutSuffix(pattern, "*"); pattern == ability || many && strings.HasPrefix(ability, start) {
			return reason
		}
	}
	return ""
}

// A cell is one run of one client for one ability.
type cell struct {
	*testing.T
	ability string
	prefix  string // of all names it uses; also the name of its topic
	brokers []string
	own     *kgo.Client // of those brokers
	admin   *kadm.Client
	env     []string // what the program is told by its environment
}

// run starts the program and expects silence on its standard output and status 0.
// A program that does not end is killed with all it started.
func (x *cell) run(command []string) {
	x.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), cellTimeout)
	defer cancel()
	args := append(slices.Clone(command[1:]), strings.Join(x.brokers, ","), x.ability, x.prefix)
	cmd := exec.CommandContext(ctx, command[0], args...)
	cmd.Env = append(os.Environ(), x.env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if cmd.Process != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it may have left behind
	}
	if ctx.Err() != nil {
		err = errors.Join(fmt.Errorf("killed after %v", cellTimeout), err)
	}
	if err != nil || out.Len() > 0 {
		x.Errorf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, tail(out.String()), tail(errs.String()))
	}
}

// tail is the end of what a program printed, enough to see why it failed.
func tail(s string) string {
	const most = 4000
	if len(s) <= most {
		return s
	}
	return "…" + s[len(s)-most:]
}
