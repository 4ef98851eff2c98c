//go:build faults

package faults

import (
	"bytes"
	"context"
	enc "encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/internal/testcluster"
	"millrace/segment/record"
)

// An attack is what one bad client, or many, do to one broker. It returns a word on
// what came of it, and an error when the broker did something it must not.
type attack struct {
	name string
	run  func(*siege) (string, error)
}

// A siege is a broker of a cluster of three under attack. It is there twice: in the
// test's own process, and in that of the attackers, which has only what is said in brief.
type siege struct {
	*testing.T
	c      *cluster
	victim *node
	brief

	began time.Time // the attack under way; in its process only, as what follows
	round int       // of what is repeated
	spent spent
	keep  []net.Conn
	mu    sync.Mutex
}

// A brief is what another process is told of a siege.
type brief struct {
	Nodes  []nodeBrief
	Victim int32
	Topic  string
	Part   int32         // of Topic, led by the victim
	Until  time.Duration // how long an attack goes on
}

type nodeBrief struct {
	ID      int32
	Address string
	PID     int
}

// spent is what an attack has put into it.
type spent struct {
	Conns, Sent, Took atomic.Int64 // connections, and bytes both ways
}

// A verdict is what came of an attack.
type verdict struct {
	Note, Err         string
	Conns, Sent, Took int64
	For               time.Duration
}

// TestAttacksOnOneBroker makes all attacks on one broker in a row, while the
// cluster works, and prints what each cost: the broker's peak of resident memory,
// what another client saw, and who was refused anything.
//
//	go test -tags faults -timeout 40m -run TestAttacksOnOneBroker -v ./test/faults
//
// Attackers sit on machines of their own, not on the broker's. Here they share it, so
// they are a process of their own of the lowest priority, and the client whose latency
// is taken is another: no attacker takes the processor from the broker, or its turn in
// a scheduler from that client. How much an attack gets through all the same is in the
// table: connections and bytes a second, to the broker and from it. What a request
// costs is asked for again and again until the time is over.
//
// It fails where others are refused anything, get nothing acknowledged, or the broker
// holds too much. p99 is printed: it also measures how busy a machine is that three
// brokers, the load and the attackers share.
//
// ATTACKS names some of them, separated by semicolons, FAULTS_SECONDS how long each
// goes on, FAULTS_MIB what the broker may hold, and FAULTS_FACTOR by how much another
// client's p99 may grow, on a machine that has nothing else to do. Then it is taken
// without an attack before each of them as well, and their median is what it may grow from.
func TestAttacksOnOneBroker(t *testing.T) {
	c := startConfigured(t, "group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=12")
	c.createTopic("bystander", 3)
	c.createTopic("load", 3)
	admin := c.admin()
	eventually(t, patience, "a coordinator", func() error {
		return admin.FindGroupCoordinators(context.Background(), "honest")["honest"].Err
	})
	for _, topic := range []string{"bystander", "load", "__consumer_offsets"} {
		c.awaitPreferred(topic) // the honest client stays with whom it has found
	}
	s := &siege{T: t, c: c, victim: c.leader("bystander", 0)}
	s.brief = brief{Victim: s.victim.ID, Topic: "bystander", Until: time.Duration(setting("FAULTS_SECONDS", 3)) * time.Second}
	c.each(func(n *node) { s.Nodes = append(s.Nodes, nodeBrief{n.ID, n.Address, n.PID()}) })
	limit := int64(setting("FAULTS_MIB", 512)) << 20
	factor := setting("FAULTS_FACTOR", 0) // 0: it is not judged

	stopLoad := s.load()
	defer stopLoad()
	y := s.honest()
	defer y.stop()
	readers := c.watch("load", "readers")
	time.Sleep(3 * time.Second)           // caches, connections
	rest := func(d time.Duration) quiet { // what the client sees when nobody attacks
		s.victim.settle()
		y.take()
		time.Sleep(d)
		return y.take()
	}
	type row struct {
		name string
		peak int64
		quiet
		verdict
	}
	first := rest(10 * time.Second)
	if first.Acked == 0 {
		t.Fatal("nothing is acknowledged even without an attack")
	}
	rows := []row{{"none", s.victim.usage().rss, first, verdict{}}}
	bases := []time.Duration{first.P99}
	only := strings.Split(os.Getenv("ATTACKS"), ";")
	for _, a := range attacks {
		if only[0] != "" && !slices.Contains(only, a.name) {
			continue
		}
		if factor > 0 { // the disk of a machine may be another's from minute to minute
			bases = append(bases, rest(s.Until).P99)
		}
		s.victim.settle()
		y.take()
		watching, peak := s.watchMemory()
		v := s.attack(a)
		watching()
		q := y.take()
		rows = append(rows, row{a.name, peak.Load(), q, v})
		if v.Err != "" {
			t.Errorf("%s: %s", a.name, v.Err)
		}
		if peak.Load() > limit {
			t.Errorf("%s: %d MiB were resident, more than %d", a.name, peak.Load()>>20, limit>>20)
		}
		if q.Acked == 0 {
			t.Errorf("%s: nothing that another client produced was acknowledged", a.name)
		}
		if q.Refused > 0 {
			t.Errorf("%s: others were refused %d times: %s", a.name, q.Refused, q.Why)
		}
		if !s.victim.Running() {
			t.Fatalf("%s: the broker is gone", a.name)
		}
	}
	last := rest(10 * time.Second)
	rows = append(rows, row{"none, afterwards", s.victim.usage().rss, last, verdict{}})
	bases = append(bases, last.P99)
	slices.Sort(bases)
	base := bases[len(bases)/2]

	t.Logf("p99 without an attack: median %s, %s to %s in %d stretches", millis(base), millis(bases[0]), millis(bases[len(bases)-1]), len(bases))
	t.Logf("%-34s %9s %9s %6s %9s %6s %8s %24s  %s", "attack", "peak RSS", "p99", "times", "worst", "acked", "refused", "conns, MB sent, taken /s", "what came of it")
	var most int64
	for _, r := range rows {
		per := func(n int64) float64 { return float64(n) / max(r.For.Seconds(), 1e-3) }
		times := float64(r.P99) / float64(max(base, 1))
		t.Logf("%-34s %5d MiB %9s %6.1f %9s %6d %8d %8.1f %7.2f %7.2f  %s", r.name, r.peak>>20, millis(r.P99), times, millis(r.Worst), r.Acked, r.Refused,
			per(r.Conns), per(r.Sent)/1e6, per(r.Took)/1e6, r.Note)
		most = max(most, r.peak)
		if factor > 0 && times > float64(factor) {
			t.Errorf("%s: another client's p99 was %s, %s without", r.name, millis(r.P99), millis(base))
		}
	}
	readers.check(t)
	figure(t, "peak of %d MiB", most>>20)
}

