package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"millrace/cli/load"
	"encoding/json"
	"millrace/peers/cluster"
	"millrace/peers/natsload"
	"millrace/peers/process"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == "nats-bench" {
		if err := natsload.Command(ctx, os.Args[2:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := try(ctx); err != nil {
		fmt.Println(err)
	}
}
func try(ctx context.Context) error {
	dir, _ := os.MkdirTemp("", "peers-")
	defer os.RemoveAll(dir)
	p, err := cluster.Build(ctx, []cluster.System{cluster.NATS}, dir, func(f string, a ...any) { fmt.Printf(f+"\n", a...) })
	if err != nil {
		return err
	}
	s := cluster.NATS
	os.Mkdir(dir+"/c-"+string(s), 0o755)
	c, err := cluster.New(ctx, s, p, dir+"/c-"+string(s))
	if err != nil {
		return err
	}
	defer c.Kill()
	if err := c.Start(ctx); err != nil {
		return err
	}
	if err := c.FirstAck(ctx); err != nil {
		return err
	}
	self, _ := os.Executable()
	bench := func(args string) {
		a := strings.Fields(args)
		c0, _ := c.CPU()
		var out strings.Builder
		cmd := exec.Command(self, append([]string{"nats-bench", a[0], "-b", c.Servers()}, a[1:]...)...)
		cmd.Stdout = &out
		cpu, err := process.Run(ctx, cmd)
		var r load.Result
		json.Unmarshal([]byte(out.String()), &r)
		c1, _ := c.CPU()
		fmt.Println(args, int(r.RecordsPerSecond), r.MiBPerSecond, r.Latency, r.Errors, r.FirstError, r.Unacknowledged, r.Lost, cpu, c1[0]-c0[0], c1[1]-c0[1], c1[2]-c0[2], err)
	}
	bench("produce -producers 5 -duration 4s -warm-up 1s")
	bench("produce -producers 5 -duration 4s -warm-up 1s -size 100")
	bench("produce -producers 5 -duration 4s -warm-up 1s -rate 5000")
	bench("produce -producers 1 -n 200000 -keep")
	bench("consume -duration 4s -keep")
	bench("consume -duration 4s -consumers 10")
	bench("e2e -duration 4s -rate 1000")
	return nil
}
