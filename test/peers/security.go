package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"millrace/peers/cluster"
	"millrace/peers/report"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

const securityHelp = `peers security [flags]

Measures what it costs to be safe: clients over TLS, with a log-in and with ACLs
against clients of an open cluster; nodes that encrypt what they send each other
against nodes that do not; and a client's latency while others do not log in. It
prints tables as Markdown; with -o, writes them into the section "security" of a
file. Run it on a machine that does nothing else. As root it makes a network of its
own, without which nodes cannot be measured that encrypt: between addresses of
loopback they never do.

`

// outside is an address that is not loopback's: nodes with such addresses encrypt.
const outside = "10.213.0.1"

// inNetwork is set in the environment of who has a network of its own.
const inNetwork = "PEERS_NETWORK"

// A guard is one way for a cluster and its clients to be safe, or not: a row.
type guard struct {
	name string
	host string // that nodes listen on; "": loopback
	// prepare makes users and entries, and returns what clients have in their environment.
	prepare func(ctx context.Context, s *session) (environment []string, err error)
}

// The principals of a cluster that asks for a log-in.
const (
	superUser = "admin"
	ownUser   = "bench"
	secret    = "a-long-secret"
)

// benchTopic is what all loads here produce to and consume.
const benchTopic = "guarded"

// guards are the rows. The first of each host is what the others are held against.
var guards = []guard{
	{name: "open", prepare: nothing},
	{name: "TLS", prepare: func(ctx context.Context, s *session) ([]string, error) { return s.overTLS(ctx) }},
	{name: "TLS and SCRAM", prepare: func(ctx context.Context, s *session) ([]string, error) {
		environment, err := s.overTLS(ctx)
		return append(environment, loginAs(superUser)...), errors.Join(err, s.users(ctx, 0))
	}},
	{name: "SCRAM and ACLs", prepare: func(ctx context.Context, s *session) ([]string, error) {
		return loginAs(ownUser), s.users(ctx, 1_000)
	}},
	{name: "SCRAM and 100k ACLs", prepare: func(ctx context.Context, s *session) ([]string, error) {
		return loginAs(ownUser), s.users(ctx, 100_000-10) // the most there may be: with the one of its own
	}},
	{name: "nodes encrypt", host: outside, prepare: nothing},
}

func nothing(context.Context, *session) ([]string, error) { return nil, nil }

// overTLS is how a program comes to the cluster over TLS.
func (s *session) overTLS(ctx context.Context) ([]string, error) {
	pem, err := s.cluster.Authority(ctx)
	if err != nil {
		return nil, err
	}
	ca := filepath.Join(s.dir, "ca.pem")
	return []string{"MILLRACE_TLS_CA=" + ca}, os.WriteFile(ca, pem, 0o600)
}

// loginAs is how a program logs in.
func loginAs(user string) []string {
	return []string{"MILLRACE_USER=" + user, "MILLRACE_PASSWORD=" + secret}
}

// users makes a super user and one who may use the topic and nothing else, and so many
// entries more, of others.
func (s *session) users(ctx context.Context, others int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.cluster.Addresses()...))
	if err != nil {
		return err
	}
	defer client.Close()
	upserts := func(name string) []kadm.UpsertSCRAM {
		return []kadm.UpsertSCRAM{{User: name, Mechanism: kadm.ScramSha512, Iterations: 4096, Password: secret}}
	}
	made, err := kadm.NewClient(client).AlterUserSCRAMs(ctx, nil, upserts(superUser))
	if err = errors.Join(err, made.Error()); err != nil {
		return err
	}
	if err := s.known(ctx, superUser); err != nil {
		return err
	}
	own, err := kgo.NewClient(kgo.SeedBrokers(s.cluster.Addresses()...), login(superUser))
	if err != nil {
		return err
	}
	defer own.Close()
	admin := kadm.NewClient(own)
	admin.SetTimeoutMillis(60_000)
	if others == 0 {
		return nil
	}
	made, err = admin.AlterUserSCRAMs(ctx, nil, upserts(ownUser))
	if err = errors.Join(err, made.Error()); err != nil {
		return err
	}
	entries := []*kadm.ACLBuilder{kadm.NewACLs().Allow("User:" + ownUser).AllowHosts().Topics(benchTopic).Operations(kadm.OpAll).ResourcePatternType(kadm.ACLPatternLiteral)}
	const principals = 10 // of each builder: its entries are for all of its principals and topics
	for at := 0; at < others; at += principals * 100 {
		b := kadm.NewACLs().AllowHosts().Operations(kadm.OpRead).ResourcePatternType(kadm.ACLPatternPrefixed)
		var names, topics []string
		for i := range principals {
			names = append(names, fmt.Sprintf("User:other-%d-%d", at, i))
		}
		for i := range min(100, (others-at)/principals) {
			topics = append(topics, fmt.Sprintf("%s-%d-%d", benchTopic, at, i))
		}
		entries = append(entries, b.Allow(names...).Topics(topics...))
	}
	for _, b := range entries {
		results, err := admin.CreateACLs(ctx, b)
		if err != nil {
			return err
		}
		for _, one := range results {
			if one.Err != nil {
				return one.Err
			}
		}
	}
	s.say("%s entries are made", report.Number(float64(others)))
	return s.known(ctx, ownUser)
}