// Roles of other processes of a siege: who they are, and what they are told. They are
// this binary, which then runs TestRole alone.
const (
	roleVariable  = "FAULTS_ROLE"
	briefVariable = "FAULTS_BRIEF"
	honestRole    = "honest"
)

// TestRole is a process of TestAttacksOnOneBroker's: one attack, by its name, or the
// honest client.
func TestRole(t *testing.T) {
	role := os.Getenv(roleVariable)
	if role == "" {
		t.Skip("it is a part of TestAttacksOnOneBroker, in a process of its own")
	}
	s := &siege{T: t, c: &cluster{Cluster: &testcluster.Cluster{}, t: t}}
	if err := json.Unmarshal([]byte(os.Getenv(briefVariable)), &s.brief); err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Nodes {
		of := &testcluster.Node{ID: n.ID, Address: n.Address}
		s.c.Nodes = append(s.c.Nodes, of)
		s.c.nodes = append(s.c.nodes, &node{Node: of, t: t, others: n.PID})
	}
	s.victim = s.c.node(s.Victim)
	out := json.NewEncoder(os.NewFile(3, "out"))
	if role == honestRole {
		s.beHonest(out)
		return
	}
	at := slices.IndexFunc(attacks, func(a attack) bool { return a.name == role })
	if at < 0 {
		t.Fatalf("there is no attack %q", role)
	}
	s.began = time.Now()
	v := verdict{Err: "it could not be made"} // unless it comes to its end; something may be fatal
	defer func() {
		v.For = time.Since(s.began)
		v.Conns, v.Sent, v.Took = s.spent.Conns.Load(), s.spent.Sent.Load(), s.spent.Took.Load()
		out.Encode(v)
	}()
	note, err := attacks[at].run(s)
	v.Note, v.Err = note, ""
	if err != nil {
		v.Err = err.Error()
	}
	if rest := s.Until - time.Since(s.began); rest > 0 {
		time.Sleep(rest)
	}
}

// other starts another process of the siege, with so much less priority. What it has to
// say it writes to the second file it returns, what it prints comes with end.
func (s *siege) other(role string, nice int) (in io.WriteCloser, out *json.Decoder, end func() string) {
	said, says, err := os.Pipe()
	if err != nil {
		s.Fatal(err)
	}
	told, err := json.Marshal(s.brief)
	if err != nil {
		s.Fatal(err)
	}
	cmd := exec.Command("nice", "-n", fmt.Sprint(nice), os.Args[0], "-test.run", "^TestRole$", "-test.timeout", "1h")
	cmd.Env = append(os.Environ(), roleVariable+"="+role, briefVariable+"="+string(told))
	cmd.ExtraFiles = []*os.File{says}
	var prints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &prints, &prints
	if in, err = cmd.StdinPipe(); err != nil {
		s.Fatal(err)
	}
	process, err := testcluster.Start(cmd)
	says.Close()
	if err != nil {
		s.Fatal(err)
	}
	return in, json.NewDecoder(said), func() string {
		in.Close()
		process.Wait()
		said.Close()
		return prints.String()
	}
}

// attack makes one attack, from a process that gets what the brokers leave.
func (s *siege) attack(a attack) (v verdict) {
	_, out, end := s.other(a.name, 19)
	err := out.Decode(&v)
	if prints := end(); err != nil || v.Err != "" {
		v.Err += "\n" + prints
	}
	return v
}

