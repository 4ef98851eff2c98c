// kcat does what abilities ask by running kcat, as shells do.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"millrace/conformance/ability"
)

func main() {
	ability.Main(func(brokers []string, login ability.Login) (ability.Client, error) {
		return client{strings.Join(brokers, ","), properties(login)}, nil
	})
}

// properties are those of every kcat.
func properties(login ability.Login) (args []string) {
	protocol := map[[2]bool]string{{}: "plaintext", {false, true}: "ssl", {true, false}: "sasl_plaintext", {true, true}: "sasl_ssl"}
	for _, p := range [][2]string{
		{"security.protocol", protocol[[2]bool{login.Mechanism != "", login.CA != ""}]},
		{"sasl.mechanism", login.Mechanism}, {"sasl.username", login.User}, {"sasl.password", login.Password},
		{"ssl.ca.location", login.CA}, {"ssl.certificate.location", login.Cert}, {"ssl.key.location", login.Key},
	} {
		if p[1] != "" {
			args = append(args, "-X", p[0]+"="+p[1])
		}
	}
	return args
}

type client struct {
	brokers  string
	security []string
}

// Enter produces: a kcat that asks for metadata waits until it may no more.
func (c client) Enter(topic string) error {
	_, _, err := c.run("nothing", "-P", "-t", topic)
	return err
}

// KeptOut looks for what librdkafka says of its connections, which kcat prints.
func (c client) KeptOut(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "Local: Authentication failure") || strings.Contains(err.Error(), "alert unknown ca"))
}

// run ends with kcat's output, or with what it complained of.
func (c client) run(input string, args ...string) (out, errs string, err error) {
	cmd := exec.Command("kcat", slices.Concat([]string{"-b", c.brokers}, c.security, args)...)
	cmd.Stdin = strings.NewReader(input)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("kcat %s: %w: %s", strings.Join(args, " "), err, e.Bytes())
	}
	return o.String(), e.String(), err
}

// Produce runs kcat once for all records of a partition that follow each other and share headers
// and a way to be written: with -Z an empty key or value is null, without it empty.
func (c client) Produce(topic string, how ability.Producing, records []ability.Record) error {
	for i := range records {
		records[i].Offset = ability.Untold
	}
	records = slices.Clone(records)
	slices.SortStableFunc(records, func(a, b ability.Record) int { return int(a.Partition - b.Partition) })
	for from := 0; from < len(records); {
		args := arguments(records[from])
		var input strings.Builder
		to := from
		for ; to < len(records) && slices.Equal(arguments(records[to]), args); to++ {
			fmt.Fprintf(&input, "%s|%s\n", records[to].Key, records[to].Value)
		}
		from = to
		args = append(args, "-P", "-t", topic, "-K", "|", "-X", "acks=all")
		if how.Idempotent {
			args = append(args, "-X", "enable.idempotence=true")
		}
		if how.Codec != "" {
			args = append(args, "-z", how.Codec)
		}
		if how.MaxBytes > 0 {
			args = append(args, "-X", "message.max.bytes="+strconv.Itoa(how.MaxBytes))
		}
		if _, _, err := c.run(input.String(), args...); err != nil {
			return err
		}
	}
	return nil
}

func arguments(r ability.Record) []string {
	args := []string{"-p", strconv.Itoa(int(r.Partition))}
	for _, h := range r.Headers {
		args = append(args, "-H", h.Key+"="+string(h.Value))
	}
	if r.Key == nil || r.Value == nil {
		args = append(args, "-Z")
	}
	return args
}

// A line is a record as kcat -J prints it.
type line struct {
	Partition int32
	Offset    int64
	TS        int64
	Headers   []string
	Key       *string
	Payload   *string
}

func (l line) record() ability.Record {
	r := ability.Record{Partition: l.Partition, Offset: l.Offset, Time: l.TS}
	if l.Key != nil {
		r.Key = []byte(*l.Key)
	}
	if l.Payload != nil {
		r.Value = []byte(*l.Payload)
	}
	for i := 0; i+1 < len(l.Headers); i += 2 {
		r.Headers = append(r.Headers, ability.Header{Key: l.Headers[i], Value: []byte(l.Headers[i+1])})
	}
	return r
}

func (c client) Read(topic string, from map[int32]int64, n int) ([]ability.Record, error) {
	var all []ability.Record
	for p, o := range from {
		out, _, err := c.run("", "-C", "-t", topic, "-p", strconv.Itoa(int(p)), "-o", strconv.FormatInt(o, 10), "-e", "-q", "-J", "-X", "fetch.message.max.bytes=8388608")
		if err != nil {
			return nil, err
		}
		lines := json.NewDecoder(strings.NewReader(out))
		for {
			var l line
			if err := lines.Decode(&l); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, err
			}
			all = append(all, l.record())
		}
	}
	return all, nil
}

var queried = regexp.MustCompile(`\[(\d+)\] offset (-?\d+)`)

func (c client) OffsetsAt(topic string, ms int64) (map[int32]int64, error) {
	args := []string{"-Q"}
	for p := range 3 {
		args = append(args, "-t", fmt.Sprintf("%s:%d:%d", topic, p, ms))
	}
	out, _, err := c.run("", args...)
	offsets := map[int32]int64{}
	for _, m := range queried.FindAllStringSubmatch(out, -1) {
		p, _ := strconv.Atoi(m[1])
		offsets[int32(p)], _ = strconv.ParseInt(m[2], 10, 64)
	}
	return offsets, err
}

