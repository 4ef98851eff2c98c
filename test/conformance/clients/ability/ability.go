// Package ability is the part of every Go program here that is the same for all
// clients: what each ability asks, as the README's table says it. A program
// wraps its library in a Client and calls Main.
package ability

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Record is one that was, or is to be, produced.
type Record struct {
	Partition  int32
	Offset     int64 // Untold where the client does not say it
	Key, Value []byte
	Headers    []Header
	Time       int64 // milliseconds; 0: the client's choice
}

// Untold is the offset of a record whose producer is not told.
const Untold = -1

// A Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Producing says how to produce; the zero value is plainly, with acks=all.
type Producing struct {
	Idempotent bool
	Codec      string // gzip, snappy, lz4, zstd, or "" for none
	MaxBytes   int    // of a request, where more than the client's default is needed
}

// A Client is a library as Main uses it. Offsets are keyed by partition.
type Client interface {
	// Produce sends records to the partitions they name and sets what it is told
	// of their partitions and offsets.
	Produce(topic string, how Producing, records []Record) error
	// Read returns the next n records from offsets, without a group.
	Read(topic string, from map[int32]int64, n int) ([]Record, error)
	// OffsetsAt returns the first offsets at or after a time; none is -1 or absent.
	OffsetsAt(topic string, ms int64) (map[int32]int64, error)
	// Join becomes a member of a group that reads topic from the earliest offset,
	// commits only when told, and has a session timeout of 6 s.
	Join(group, topic string, how Joining) (Member, error)
}

// Joining says how to be a member.
type Joining struct {
	Next     bool   // by KIP-848
	Eager    bool   // by the classic protocol, giving everything up at each rebalance; a client may ignore it that has one way only
	Limit    int    // leave after so many records, for a client that has to know before; 0: no limit
	Instance string // be a static member, which closes without leaving; only asked of a Static client
}

// A Member is a consumer in a group. It is used by one goroutine at a time,
// except that Assigned may be called at any time.
type Member interface {
	// Poll returns up to most records, none if there are none for a while.
	Poll(most int) ([]Record, error)
	// Assigned are the partitions that are the member's now.
	Assigned() []int32
	// Commit commits what Poll has returned.
	Commit() error
	// Close leaves the group.
	Close() error
}

// Static is a Client with static members.
type Static interface {
	// Generation is the one that a member of its group is in.
	Generation(Member) int32
}

// Ending is a Member that may commit records which Poll has not returned.
type Ending interface {
	// Rest are those records, after Close.
	Rest() []Record
}

// Blurring is a Client that reads what is empty as null.
type Blurring interface{ ReadsEmptyAsNull() }

// Admin is what a Client does that has administration.
type Admin interface {
	// CreateTopic returns Kafka's error code, 0 for none.
	CreateTopic(name string, partitions int32, replicas int16, settings map[string]string) (code int16, err error)
	// Alter sets settings, and gives those in reset their defaults.
	Alter(topic string, set map[string]string, reset []string) error
	Grow(topic string, partitions int32) error
	Describe(topic string) (Description, error)
	DeleteTopic(topic string) error
	Topics() ([]string, error)
	DescribeGroup(group string) (state string, err error)
	Groups() ([]string, error)
	GroupOffsets(group, topic string) (map[int32]int64, error)
	DeleteGroup(group string) error
}

// RecordsDeleter is a Client that can delete records.
type RecordsDeleter interface {
	// DeleteRecords deletes those before offsets; -1 is the end.
	DeleteRecords(topic string, before map[int32]int64) error
}

// Checker is a Client that has a view of a cluster of its own, checked with
// consume-assign.
type Checker interface {
	Check(topic string) error
}

// A Description is what an Admin says of a topic and the cluster it is in.
type Description struct {
	Replicas   map[int32][]int32 // by partition
	Leaders    map[int32]int32
	Settings   map[string]Setting
	Brokers    []int32
	Controller int32
	ClusterID  string // Unknown where the library hides it
}