// settle waits until the broker has let go of the last attack's connections and
// memory, for ten seconds at most.
func (n *node) settle() {
	last := n.usage().rss
	for range 10 {
		time.Sleep(time.Second)
		now := n.usage().rss
		if now > last-4<<20 {
			return
		}
		last = now
	}
}

// watchMemory follows the victim's resident memory until it is stopped.
func (s *siege) watchMemory() (stop func(), peak *atomic.Int64) {
	peak = new(atomic.Int64)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			peak.Store(max(peak.Load(), s.victim.usage().rss))
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() { close(done); <-ended }, peak
}

// load keeps the cluster at work: two producers of small records.
func (s *siege) load() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range 2 {
		client := s.c.client(kgo.DefaultProduceTopic("load"), kgo.ProducerLinger(5*time.Millisecond))
		all.Add(1)
		go func() {
			defer all.Done()
			for ctx.Err() == nil {
				for range 10 {
					client.Produce(ctx, &kgo.Record{Value: make([]byte, 300)}, nil)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
	}
	return func() { cancel(); all.Wait() }
}

// An honest client, in a process of its own, produces to the victim, one record after
// another, of 1 KB and each fifth of 100 KB, and is a member of a group that the victim
// coordinates.
type honest struct {
	take func() quiet // what it saw since
	stop func()
}

// A quiet is what an honest client saw for a while.
type quiet struct {
	P99, Worst time.Duration // of what was acknowledged
	Acked      int
	Refused    int
	Why        string
}

func (s *siege) honest() *honest {
	in, out, end := s.other(honestRole, 0)
	y := &honest{stop: sync.OnceFunc(func() { end() })}
	y.take = func() (q quiet) {
		_, err := in.Write([]byte("\n"))
		if err == nil {
			err = out.Decode(&q)
		}
		if err != nil {
			s.Fatalf("the honest client is gone: %v\n%s", err, end())
		}
		return q
	}
	y.take() // it has begun
	return y
}

// diary is what an honest client writes down.
type diary struct {
	mu      sync.Mutex
	took    []time.Duration
	refused int
	why     string
}

func (y *diary) take() quiet {
	y.mu.Lock()
	defer y.mu.Unlock()
	slices.Sort(y.took)
	q := quiet{Acked: len(y.took), Refused: y.refused, Why: y.why}
	if len(y.took) > 0 {
		q.P99, q.Worst = y.took[len(y.took)*99/100], y.took[len(y.took)-1]
	}
	y.took, y.refused, y.why = nil, 0, ""
	return q
}

func (y *diary) trouble(format string, args ...any) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.refused++
	y.why = fmt.Sprintf(format, args...)
}

// beHonest is the honest client's process: it says what it saw for each line that
// comes in, and ends with them.
func (s *siege) beHonest(out *json.Encoder) {
	y := &diary{}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	client := s.c.client(kgo.DefaultProduceTopic(s.Topic), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordDeliveryTimeout(60*time.Second))
	all.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			size := 1000
			if i%5 == 4 {
				size = 100_000
			}
			began := time.Now()
			err := client.ProduceSync(ctx, &kgo.Record{Partition: s.Part, Value: make([]byte, size)}).FirstErr()
			if ctx.Err() != nil {
				return
			}
			took := time.Since(began)
			if err != nil {
				y.trouble("a produce of %d bytes: %v", size, err)
			} else {
				y.mu.Lock()
				y.took = append(y.took, took)
				y.mu.Unlock()
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	group := s.coordinated("honest")
	w := s.dial()
	join := joinRequest(group, "", nil)
	join.SetVersion(3)
	join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = 45_000, 45_000
	joined, err := ask[*kmsg.JoinGroupResponse](w, join)
	if err != nil || joined.ErrorCode != 0 {
		s.Fatalf("an honest member's join: %+v, %v", joined, err)
	}
	assign := kmsg.NewPtrSyncGroupRequest()
	assign.SetVersion(3)
	assign.Group, assign.MemberID, assign.Generation = group, joined.MemberID, joined.Generation
	if got, err := ask[*kmsg.SyncGroupResponse](w, assign); err != nil || got.ErrorCode != 0 {
		s.Fatalf("an honest member's sync: %+v, %v", got, err)
	}
	all.Go(func() {
		defer w.Close()
		for ctx.Err() == nil {
			beat := kmsg.NewPtrHeartbeatRequest()
			beat.SetVersion(3)
			beat.Group, beat.MemberID, beat.Generation = group, joined.MemberID, joined.Generation
			if got, err := ask[*kmsg.HeartbeatResponse](w, beat); err != nil || got.ErrorCode != 0 {
				if ctx.Err() == nil {
					y.trouble("a heartbeat: %+v, %v", got, err)
				}
				if err != nil {
					return
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	var line [1]byte
	for {
		if _, err := os.Stdin.Read(line[:]); err != nil {
			break
		}
		out.Encode(y.take())
	}
	cancel()
	w.Close()
	all.Wait()
}

// coordinated returns the name of a group that the victim coordinates.
func (s *siege) coordinated(prefix string) string { return s.allCoordinated(prefix, 1)[0] }

// allCoordinated returns so many of them.
func (s *siege) allCoordinated(prefix string, n int) (names []string) {
	w := s.dial()
	defer w.Close()
	eventually(s.T, patience, "groups that the node coordinates", func() error {
		fc := kmsg.NewPtrFindCoordinatorRequest()
		fc.SetVersion(4)
		for i := range 50 + 10*n {
			fc.CoordinatorKeys = append(fc.CoordinatorKeys, fmt.Sprint(prefix, "-", i))
		}
		got, err := ask[*kmsg.FindCoordinatorResponse](w, fc)
		if err != nil {
			return err
		}
		names = nil
		for _, f := range got.Coordinators {
			if f.ErrorCode == 0 && f.NodeID == s.victim.ID && len(names) < n {
				names = append(names, f.Key)
			}
		}
		if len(names) < n {
			return fmt.Errorf("%d of %d", len(names), n)
		}
		for _, name := range names[:min(n, 40)] { // it serves them already
			of := kmsg.NewPtrOffsetFetchRequest()
			of.SetVersion(5)
			of.Group = name
			if r, err := ask[*kmsg.OffsetFetchResponse](w, of); err != nil || r.ErrorCode != 0 {
				return fmt.Errorf("%s: error %v, %v", name, r, err)
			}
		}
		return nil
	})
	return names
}

// repeat goes on with f until the attack's time is over.
func (s *siege) repeat(f func() (string, error)) (string, error) {
	for s.round = 0; ; s.round++ {
		note, err := f()
		if err != nil || time.Since(s.began) >= s.Until {
			return fmt.Sprintf("%d ×: %s", s.round+1, note), err
		}
	}
}

// dial connects to the victim until the attack's end.
func (s *siege) dial() net.Conn {
	w, err := s.tryDial()
	if err != nil {
		s.Fatal(err)
	}
	return w
}

func (s *siege) tryDial() (net.Conn, error) {
	w, err := net.DialTimeout("tcp", s.victim.Address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	s.spent.Conns.Add(1)
	counted := hose{w.(*net.TCPConn), &s.spent}
	s.mu.Lock()
	s.keep = append(s.keep, counted)
	s.mu.Unlock()
	return counted, nil
}

// A hose is a connection on which it is counted what goes over it.
type hose struct {
	*net.TCPConn
	spent *spent
}

func (h hose) Write(p []byte) (int, error) {
	n, err := h.TCPConn.Write(p)
	h.spent.Sent.Add(int64(n))
	return n, err
}

func (h hose) Read(p []byte) (int, error) {
	n, err := h.TCPConn.Read(p)
	h.spent.Took.Add(int64(n))
	return n, err
}

// crowd makes n connections and writes to each; it goes on as far as it gets.
func (s *siege) crowd(n int, first []byte) (made int) {
	for range n {
		w, err := s.tryDial()
		if err != nil {
			break
		}
		w.(hose).SetReadBuffer(4 << 10)
		w.SetWriteDeadline(time.Now().Add(5 * time.Second))
		if len(first) > 0 {
			w.Write(first)
		}
		made++
	}
	return made
}

func (s *siege) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.keep {
		w.Close()
	}
	s.keep = nil
}

func (s *siege) forAWhile() { time.Sleep(s.Until) }

// frame is a request as it goes over the wire.
func frame(req kmsg.Request) []byte { return kmsg.NewRequestFormatter().AppendRequest(nil, req, 1) }

// ask sends a request and reads the answer.
func ask[R kmsg.Response](w net.Conn, req kmsg.Request) (r R, err error) {
	w.SetDeadline(time.Now().Add(60 * time.Second))
	if _, err := w.Write(frame(req)); err != nil {
		return r, err
	}
	body, err := answer(w)
	if err != nil {
		return r, err
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if resp.IsFlexible() {
		body = body[1:]
	}
	err = resp.ReadFrom(body)
	return resp.(R), err
}

// answer reads one answer, without its correlation id.
func answer(w net.Conn) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(w, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, enc.BigEndian.Uint32(head[:])-4)
	_, err := io.ReadFull(w, body)
	return body, err
}

// length reads one answer and says how long it is; it keeps nothing of it.
func length(w net.Conn) (int64, error) {
	w.SetReadDeadline(time.Now().Add(90 * time.Second))
	var head [4]byte
	if _, err := io.ReadFull(w, head[:]); err != nil {
		return 0, err
	}
	n, err := io.Copy(io.Discard, io.LimitReader(w, int64(enc.BigEndian.Uint32(head[:]))))
	return n, err
}

func mb(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

const elements = 500_000 // of a request, nearly as many as are read

// fetchOf names so many partitions of a topic.
func fetchOf(version int16, topic string, partitions int, same bool, wait, least, most int32) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(version)
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = wait, least, 1<<30, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = topic
	rt.Partitions = make([]kmsg.FetchRequestTopicPartition, partitions)
	for i := range rt.Partitions {
		p := &rt.Partitions[i]
		p.Default()
		if p.PartitionMaxBytes = most; !same {
			p.Partition = int32(i)
		}
	}
	req.Topics = append(req.Topics, rt)
	return req
}

func produceOf(topic string, partition int32, batch []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(9)
	req.Acks, req.TimeoutMillis = -1, 30_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, batch
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// batchBy is one record of one idempotent producer.
func batchBy(producer int64) []byte {
	bu := record.Builder{Producer: &record.Producer{ID: producer}}
	bu.Append(record.Record{Timestamp: time.Now().UnixMilli(), Value: []byte("x")})
	b, err := bu.Batch()
	if err != nil {
		panic(err)
	}
	return b
}

var attacks = []attack{
	{"a frame that trickles", func(s *siege) (string, error) {
		for range 4 {
			w := s.dial()
			go func() {
				w.Write(enc.BigEndian.AppendUint32(nil, 95<<20))
				w.Write([]byte{0, 0, 0, 9, 0, 0, 0, 1, 0xff, 0xff})
				for range 34 {
					w.Write(make([]byte, 1<<20))
				}
				for range 100 {
					time.Sleep(time.Second)
					w.Write([]byte{0})
				}
			}()
		}
		time.Sleep(2 * s.Until)
		return "4 × 34 of 95 MiB", nil
	}},
	{"fetches of unknown partitions", func(s *siege) (string, error) {
		f := frame(fetchOf(4, "nope", elements, false, 0, 0, 1))
		return s.repeat(func() (string, error) {
			w := s.dial()
			w.Write(f)
			_, err := length(w)
			return fmt.Sprintf("then they idle, with %d MiB", s.victim.usage().rss>>20), err
		})
	}},
	{"one group described 400 times", func(s *siege) (string, error) {
		group := s.coordinated("fat")
		w := s.dial()
		join := joinRequest(group, "", make([]byte, 4<<20))
		join.SetVersion(3)
		joined, err := ask[*kmsg.JoinGroupResponse](w, join)
		if err != nil || joined.ErrorCode != 0 {
			return "", fmt.Errorf("join: %+v, %v", joined, err)
		}
		assign := kmsg.NewPtrSyncGroupRequest()
		assign.SetVersion(3)
		assign.Group, assign.MemberID, assign.Generation = group, joined.MemberID, joined.Generation
		assign.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: joined.MemberID, MemberAssignment: make([]byte, 2<<20)}}
		if got, err := ask[*kmsg.SyncGroupResponse](w, assign); err != nil || got.ErrorCode != 0 {
			return "", fmt.Errorf("sync: %+v, %v", got, err)
		}
		dg := kmsg.NewPtrDescribeGroupsRequest()
		dg.SetVersion(5)
		dg.Groups = slices.Repeat([]string{group}, 400)
		return s.repeat(func() (string, error) { return s.amplified(frame(dg)) })
	}},
	{"one group's offsets 500 times", func(s *siege) (string, error) {
		group := s.coordinated("offsets")
		if s.c.describeOrNil("many") == nil {
			s.c.createTopic("many", 100)
		}
		oc := kmsg.NewPtrOffsetCommitRequest()
		oc.SetVersion(7)
		oc.Group, oc.Generation = group, -1
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic = "many"
		for i := range int32(100) {
			rp := kmsg.NewOffsetCommitRequestTopicPartition()
			rp.Partition, rp.Offset, rp.Metadata = i, 1, kmsg.StringPtr(strings.Repeat("m", 4096))
			rt.Partitions = append(rt.Partitions, rp)
		}
		oc.Topics = append(oc.Topics, rt)
		if got, err := ask[*kmsg.OffsetCommitResponse](s.dial(), oc); err != nil || got.Topics[0].Partitions[0].ErrorCode != 0 {
			return "", fmt.Errorf("commit: %v", err)
		}
		of := kmsg.NewPtrOffsetFetchRequest()
		of.SetVersion(8)
		for range 500 {
			g := kmsg.NewOffsetFetchRequestGroup()
			g.Group = group
			of.Groups = append(of.Groups, g)
		}
		return s.repeat(func() (string, error) { return s.amplified(frame(of)) })
	}},
	{"large answers nobody reads", func(s *siege) (string, error) {
		fc := kmsg.NewPtrFindCoordinatorRequest()
		fc.SetVersion(4)
		fc.CoordinatorKeys = make([]string, elements)
		n := s.crowd(40, frame(fc))
		time.Sleep(2 * s.Until)
		return fmt.Sprintf("%d × 500,000 coordinators", n), nil
	}},
	{"an expression that explodes", func(s *siege) (string, error) {
		hb := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		hb.SetVersion(1)
		hb.Group, hb.MemberID, hb.RebalanceTimeoutMillis = s.coordinated("regex"), "m", 60_000
		hb.SubscribedTopicRegex = kmsg.StringPtr("(?:" + strings.Repeat(".?", 1000) + "){0,1000}")
		hb.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		slow := strings.Repeat(".?", 1000) // compiles, and takes as many steps as there may be
		return s.repeat(func() (string, error) {
			began := time.Now()
			if s.round > 0 {
				hb.SubscribedTopicRegex = kmsg.StringPtr(fmt.Sprintf("(?:%s)*%d", slow, s.round))
			}
			got, err := ask[*kmsg.ConsumerGroupHeartbeatResponse](s.dial(), hb)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("error %d after %v", got.ErrorCode, time.Since(began).Round(time.Millisecond)), nil
		})
	}},
	{"40,000 idempotent producers", func(s *siege) (string, error) {
		w := s.dial()
		produce := func(id int64) (int64, error) {
			got, err := ask[*kmsg.ProduceResponse](w, produceOf(s.Topic, s.Part, batchBy(id)))
			if err != nil {
				return 0, err
			}
			p := got.Topics[0].Partitions[0]
			if p.ErrorCode != 0 {
				err = fmt.Errorf("error %d", p.ErrorCode)
			}
			return p.BaseOffset, err
		}
		return s.repeat(func() (string, error) {
			base := int64(1+s.round) << 41
			first, err := produce(base - 1)
			if err != nil {
				return "", err
			}
			for i := 0; i < 40_000; i += 50 {
				var all []byte
				for j := range 50 {
					all = append(all, frame(produceOf(s.Topic, s.Part, batchBy(base+int64(i+j))))...)
				}
				w.Write(all)
				for range 50 {
					w.SetReadDeadline(time.Now().Add(30 * time.Second))
					if _, err := answer(w); err != nil {
						return "", err
					}
				}
			}
			again, err := produce(base - 1)
			if err == nil && again != first {
				err = fmt.Errorf("what was sent again is stored again: at %d and %d", first, again)
			}
			return "the first one's retry is recognised", err
		})
	}},
	{"groups filled with client ids", func(s *siege) (string, error) {
		f := kmsg.NewRequestFormatter(kmsg.FormatterClientID(strings.Repeat("c", 16_000)))
		groups := s.allCoordinated("full", 90)
		newcomers := s.allCoordinated("newcomer", 100)
		w := s.dial()
		codes := map[int16]int{}
		return s.repeat(func() (string, error) {
			for i := 0; i < 9000; i += 50 {
				var all []byte
				for j := range 50 {
					join := joinRequest(groups[(i+j)/100], "", nil)
					join.SetVersion(4)
					all = append(all, f.AppendRequest(nil, join, 1)...)
				}
				if err := pipelined(w, all, 50, codes); err != nil {
					return "", err
				}
			}
			join := joinRequest(newcomers[s.round%100], "", nil)
			join.SetVersion(4)
			got, err := ask[*kmsg.JoinGroupResponse](s.dial(), join)
			if err == nil && got.ErrorCode != 79 {
				err = fmt.Errorf("a newcomer to another group got error %d instead of its member id", got.ErrorCode)
			}
			return fmt.Sprintf("answers %v", codes), err
		})
	}},
	{"500 joins of a KIP-848 group", func(s *siege) (string, error) {
		groups := s.allCoordinated("k848", 100)
		w := s.dial()
		return s.repeat(func() (string, error) {
			began := time.Now()
			for i := range 500 {
				hb := kmsg.NewPtrConsumerGroupHeartbeatRequest()
				hb.SetVersion(1)
				hb.Group, hb.MemberID, hb.RebalanceTimeoutMillis = groups[s.round%100], fmt.Sprint("member-", i), 60_000
				hb.SubscribedTopicNames, hb.Topics = []string{"load"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
				got, err := ask[*kmsg.ConsumerGroupHeartbeatResponse](w, hb)
				if err != nil || got.ErrorCode != 0 {
					return "", fmt.Errorf("member %d: %+v, %v", i, got, err)
				}
			}
			return fmt.Sprint("in ", time.Since(began).Round(time.Millisecond)), nil
		})
	}},
	{"10,000 declared frames", func(s *siege) (string, error) {
		n := s.crowd(10_000, append(enc.BigEndian.AppendUint32(nil, 64<<10), 0, 3))
		s.forAWhile()
		return fmt.Sprintf("%d connections", n), nil
	}},
	{"5,000 frames all but their ends", func(s *siege) (string, error) {
		n := s.crowd(5000, append(append(enc.BigEndian.AppendUint32(nil, 64<<10), 0, 3), make([]byte, 60_000)...))
		s.forAWhile()
		return fmt.Sprintf("%d × 60 KB", n), nil
	}},
	{"5,000 half-open connections", func(s *siege) (string, error) {
		n := s.crowd(5000, []byte{0, 0, 0})
		s.forAWhile()
		return fmt.Sprintf("%d connections", n), nil
	}},
	{"1,000 readers that read nothing", func(s *siege) (string, error) {
		n := s.crowd(1000, frame(fetchOf(11, s.Topic, 1, true, 100, 1, 1<<20)))
		s.forAWhile()
		return fmt.Sprintf("%d × 1 MiB", n), nil
	}},
	{"zstd bombs", func(s *siege) (string, error) { return s.bombs(4<<20-200, 0, 4) }},
	{"zstd with wide windows", func(s *siege) (string, error) { return s.bombs(60<<20, 64<<20, 4) }},
	{"500,000 topics to create", func(s *siege) (string, error) {
		r := kmsg.NewPtrCreateTopicsRequest()
		r.SetVersion(7)
		r.TimeoutMillis = 1000
		r.ValidateOnly = true
		r.Topics = make([]kmsg.CreateTopicsRequestTopic, elements)
		for i := range r.Topics {
			r.Topics[i].Default()
			r.Topics[i].Topic = fmt.Sprint(i)
		}
		return s.large(r)
	}},
	{"500,000 topics to describe", func(s *siege) (string, error) {
		r := kmsg.NewPtrDescribeTopicPartitionsRequest()
		r.Topics = make([]kmsg.DescribeTopicPartitionsRequestTopic, elements)
		for i := range r.Topics {
			r.Topics[i].Topic = fmt.Sprint(i)
		}
		return s.large(r)
	}},
	{"500,000 coordinators", func(s *siege) (string, error) {
		r := kmsg.NewPtrFindCoordinatorRequest()
		r.SetVersion(4)
		r.CoordinatorKeys = make([]string, elements)
		return s.large(r)
	}},
	{"500,000 groups", func(s *siege) (string, error) {
		r := kmsg.NewPtrDescribeGroupsRequest()
		r.SetVersion(6)
		for i := range elements {
			r.Groups = append(r.Groups, fmt.Sprint(i))
		}
		return s.large(r)
	}},
	{"500,000 resources", func(s *siege) (string, error) {
		r := kmsg.NewPtrDescribeConfigsRequest()
		r.SetVersion(4)
		r.IncludeSynonyms, r.IncludeDocumentation = true, true
		for i := range elements {
			x := kmsg.NewDescribeConfigsRequestResource()
			x.ResourceType, x.ResourceName = kmsg.ConfigResourceTypeBroker, fmt.Sprintf("%0*d", 1+i%60, s.victim.ID)
			r.Resources = append(r.Resources, x)
		}
		return s.large(r)
	}},
	{"500,000 topics' metadata", func(s *siege) (string, error) {
		r := kmsg.NewPtrMetadataRequest()
		r.SetVersion(9)
		for i := range elements {
			x := kmsg.NewMetadataRequestTopic()
			x.Topic = kmsg.StringPtr(fmt.Sprint("t", i))
			r.Topics = append(r.Topics, x)
		}
		return s.large(r)
	}},
	{"one partition fetched 500,000 times", func(s *siege) (string, error) {
		n := s.crowd(2, frame(fetchOf(4, s.Topic, elements, true, 300_000, 1<<30, 1)))
		s.forAWhile()
		return fmt.Sprintf("%d waiting fetches", n), nil
	}},
	{"100,000 member ids", func(s *siege) (string, error) {
		groups := s.allCoordinated("ids", 5)
		return s.memberIDs(func(i int) string { return groups[i/20_000] })
	}},
	{"100,000 groups of one member id", func(s *siege) (string, error) {
		groups := s.allCoordinated("one", 4000)
		return s.memberIDs(func(i int) string { return groups[i%len(groups)] })
	}},
	{"100 topics made and deleted", func(s *siege) (string, error) {
		admin := s.c.admin()
		ctx, cancel := context.WithTimeout(context.Background(), s.Until+patience)
		defer cancel()
		return s.repeat(func() (string, error) {
			var names []string
			for i := range 100 {
				names = append(names, fmt.Sprint("many-", s.round, "-", i))
			}
			began := time.Now()
			if _, err := admin.CreateTopics(ctx, 1, -1, nil, names...); err != nil {
				return "", err
			}
			_, err := admin.DeleteTopics(ctx, names...)
			return fmt.Sprint("in ", time.Since(began).Round(time.Millisecond)), err
		})
	}},
	{"a topic deleted under its readers", func(s *siege) (string, error) {
		return s.repeat(func() (string, error) { return s.deleteUnderReaders(fmt.Sprint("gone-", s.round)) })
	}},
	{"other protocols", func(s *siege) (string, error) {
		end := time.Now().Add(s.Until)
		n := 0
		for time.Now().Before(end) {
			for _, hello := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "SSH-2.0-x\r\n", "\x7f\xff\xff\xff", strings.Repeat("\xa5\x11", 500)} {
				w, err := s.tryDial()
				if err != nil {
					return "", err
				}
				w.Write([]byte(hello))
				w.Close()
				n++
			}
			s.closeAll()
		}
		return fmt.Sprintf("%d connections", n), nil
	}},
}

// large sends one request and reads the answer, again and again.
func (s *siege) large(req kmsg.Request) (string, error) {
	f := frame(req)
	return s.repeat(func() (string, error) {
		began := time.Now()
		w := s.dial()
		if _, err := w.Write(f); err != nil {
			return "", err
		}
		n, err := length(w)
		return fmt.Sprintf("%s answered with %s in %v", mb(int64(len(f))), mb(n), time.Since(began).Round(time.Millisecond)), err
	})
}

// amplified sends a small request and reads the answer, which is not to be endless.
func (s *siege) amplified(f []byte) (string, error) {
	w := s.dial()
	w.Write(f)
	n, err := length(w)
	if err == nil && n > 64<<20 {
		err = fmt.Errorf("%s answered", mb(n))
	}
	return fmt.Sprintf("%d bytes answered with %s", len(f), mb(n)), err
}

// deleteUnderReaders makes a topic and deletes it while ten read it.
func (s *siege) deleteUnderReaders(topic string) (string, error) {
	s.c.createTopic(topic, 1)
	s.c.awaitLeaders(topic)
	at := s.c.leader(topic, 0)
	client := s.c.client(kgo.DefaultProduceTopic(topic), kgo.ProducerBatchMaxBytes(900_000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	defer client.Close()
	for range 24 {
		if err := client.ProduceSync(context.Background(), &kgo.Record{Value: make([]byte, 800_000)}).FirstErr(); err != nil {
			return "", err
		}
	}
	var conns []net.Conn
	for range 10 {
		w, err := net.Dial("tcp", at.Address)
		if err != nil {
			return "", err
		}
		defer w.Close()
		s.spent.Conns.Add(1)
		w.(*net.TCPConn).SetReadBuffer(64 << 10)
		w = hose{w.(*net.TCPConn), &s.spent}
		w.Write(frame(fetchOf(11, topic, 1, true, 100, 1, 50<<20)))
		conns = append(conns, w)
	}
	time.Sleep(time.Second)
	if _, err := s.c.admin().DeleteTopics(context.Background(), topic); err != nil {
		return "", err
	}
	whole := 0
	for _, w := range conns {
		if n, err := length(w); err == nil && n > 15<<20 {
			whole++
		}
	}
	if whole < 10 {
		return "", fmt.Errorf("%d of 10 answers were whole", whole)
	}
	return "10 answers read whole", nil
}

// pipelined sends n joins at once and counts the codes of their answers.
func pipelined(w net.Conn, all []byte, n int, codes map[int16]int) error {
	go w.Write(all)
	for range n {
		w.SetReadDeadline(time.Now().Add(30 * time.Second))
		p, err := answer(w)
		if err != nil {
			return err
		}
		codes[int16(enc.BigEndian.Uint16(p[4:]))]++
	}
	return nil
}

// bombs sends batches that expand to size, over so many connections.
func (s *siege) bombs(size, window, conns int) (string, error) {
	bu := record.Builder{}
	bu.Append(record.Record{Timestamp: time.Now().UnixMilli(), Value: make([]byte, size)})
	plain, err := bu.Batch()
	if err != nil {
		return "", err
	}
	options := []zstd.EOption{zstd.WithEncoderConcurrency(1)}
	if window > 0 {
		options = append(options, zstd.WithWindowSize(window))
	}
	packer, err := zstd.NewWriter(nil, options...)
	if err != nil {
		return "", err
	}
	batch := append(bytes.Clone(plain[:record.HeaderSize]), packer.EncodeAll(plain[record.HeaderSize:], nil)...)
	b := record.Batch(batch)
	enc.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	b[22] = b[22]&^7 | byte(record.Zstd)
	enc.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	var all sync.WaitGroup
	var sent atomic.Int64
	codes := sync.Map{}
	end := time.Now().Add(s.Until)
	for range conns {
		w := s.dial()
		all.Go(func() {
			for time.Now().Before(end) {
				got, err := ask[*kmsg.ProduceResponse](w, produceOf(s.Topic, s.Part, b))
				if err != nil {
					codes.Store(err.Error(), true)
					return
				}
				codes.Store(fmt.Sprint("error ", got.Topics[0].Partitions[0].ErrorCode), true)
				sent.Add(1)
			}
		})
	}
	all.Wait()
	var seen []string
	codes.Range(func(k, _ any) bool { seen = append(seen, k.(string)); return true })
	return fmt.Sprintf("%d × %d bytes: %s", sent.Load(), len(b), strings.Join(seen, ", ")), nil
}

// describeOrNil returns a topic's details, or nil when there is none.
func (c *cluster) describeOrNil(topic string) *kadm.TopicDetail {
	d, err := c.describe(c.admin(), topic)
	if err != nil || d.Err != nil {
		return nil
	}
	return &d
}

// memberIDs asks for 100,000 ids of members again and again, each in the group of its
// number, and says how that was answered.
func (s *siege) memberIDs(group func(i int) string) (string, error) {
	w := s.dial()
	codes := map[int16]int{}
	return s.repeat(func() (string, error) {
		for i := 0; i < 100_000; i += 200 {
			var all []byte
			for j := range 200 {
				join := joinRequest(group(i+j), "", nil)
				join.SetVersion(4)
				all = append(all, frame(join)...)
			}
			if err := pipelined(w, all, 200, codes); err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("answers %v", codes), nil
	})
}
