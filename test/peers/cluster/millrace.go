package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Authority is the certificate of the authority of a cluster of Millrace, PEM.
func (c *Cluster) Authority(ctx context.Context) ([]byte, error) {
	return exec.CommandContext(ctx, c.program, "cluster", "ca", "--data-dir", c.Brokers[0].data).Output()
}

// layOutMillrace sets brokers up as `millrace up` does: nothing is configured. On an address
// that others reach they are open to everybody, and join by a token.
func (c *Cluster) layOutMillrace(programs *Programs) {
	join := c.Brokers[0].Address
	c.program = programs.Millrace
	for i, b := range c.Brokers {
		b.command = func() *exec.Cmd {
			args := []string{"serve", "--data-dir", b.data, "--listen", b.Address, "--ready-file", b.data + ".ready"}
			if _, err := os.Stat(filepath.Join(b.data, "node.json")); err != nil {
				args = append(args, "--node-id", fmt.Sprint(i+1))
				if i > 0 {
					args = append(args, "--join", join)
				}
			}
			if c.options.Host != loopback {
				args = append(args, "--insecure")
			}
			cmd := exec.Command(programs.Millrace, args...)
			cmd.Env = append(os.Environ(), c.options.Environment...)
			return cmd
		}
	}
	// The first founds a new cluster before the others ask to join it.
	c.begin = func(ctx context.Context) error {
		founder := c.Brokers[0]
		if _, err := os.Stat(filepath.Join(founder.data, "node.json")); err == nil || founder.Running() {
			return nil
		}
		if err := founder.Start(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		err := c.await(ctx, probeInterval, func() error {
			_, err := os.Stat(founder.data + ".ready")
			return err
		})
		if err != nil || c.options.Host == loopback {
			return err
		}
		token, err := exec.CommandContext(ctx, programs.Millrace, "cluster", "token", "--data-dir", founder.data, "--uses", fmt.Sprint(Size-1)).Output()
		join = strings.TrimSpace(string(token))
		return err
	}
}
