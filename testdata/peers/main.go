package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"millrace/peers/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := try(ctx); err != nil {
		fmt.Println(err)
	}
}
func try(ctx context.Context) error {
	dir, _ := os.MkdirTemp("", "peers-")
	defer os.RemoveAll(dir)
	b := time.Now()
	p, err := cluster.Build(ctx, cluster.Systems, dir, func(f string, a ...any) { fmt.Printf(f+"\n", a...) })
	if err != nil {
		return err
	}
	fmt.Println(time.Since(b), p)
	for _, s := range cluster.Systems {
		os.Mkdir(dir+"/c-"+string(s), 0o755)
		c, err := cluster.New(ctx, s, p, dir+"/c-"+string(s))
		if err != nil {
			return err
		}
		b := time.Now()
		defer c.Kill()
		if err := c.Start(ctx); err != nil {
			return err
		}
		if err := c.FirstAck(ctx); err != nil {
			return err
		}
		fmt.Println(s, time.Since(b))
		fmt.Println(c.Resident())
		if s != cluster.NATS {
			pr, err := c.Probe()
			if err != nil {
				return err
			}
			fmt.Println(pr.AwaitInSync(ctx, "first", 1))
			l, err := pr.Leader(ctx, "first", 0)
			if err != nil {
				return err
			}
			b := time.Now()
			l.Kill()
			fmt.Println(pr.Produce(ctx, "first", 0), time.Since(b))
			b = time.Now()
			fmt.Println(l.Start(), pr.AwaitInSync(ctx, "first", 1), time.Since(b))
		}
		fmt.Println(c.Peak())
		c.Kill()
	}
	return nil
}