func login(user string) kgo.Opt {
	return kgo.SASL(scram.Auth{User: user, Pass: secret}.AsSha512Mechanism())
}

// known waits until every broker lets a user in.
func (s *session) known(ctx context.Context, user string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, address := range s.cluster.Addresses() {
		client, err := kgo.NewClient(kgo.SeedBrokers(address), login(user))
		if err != nil {
			return err
		}
		defer client.Close()
		for err = client.Ping(ctx); err != nil; err = client.Ping(ctx) {
			if ctx.Err() != nil {
				return fmt.Errorf("%s does not let %s in: %w", address, user, err)
			}
			if err := sleep(ctx, 50*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// The tables, by scenario.
const (
	guardedProduce = "security-produce"
	guardedLatency = "security-latency"
	guardedConsume = "security-consume"
	crowded        = "security-crowd"
)

// guardedRate is what latency is measured at, records/s.
const guardedRate = 5_000

// guardedLoads makes a row's loads.
func (s *session) guardedLoads(ctx context.Context, row string) error {
	b := bench{kind: "produce", topic: benchTopic, partitions: 6, size: 1024, producers: s.o.producers, seconds: s.o.seconds, warmUp: s.o.warmUp}
	if err := s.measure(ctx, guardedProduce, row, millraceDefault, b); err != nil {
		return err
	}
	b.rate, b.noLinger = guardedRate, true
	if err := s.measure(ctx, guardedLatency, row, millraceDefault, b); err != nil {
		return err
	}
	if err := s.fill(ctx, s.o.fill, bench{topic: benchTopic}); err != nil {
		return err
	}
	return s.measure(ctx, guardedConsume, row, millraceDefault, bench{kind: "consume", topic: benchTopic, exists: true, consumers: 1, seconds: s.o.seconds})
}

// A crowd is clients that do not log in, while another one works.
type crowd struct {
	row   string
	count int
	says  []byte // what each sends: nothing, or the beginning of a handshake
}

// crowds are the rows of what a working client bears. A handshake is begun with the head of
// a record of 512 bytes, of which no more comes.
var crowds = []crowd{
	{"alone", 0, nil},
	{"10,000 that never log in", 10_000, nil},
	{"5,000 in the middle of a handshake", 5_000, []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}},
}

// bear measures a client's latency in a crowd.
func (s *session) bear(ctx context.Context, c crowd, scale int) error {
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	for i := range c.count / scale {
		conn, err := net.DialTimeout("tcp", s.cluster.Addresses()[i%cluster.Size], 10*time.Second)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
		conns = append(conns, conn)
		if _, err := conn.Write(c.says); err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
	}
	b := bench{kind: "produce", topic: benchTopic, partitions: 6, size: 1024, producers: s.o.producers, rate: 1_000, noLinger: true, seconds: s.o.seconds, warmUp: s.o.warmUp}
	if err := s.measure(ctx, crowded, c.row, millraceDefault, b); err != nil {
		return err
	}
	_, own, _ := s.cluster.Memory()
	s.figures.Add(report.Key{Scenario: crowded, Row: c.row, Metric: "own"}, float64(own)/(1<<20))
	return nil
}

func runSecurity(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := &options{systems: []cluster.System{cluster.Millrace}}
	f := o.flags("security", securityHelp, stderr, defaults{rounds: 3, seconds: 6, warmUp: 1.5})
	fill := f.Int("fill", 512, "`MiB` of a topic that is consumed")
	only := f.String("only", "", "rows, `NAME,…`, and crowd (all)")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.quick {
		preset(f, map[string]string{"rounds": "1", "seconds": "0.5", "warm-up": "0.2", "producers": "2", "fill": "32"})
	}
	if f.NArg() > 0 || o.rounds < 1 || o.seconds <= 0 || o.warmUp < 0 || o.producers < 1 || *fill < 1 {
		return errors.New("everything is said by flags, and -rounds, -seconds, -producers and -fill are more than nothing")
	}
	if o.fill = int64(*fill) << 20; *only != "" {
		o.only = strings.Split(*only, ",")
		for _, name := range o.only {
			if name != "crowd" && !slices.ContainsFunc(guards, func(g guard) bool { return g.name == name }) {
				return fmt.Errorf("-only %q: there is no such row", name)
			}
		}
	}
	if os.Geteuid() == 0 && os.Getenv(inNetwork) == "" {
		return inOwnNetwork(ctx, args, stdout, stderr)
	}
	r := &run{o: o, stderr: stderr, begin: time.Now()}
	return r.security(ctx, stdout)
}

// inOwnNetwork runs this program again in a network of its own that has an address beside
// loopback's.
func inOwnNetwork(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	const script = `ip link set lo up && ip addr add ` + outside + `/32 dev lo && exec "$0" security "$@"`
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"--net", "sh", "-c", script, self}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Env = append(os.Environ(), inNetwork+"=1")
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd.Run()
}

// securityRows are the rows that can be measured here.
func (r *run) securityRows() []guard {
	return slices.DeleteFunc(slices.Clone(guards), func(g guard) bool {
		return !r.wanted(g.name) || g.host != "" && os.Getenv(inNetwork) == ""
	})
}

func (r *run) security(ctx context.Context, stdout io.Writer) (err error) {
	done, err := r.prepare(ctx)
	if err != nil {
		return err
	}
	defer done()
	if r.o.json != "" {
		defer func() { err = errors.Join(err, r.writeJSON()) }()
	}
	options := cluster.Options{Environment: []string{"MILLRACE_TLS=auto"}}
	for round := 1; round <= r.o.rounds; round++ {
		rows := r.securityRows()
		if round%2 == 0 {
			slices.Reverse(rows)
		}
		for _, g := range rows {
			r.say("%s, round %d of %d", g.name, round, r.o.rounds)
			o := options
			o.Host = g.host
			err := r.withClusterOf(ctx, cluster.Millrace, o, round, func(s *session) (err error) {
				if s.environment, err = g.prepare(ctx, s); err != nil {
					return err
				}
				return s.guardedLoads(ctx, g.name)
			})
			if err := r.failed(ctx, g.name, err); err != nil {
				return err
			}
		}
		if !r.wanted("crowd") {
			continue
		}
		err := r.withClusterOf(ctx, cluster.Millrace, options, round, func(s *session) error {
			environment, err := s.overTLS(ctx)
			if err := errors.Join(err, s.users(ctx, 0)); err != nil {
				return err
			}
			s.environment = append(environment, loginAs(superUser)...)
			scale := 1
			if r.o.quick {
				scale = 100
			}
			for i := range crowds {
				if err := s.bear(ctx, crowds[(i+round-1)%len(crowds)], scale); err != nil {
					return err
				}
			}
			return nil
		})
		if err := r.failed(ctx, "crowd", err); err != nil {
			return err
		}
	}
	return r.publish("security", r.securityMarkdown(), stdout)
}

// securityMarkdown writes the section.
func (r *run) securityMarkdown() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "## What it costs to be safe\n\n")
	if r.o.quick {
		b.WriteString("**A quick run: it shows that the tool works, and nothing about how fast anything is.**\n\n")
	}
	fmt.Fprintf(&b, "Written by `make security` on %s, in %s: %d rounds in alternating order, three brokers on one machine, acks=all, every record fsynced, %s s a load after %s s of warm-up; medians with the least and the most. Nodes that listen on loopback do not encrypt what they send each other; those of the last row have an address that is not loopback's, on the same device, and do. ACLs: one entry for the user who makes the load, and so many for others, with prefixes of the same beginning.\n\n",
		r.begin.UTC().Format("2 January 2006"), clock(time.Since(r.begin)), r.o.rounds, report.Number(r.o.seconds), report.Number(r.o.warmUp))
	b.WriteString(r.machine.describe(r.programs))
	b.WriteString(r.notMeasured())
	var rows, crowdRows []report.Row
	for _, g := range r.securityRows() {
		rows = append(rows, report.Row{Name: g.name})
	}
	for _, c := range crowds {
		crowdRows = append(crowdRows, report.Row{Name: c.row})
	}
	for _, part := range []struct {
		title, about, scenario string
		rows                   []report.Row
		columns                []report.Column
		wants                  []report.Want
	}{
		{"Producing", fmt.Sprintf("1 KiB records to 6 partitions by %d producers as fast as they can.", r.o.producers), guardedProduce, rows, throughputColumns, nil},
		{"Latency", fmt.Sprintf("The same at %s records/s, each sent at once.", report.Number(guardedRate)), guardedLatency, rows, latencyColumns,
			[]report.Want{times(guardedLatency, "p99", "p99", "SCRAM and 100k ACLs", "SCRAM and ACLs", false, 1.05)}},
		{"Consuming", fmt.Sprintf("One consumer reads %s MiB of cached 1 KiB records, over and over.", report.Number(float64(r.o.fill)/(1<<20))), guardedConsume, rows,
			[]report.Column{{Header: "records/s", Metric: "records"}, {Header: "MiB/s", Metric: "mib"}, {Header: "brokers' CPU s", Metric: "servers"}, {Header: "loader's CPU s", Metric: "loader"}}, nil},
		{"In a crowd", "A client of TLS and SCRAM produces 1,000 records/s, while others have connected to the same three brokers and do not log in. Memory is that of the broker that has most, without files.", crowded, crowdRows,
			append(slices.Clone(latencyColumns[:4]), report.Column{Header: "memory MiB", Metric: "own"}), []report.Want{
				times(crowded, "p99", "p99", crowds[1].row, crowds[0].row, false, 2), times(crowded, "p99", "p99", crowds[2].row, crowds[0].row, false, 2)}},
	} {
		table := report.Table{Scenario: part.scenario, Rows: part.rows, Columns: part.columns}.Markdown(&r.figures)
		if table == "" {
			continue
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n%s", part.title, part.about, table)
		if wants := report.Wants(&r.figures, part.wants); wants != "" {
			fmt.Fprintf(&b, "\n%s", wants)
		}
	}
	return b.String()
}