// Check looks at what kcat says of a cluster, and of what it can do: it switches
// features off where a broker's versions do not reach far enough back.
func (c client) Check(topic string) error {
	out, errs, err := c.run("", "-L", "-J", "-t", topic, "-X", "debug=feature")
	if err != nil {
		return err
	}
	var listed struct {
		Brokers []struct {
			ID   int
			Name string
		}
		Topics []struct {
			Topic      string
			Partitions []struct{ Replicas, ISRS []struct{ ID int } }
		}
	}
	if err := json.Unmarshal([]byte(out), &listed); err != nil {
		return fmt.Errorf("kcat -L -J: %w: %s", err, out)
	}
	all := strings.Split(c.brokers, ",")
	if len(listed.Brokers) != len(all) || len(listed.Topics) != 1 || listed.Topics[0].Topic != topic || len(listed.Topics[0].Partitions) != 3 {
		return fmt.Errorf("kcat -L -J says %s", out)
	}
	for _, b := range listed.Brokers {
		if !slices.Contains(all, b.Name) {
			return fmt.Errorf("kcat -L -J names a broker %s", b.Name)
		}
	}
	enabled := map[string]bool{}
	for _, m := range regexp.MustCompile(`(Enabling|Disabling) feature (\w+)`).FindAllStringSubmatch(errs, -1) {
		enabled[m[2]] = m[1] == "Enabling"
	}
	if len(enabled) < 10 {
		return fmt.Errorf("kcat says of %d features only: %s", len(enabled), errs)
	}
	// Apache Kafka 4 has dropped what the first two stand for; the others come
	// with authentication.
	without := []string{"MsgVer1", "ThrottleTime", "SaslHandshake", "SaslAuthReq"}
	for name, on := range enabled {
		if !on && !slices.Contains(without, name) {
			return fmt.Errorf("kcat switches %s off: %s", name, errs)
		}
	}
	return nil
}

// A member is a kcat that runs for as long as it is in the group.
type member struct {
	cmd     *exec.Cmd
	limit   int
	records chan ability.Record // closed when kcat has ended its output
	status  chan error          // has kcat's end

	mu       sync.Mutex
	assigned []int32
	said     strings.Builder
	rest     []ability.Record
}

var partition = regexp.MustCompile(`\[(\d+)\]`)

func (c client) Join(group, topic string, how ability.Joining) (ability.Member, error) {
	args := []string{"-b", c.brokers, "-G", group, "-J", "-u", "-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000",
		"-X", "heartbeat.interval.ms=500", "-X", "auto.commit.interval.ms=1000000"}
	if how.Limit > 0 {
		args = append(args, "-c", strconv.Itoa(how.Limit))
	} else {
		// Interrupted, kcat may drop the one record it has just polled, whose offset
		// is stored: also with Apache Kafka. Let it store, and so commit, nothing. It
		// takes enable.auto.commit for a setting of topics, which does nothing here.
		args = append(args, "-X", "enable.auto.offset.store=false")
	}
	m := &member{cmd: exec.Command("kcat", slices.Concat(c.security, args, []string{topic})...), limit: how.Limit, records: make(chan ability.Record), status: make(chan error, 1)}
	// A killed victim takes its kcat along.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	errs, err := m.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	listened := make(chan struct{})
	go func() { // the listener: ends with kcat
		defer close(listened)
		for lines := bufio.NewScanner(errs); lines.Scan(); {
			m.hear(lines.Text())
		}
	}()
	go func() { // the reader: ends with kcat
		defer close(m.records)
		for lines := json.NewDecoder(out); ; {
			var l line
			if lines.Decode(&l) != nil {
				break
			}
			m.records <- l.record()
		}
		<-listened
		m.status <- m.cmd.Wait()
	}()
	return m, nil
}

// hear notes what kcat says of its assignment.
func (m *member) hear(said string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fmt.Fprintln(&m.said, said)
	_, what, ok := strings.Cut(said, " rebalanced ")
	if !ok {
		return
	}
	m.assigned = nil
	_, partitions, gained := strings.Cut(what, "assigned: ")
	for _, found := range partition.FindAllStringSubmatch(partitions, -1) {
		if p, _ := strconv.Atoi(found[1]); gained {
			m.assigned = append(m.assigned, int32(p))
		}
	}
}

func (m *member) Poll(most int) ([]ability.Record, error) {
	var all []ability.Record
	timeout := time.After(200 * time.Millisecond)
	for len(all) < most {
		select {
		case r, ok := <-m.records:
			if !ok {
				if m.limit > 0 {
					return all, nil
				}
				m.mu.Lock()
				defer m.mu.Unlock()
				return nil, fmt.Errorf("kcat has ended: %s", m.said.String())
			}
			all = append(all, r)
		case <-timeout:
			return all, nil
		}
	}
	return all, nil
}

func (m *member) Assigned() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.assigned)
}

// Commit does nothing: kcat commits when it leaves.
func (m *member) Commit() error { return nil }

// Close lets kcat reach its limit, or interrupts it.
func (m *member) Close() error {
	if m.limit == 0 {
		m.cmd.Process.Signal(syscall.SIGINT)
	}
	for r := range m.records {
		m.rest = append(m.rest, r)
	}
	if err := <-m.status; err != nil {
		return fmt.Errorf("%w: %s", err, m.said.String())
	}
	return nil
}

// Rest is what kcat printed, and so committed, before it ended.
func (m *member) Rest() []ability.Record { return m.rest }
