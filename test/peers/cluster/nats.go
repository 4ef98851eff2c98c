package cluster

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// layOutNATS sets servers up as a cluster with JetStream, its sync_interval at
// its default: files are synced every two minutes.
func (c *Cluster) layOutNATS(programs *Programs, dir string, routes []string) error {
	for i, b := range c.Brokers {
		config := filepath.Join(dir, fmt.Sprintf("nats-%d.conf", i+1))
		err := writeFile(config,
			fmt.Sprintf("server_name: broker-%d", i+1),
			"listen: "+b.Address,
			fmt.Sprintf("jetstream { store_dir: %q }", b.data),
			"cluster {",
			"  name: peers",
			"  listen: "+routes[i],
			"  routes: [nats://"+strings.Join(routes, ", nats://")+"]",
			"}")
		if err != nil {
			return err
		}
		b.command = func() *exec.Cmd { return exec.Command(programs.NATS, "-c", config) }
	}
	return nil
}
