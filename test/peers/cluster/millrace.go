package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// layOutMillrace sets brokers up as `millrace up` does: nothing is configured.
func (c *Cluster) layOutMillrace(programs *Programs) {
	for i, b := range c.Brokers {
		b.command = func() *exec.Cmd {
			args := []string{"serve", "--data-dir", b.data, "--listen", b.Address, "--ready-file", b.data + ".ready"}
			if _, err := os.Stat(filepath.Join(b.data, "node.json")); err != nil {
				args = append(args, "--node-id", fmt.Sprint(i+1))
				if i > 0 {
					args = append(args, "--join", c.Brokers[0].Address)
				}
			}
			return exec.Command(programs.Millrace, args...)
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
		return c.await(ctx, probeInterval, func() error {
			_, err := os.Stat(founder.data + ".ready")
			return err
		})
	}
}