// Unknown is a cluster id that a library does not show.
const Unknown = "?"

// A Setting is one of a topic.
type Setting struct {
	Value   string
	OnTopic bool // set on the topic: source 1
}

const (
	partitions = 3
	firstTime  = 1_700_000_000_000
	quiet      = 30 * time.Second // longer than anything here takes
)

// Main runs the ability that the command line names and ends the process.
func Main(open func(brokers []string, login Login) (Client, error)) {
	if len(os.Args) != 4 {
		fmt.Fprintf(os.Stderr, "usage: %s BROKERS ABILITY PREFIX\n", os.Args[0])
		os.Exit(2)
	}
	brokers := strings.Split(os.Args[1], ",")
	right, wrong := loginsOfEnvironment()
	client, err := open(brokers, right)
	switch {
	case err != nil:
	case strings.HasPrefix(os.Args[2], "login-"):
		err = logIn(client, func() (Client, error) { return open(brokers, wrong) }, os.Args[3])
	default:
		err = run(client, len(brokers), os.Args[2], os.Args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(c Client, brokers int, ability, topic string) error {
	group := topic + "-group"
	name, codec, _ := strings.Cut(ability, "-")
	if name == "codec" {
		return produceAndRead(c, topic, Producing{Codec: codec}, numbered(99, func(i int) string {
			return fmt.Sprintf("v%d%s", i, strings.Repeat("x", 500))
		}))
	}
	switch ability {
	case "produce-plain":
		return produce(c, topic, Producing{}, numbered(99, short))
	case "produce-idempotent":
		return produce(c, topic, Producing{Idempotent: true}, numbered(99, short))
	case "headers":
		records := numbered(10, short)
		for i := range records {
			records[i].Headers = []Header{
				{"color", fmt.Appendf(nil, "blue%d", i)}, {"empty", []byte{}}, {"color", []byte("again")}, {"größe", []byte("déjà")},
			}
		}
		return produceAndRead(c, topic, Producing{}, records)
	case "nulls":
		return produceAndRead(c, topic, Producing{}, []Record{
			{Offset: 0, Value: []byte("nokey")},
			{Offset: 1, Key: []byte("novalue")},
			{Offset: 2, Key: []byte{}, Value: []byte{}},
		})
	case "large":
		value := make([]byte, 5<<20)
		for i := range value {
			value[i] = 'a' + byte(i%23)
		}
		return produceAndRead(c, topic, Producing{MaxBytes: 8 << 20}, []Record{{Key: []byte("k0"), Value: value}})
	case "consume-assign":
		return consumeAssign(c, topic)
	case "seek-by-time":
		return seekByTime(c, topic)
	case "consume-subscribe":
		return subscribe(c, group, topic, Joining{})
	case "commit-resume":
		return commitResume(c, group, topic)
	case "rebalance-three-members":
		if err := rebalance(c, group, topic, Joining{}); err != nil {
			return err
		}
		if s, ok := c.(Static); ok {
			return static(c, group+"-2", topic, s.Generation)
		}
		return nil
	case "member-killed":
		return memberKilled(c, group, topic)
	case "victim":
		return victim(c, group, topic)
	case "roll-eager":
		return roll(c, group, topic, Joining{Eager: true})
	case "roll-cooperative":
		return roll(c, group, topic, Joining{})
	case "next-protocol":
		if err := subscribe(c, group, topic, Joining{Next: true}); err != nil {
			return err
		}
		return rebalance(c, group+"-2", topic, Joining{Next: true})
	case "delete-records":
		d, ok := c.(RecordsDeleter)
		if !ok {
			return errors.New("no way to delete records")
		}
		return d.DeleteRecords(topic, map[int32]int64{0: 40, 2: -1})
	}
	a, ok := c.(Admin)
	if !ok {
		return fmt.Errorf("no way to do %s", ability)
	}
	switch ability {
	case "admin-create":
		return create(a, topic+"-made", int16(min(3, brokers)))
	case "admin-alter":
		if err := a.Alter(topic, map[string]string{"retention.ms": "7777777"}, []string{"segment.bytes"}); err != nil {
			return fmt.Errorf("alter: %w", err)
		}
		return a.Grow(topic, 5)
	case "admin-describe":
		return describe(a, topic, brokers)
	case "admin-delete":
		if err := a.DeleteTopic(topic + "-gone"); err != nil {
			return err
		}
		return eventually("the topic is gone", func() error { return absent(a.Topics, topic, topic+"-gone") })
	case "admin-groups":
		return groups(a, group, topic)
	}
	return fmt.Errorf("ability %q is not known", ability)
}

func short(i int) string { return fmt.Sprintf("v%d", i) }

// numbered returns records 0 to n-1.
func numbered(n int, value func(int) string) []Record {
	var all []Record
	for i := range n {
		all = append(all, Record{
			Partition: int32(i % partitions), Offset: int64(i / partitions),
			Key: fmt.Appendf(nil, "k%d", i), Value: []byte(value(i)),
		})
	}
	return all
}

// filled returns what the filled topic holds.
func filled() []Record {
	all := numbered(300, short)
	for i := range all {
		all[i].Time = firstTime + int64(i)*1000
	}
	return all
}

// from is where records begin, by partition.
func from(records []Record) map[int32]int64 {
	first := map[int32]int64{}
	for _, r := range records {
		if o, ok := first[r.Partition]; !ok || r.Offset < o {
			first[r.Partition] = r.Offset
		}
	}
	return first
}

func produce(c Client, topic string, how Producing, want []Record) error {
	told := slices.Clone(want)
	for i := range told {
		told[i].Offset = -2
	}
	if err := c.Produce(topic, how, told); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	for i, r := range told {
		if r.Partition != want[i].Partition || r.Offset != want[i].Offset && r.Offset != Untold {
			return fmt.Errorf("record %d was acknowledged at %d/%d, want %d/%d", i, r.Partition, r.Offset, want[i].Partition, want[i].Offset)
		}
	}
	return nil
}

func produceAndRead(c Client, topic string, how Producing, want []Record) error {
	if err := produce(c, topic, how, want); err != nil {
		return err
	}
	return read(c, topic, want)
}

// read reads as many records as are wanted from where they begin, and compares.
func read(c Client, topic string, want []Record) error {
	got, err := c.Read(topic, from(want), len(want))
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if _, ok := c.(Blurring); ok {
		blur(want)
	}
	return compare(got, want)
}

// blur makes null of what is empty.
func blur(records []Record) {
	for i := range records {
		r := &records[i]
		for _, b := range []*[]byte{&r.Key, &r.Value} {
			if len(*b) == 0 {
				*b = nil
			}
		}
		for h := range r.Headers {
			if len(r.Headers[h].Value) == 0 {
				r.Headers[h].Value = nil
			}
		}
	}
}

// compare holds got against want; only the order within a partition counts, and
// times where want has them.
func compare(got, want []Record) error {
	byPartition := func(a, b Record) int { return int(a.Partition - b.Partition) }
	got, want = slices.Clone(got), slices.Clone(want)
	slices.SortStableFunc(got, byPartition)
	slices.SortStableFunc(want, byPartition)
	for i := range min(len(got), len(want)) {
		g, w := got[i], want[i]
		switch {
		case g.Partition != w.Partition || g.Offset != w.Offset:
			return fmt.Errorf("read a record at %d/%d, want the one at %d/%d", g.Partition, g.Offset, w.Partition, w.Offset)
		case !same(g.Key, w.Key) || !same(g.Value, w.Value):
			return fmt.Errorf("read at %d/%d key %s, value %s; want key %s, value %s", g.Partition, g.Offset, shown(g.Key), shown(g.Value), shown(w.Key), shown(w.Value))
		case w.Time != 0 && g.Time != w.Time:
			return fmt.Errorf("read at %d/%d time %d, want %d", g.Partition, g.Offset, g.Time, w.Time)
		case !slices.EqualFunc(g.Headers, w.Headers, func(a, b Header) bool { return a.Key == b.Key && same(a.Value, b.Value) }):
			return fmt.Errorf("read at %d/%d headers %q, want %q", g.Partition, g.Offset, g.Headers, w.Headers)
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("read %d records, want %d", len(got), len(want))
	}
	return nil
}

func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func shown(b []byte) string {
	if b == nil {
		return "null"
	}
	return fmt.Sprintf("%.60q", b)
}

func consumeAssign(c Client, topic string) error {
	all := filled()
	if err := read(c, topic, all); err != nil {
		return err
	}
	var late []Record
	for _, r := range all {
		if r.Partition == 1 && r.Offset >= 50 {
			late = append(late, r)
		}
	}
	if err := read(c, topic, late); err != nil {
		return fmt.Errorf("from the middle: %w", err)
	}
	if check, ok := c.(Checker); ok {
		return check.Check(topic)
	}
	return nil
}

func seekByTime(c Client, topic string) error {
	offsets, err := c.OffsetsAt(topic, firstTime+150_000)
	if err != nil {
		return fmt.Errorf("offsets by time: %w", err)
	}
	want := filled()[150:]
	if !maps.Equal(offsets, from(want)) {
		return fmt.Errorf("offsets by time are %v, want %v", offsets, from(want))
	}
	if err := read(c, topic, want); err != nil {
		return err
	}
	offsets, err = c.OffsetsAt(topic, firstTime+300_000)
	if err != nil {
		return fmt.Errorf("offsets past the end: %w", err)
	}
	for p, o := range offsets {
		if o != -1 {
			return fmt.Errorf("partition %d has offset %d at a time past its end, want none", p, o)
		}
	}
	return nil
}

// collect polls until n records have come.
func collect(m Member, n int) ([]Record, error) {
	var all []Record
	deadline := time.Now().Add(quiet)
	for len(all) < n {
		records, err := m.Poll(n - len(all))
		if err != nil {
			return all, err
		}
		all = append(all, records...)
		if time.Now().After(deadline) {
			return all, fmt.Errorf("%d of %d records after %v, assigned %v", len(all), n, quiet, m.Assigned())
		}
	}
	return all, nil
}

func subscribe(c Client, group, topic string, how Joining) error {
	how.Limit = 300
	m, err := c.Join(group, topic, how)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	got, err := collect(m, 300)
	if err != nil {
		return err
	}
	if err := compare(got, filled()); err != nil {
		return err
	}
	return m.Close()
}

func commitResume(c Client, group, topic string) error {
	var all []Record
	for _, n := range []int{100, 200} {
		m, err := c.Join(group, topic, Joining{Limit: n})
		if err != nil {
			return fmt.Errorf("join: %w", err)
		}
		got, err := collect(m, n)
		if err != nil {
			return err
		}
		all = append(all, got...)
		if err := m.Commit(); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		if err := m.Close(); err != nil {
			return fmt.Errorf("close: %w", err)
		}
	}
	return compare(all, filled())
}

// A driven member polls all the time, as an application does, until it is closed.
type driven struct {
	Member
	stop chan struct{}
	done chan struct{} // closed when the driver has ended
	err  error         // why, before done is closed

	mu  sync.Mutex
	got map[string]bool // keys of records
}

func drive(m Member) *driven {
	d := &driven{Member: m, stop: make(chan struct{}), done: make(chan struct{}), got: map[string]bool{}}
	go func() { // the driver: ended by close, or by an error of Poll
		defer close(d.done)
		for {
			select {
			case <-d.stop:
				return
			default:
			}
			records, err := m.Poll(50)
			if err != nil {
				d.err = err
				return
			}
			d.note(records)
		}
	}()
	return d
}

func (d *driven) close() error {
	close(d.stop)
	<-d.done
	err := errors.Join(d.err, d.Close())
	if last, ok := d.Member.(Ending); ok {
		d.note(last.Rest())
	}
	return err
}

func (d *driven) note(records []Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range records {
		d.got[string(r.Key)] = true
	}
}

// failed is the error that ended the driver, if one did.
func (d *driven) failed() error {
	select {
	case <-d.done:
		return d.err
	default:
		return nil
	}
}

// share tells whether members own all partitions, each at least one, none two.
func share(members []*driven) error {
	owned := map[int32]int{}
	var all [][]int32
	for _, m := range members {
		if err := m.failed(); err != nil {
			return err
		}
		mine := m.Assigned()
		all = append(all, mine)
		for _, p := range mine {
			owned[p]++
		}
	}
	for _, mine := range all {
		if len(mine) == 0 {
			return fmt.Errorf("assigned: %v", all)
		}
	}
	for p := range int32(partitions) {
		if owned[p] != 1 {
			return fmt.Errorf("assigned: %v", all)
		}
	}
	return nil
}

// A rolling is a member that commits what it polls before it polls again, and
// remembers what it could not commit.
type rolling struct {
	Member
	mu    sync.Mutex
	keys  map[string]int // how often each was read
	loose map[string]bool
}

func (r *rolling) Poll(most int) ([]Record, error) {
	records, err := r.Member.Poll(most)
	if err != nil || len(records) == 0 {
		return records, err
	}
	failed := r.Member.Commit() != nil // a rebalance came between
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range records {
		r.keys[string(rec.Key)]++
		if failed {
			r.loose[string(rec.Key)] = true
		}
	}
	return records, nil
}

// roll lets a group go from the classic protocol to KIP-848's and back, member by
// member, while records keep coming. None is skipped, none read again that was
// committed.
func roll(c Client, group, topic string, how Joining) error {
	var everybody []*rolling
	var members []*driven
	join := func(next bool) error {
		how := how
		how.Next = next
		m, err := c.Join(group, topic, how)
		if err != nil {
			return fmt.Errorf("join: %w", err)
		}
		r := &rolling{Member: m, keys: map[string]int{}, loose: map[string]bool{}}
		everybody = append(everybody, r)
		members = append(members, drive(r))
		return nil
	}
	for range 2 {
		if err := join(false); err != nil {
			return err
		}
	}
	if err := eventually("two classic members share", func() error { return share(members) }); err != nil {
		return err
	}
	sent := map[string]bool{}
	for i := range 300 {
		sent[fmt.Sprintf("k%d", i)] = true
	}
	stop, loaded := make(chan struct{}), make(chan error, 1)
	go func() { // the load: ended by stop
		for n := 0; ; n++ {
			var batch []Record
			for p := range int32(partitions) {
				key := fmt.Sprintf("roll-%d-%d", n, p)
				sent[key] = true
				batch = append(batch, Record{Partition: p, Key: []byte(key), Value: []byte("v")})
			}
			if err := c.Produce(topic, Producing{}, batch); err != nil {
				loaded <- err
				return
			}
			select {
			case <-stop:
				loaded <- nil
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	for _, next := range []bool{true, true, false, false} {
		if err := join(next); err != nil {
			return err
		}
		if err := eventually("three members share", func() error { return share(members) }); err != nil {
			return err
		}
		if err := members[0].close(); err != nil {
			return fmt.Errorf("close a member: %w", err)
		}
		members = members[1:]
		if err := eventually("two members share", func() error { return share(members) }); err != nil {
			return err
		}
	}
	close(stop)
	if err := <-loaded; err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	times, loose := map[string]int{}, map[string]bool{}
	err := eventually("all records are read", func() error {
		clear(times)
		for _, r := range everybody {
			r.mu.Lock()
			for k, n := range r.keys {
				times[k] += n
			}
			maps.Copy(loose, r.loose)
			r.mu.Unlock()
		}
		for k := range sent {
			if times[k] == 0 {
				return fmt.Errorf("%s is one of those missing of %d", k, len(sent))
			}
		}
		return nil
	})
	for k, n := range times {
		if n > 1 && !loose[k] {
			err = errors.Join(err, fmt.Errorf("%s was committed, and read %d times", k, n))
		}
	}
	for _, m := range members {
		err = errors.Join(err, m.close())
	}
	return err
}

func rebalance(c Client, group, topic string, how Joining) error {
	var members []*driven
	for range 3 {
		m, err := c.Join(group, topic, how)
		if err != nil {
			return fmt.Errorf("join: %w", err)
		}
		members = append(members, drive(m))
	}
	if err := eventually("three members have a partition each", func() error { return share(members) }); err != nil {
		return err
	}
	if err := members[2].close(); err != nil {
		return fmt.Errorf("close the third member: %w", err)
	}
	if err := eventually("two members share three partitions", func() error { return share(members[:2]) }); err != nil {
		return err
	}
	err := eventually("all records are read", func() error {
		seen := map[string]bool{}
		for _, m := range members {
			m.mu.Lock()
			maps.Copy(seen, m.got)
			m.mu.Unlock()
		}
		if len(seen) != 300 {
			return fmt.Errorf("%d of 300 records", len(seen))
		}
		return nil
	})
	return errors.Join(err, members[0].close(), members[1].close())
}

// static checks that a static member which is away for less than its session
// comes back to its partitions, without a new generation.
func static(c Client, group, topic string, generation func(Member) int32) error {
	var members []*driven
	join := func(name string) error {
		m, err := c.Join(group, topic, Joining{Instance: name})
		if err == nil {
			members = append(members, drive(m))
		}
		return err
	}
	if err := errors.Join(join("a"), join("b")); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := eventually("two static members share three partitions", func() error { return share(members) }); err != nil {
		return err
	}
	before, during := members[1].Assigned(), generation(members[0].Member)
	if err := members[1].close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	members = members[:1]
	if err := join("b"); err != nil {
		return fmt.Errorf("join again: %w", err)
	}
	if err := eventually("the member has come back", func() error { return share(members) }); err != nil {
		return err
	}
	now := generation(members[0].Member)
	if after := members[1].Assigned(); !slices.Equal(after, before) || now != during {
		return fmt.Errorf("the member came back to %v instead of %v, generation %d became %d", after, before, during, now)
	}
	return errors.Join(members[0].close(), members[1].close())
}

// victim is the second process of member-killed: it says when it has partitions,
// and reads until it is killed.
func victim(c Client, group, topic string) error {
	m, err := c.Join(group, topic, Joining{})
	if err != nil {
		return err
	}
	told := false
	for began := time.Now(); time.Since(began) < 2*quiet; {
		if _, err := m.Poll(50); err != nil {
			return err
		}
		if !told && len(m.Assigned()) > 0 {
			told = true
			fmt.Println("assigned")
		}
	}
	return errors.New("nobody killed the victim")
}

func memberKilled(c Client, group, topic string) error {
	m, err := c.Join(group, topic, Joining{})
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	survivor := drive(m)
	if err := eventually("one member has all partitions", func() error { return share([]*driven{survivor}) }); err != nil {
		return err
	}
	other := exec.Command(os.Args[0], os.Args[1], "victim", topic)
	other.Stderr = os.Stderr
	other.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := other.StdoutPipe()
	if err != nil {
		return err
	}
	if err := other.Start(); err != nil {
		return err
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	if said != "assigned\n" {
		return fmt.Errorf("the second member said %q (%v)", said, err)
	}
	err = eventually("the first member has fewer partitions", func() error {
		if n := len(survivor.Assigned()); n == 0 || n == partitions {
			return fmt.Errorf("assigned: %v", survivor.Assigned())
		}
		return nil
	})
	other.Process.Kill()
	other.Wait()
	if err != nil {
		return err
	}
	if err := eventually("the survivor has all partitions", func() error { return share([]*driven{survivor}) }); err != nil {
		return err
	}
	return survivor.close()
}

func create(a Admin, topic string, replicas int16) error {
	settings := map[string]string{"retention.ms": "123456789", "cleanup.policy": "compact"}
	for _, want := range []int16{0, 36} { // none, TOPIC_ALREADY_EXISTS
		code, err := a.CreateTopic(topic, 4, replicas, settings)
		if code != want || want == 0 && err != nil {
			return fmt.Errorf("create: code %d, %v; want %d", code, err, want)
		}
	}
	code, err := a.CreateTopic(topic+"-bad", 1, replicas, map[string]string{"retention.ms": "x"})
	if code != 40 { // INVALID_CONFIG
		return fmt.Errorf("create with a setting that is not one: code %d, %v; want 40", code, err)
	}
	return nil
}

func describe(a Admin, topic string, brokers int) error {
	return eventually("the description is right", func() error {
		d, err := a.Describe(topic)
		if err != nil {
			return err
		}
		switch {
		case len(d.Brokers) != brokers:
			return fmt.Errorf("brokers %v, want %d", d.Brokers, brokers)
		case !slices.Contains(d.Brokers, d.Controller):
			return fmt.Errorf("controller %d is not among %v", d.Controller, d.Brokers)
		case d.ClusterID != Unknown && len(d.ClusterID) != 22:
			return fmt.Errorf("cluster id %q is not 22 characters long", d.ClusterID)
		case len(d.Replicas) != partitions:
			return fmt.Errorf("%d partitions, want %d", len(d.Replicas), partitions)
		case d.Settings["retention.ms"] != Setting{"86400000", true}:
			return fmt.Errorf("retention.ms %v, want 86400000, set on the topic", d.Settings["retention.ms"])
		case d.Settings["max.message.bytes"] != Setting{"1048588", false}:
			return fmt.Errorf("max.message.bytes %v, want the default, 1048588", d.Settings["max.message.bytes"])
		}
		for p, replicas := range d.Replicas {
			if len(replicas) != min(3, brokers) || !slices.Contains(replicas, d.Leaders[p]) {
				return fmt.Errorf("partition %d: leader %d of replicas %v", p, d.Leaders[p], replicas)
			}
		}
		return nil
	})
}

func groups(a Admin, group, topic string) error {
	all, err := a.Groups()
	if err != nil || !slices.Contains(all, group) {
		return fmt.Errorf("groups are %v (%v), want %s among them", all, err, group)
	}
	if state, err := a.DescribeGroup(group); err != nil || state != "Empty" {
		return fmt.Errorf("the group is %q (%v), want Empty", state, err)
	}
	offsets, err := a.GroupOffsets(group, topic)
	if want := map[int32]int64{0: 10, 1: 20, 2: 30}; err != nil || !maps.Equal(offsets, want) {
		return fmt.Errorf("the group has committed %v (%v), want %v", offsets, err, want)
	}
	if err := a.DeleteGroup(group); err != nil {
		return fmt.Errorf("delete the group: %w", err)
	}
	if all, err = a.Groups(); err != nil || slices.Contains(all, group) {
		return fmt.Errorf("groups are %v (%v) after %s was deleted", all, err, group)
	}
	return nil
}

// absent tells whether a list has present and not gone.
func absent(list func() ([]string, error), present, gone string) error {
	all, err := list()
	if err == nil && (!slices.Contains(all, present) || slices.Contains(all, gone)) {
		err = fmt.Errorf("topics are %v", all)
	}
	return err
}

// eventually waits for what has to come true.
func eventually(what string, holds func() error) error {
	deadline := time.Now().Add(quiet)
	for {
		err := holds()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not after %v: %w", what, quiet, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
