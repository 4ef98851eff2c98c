package cli

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/server"
)

// A visit is what was learnt at one address, HOST:PORT. What could not be learnt is zero,
// or -1 for the number of a node.
type visit struct {
	address string
	host    string
	lookup  error
	doors   []door // one for each IP address of host, as clients try them

	stranger    string // what answers, if that is no broker for clients
	remedy      string // and what to do then
	apis        map[int16]int16
	cluster     string
	node        int32 // who answers
	told        []told
	settings    map[string]string // of its listeners
	software    string
	clock       clock
	leader      int32 // of the controllers, for leaderClock
	leaderClock clock
}

// A door is one IP address, and how long it took to be let in, or why nobody was.
type door struct {
	ip   string
	took time.Duration
	err  error
}

// A told is what a broker tells clients of one broker.
type told struct {
	node    int32
	address string
}

// A clock is how far another machine's is ahead of this one's, give or take slack. Known
// is false for one that was not told.
type clock struct {
	known        bool
	ahead, slack time.Duration
}

// clockOf reckons with an answer that tells the time, in milliseconds since 1970, and
// the times at which the question was asked and the answer was here.
func clockOf(millis int64, asked, answered time.Time) clock {
	slack := answered.Sub(asked)/2 + time.Millisecond
	return clock{true, time.UnixMilli(millis).Sub(asked.Add(slack)), slack}
}

// visit goes to one address. What it asks there depends on nothing but Kafka's protocol.
func (d *doctor) visit(ctx context.Context, address string) *visit {
	v := &visit{address: address, node: -1, leader: -1}
	d.resolve(ctx, v)
	d.interview(ctx, v, d.knock(ctx, v))
	return v
}

// resolve finds the IP addresses of a visit's host.
func (d *doctor) resolve(ctx context.Context, v *visit) {
	host, _, err := net.SplitHostPort(v.address)
	if err != nil {
		v.lookup = err
		return
	}
	v.host = host
	ips := []string{host}
	if net.ParseIP(host) == nil {
		within, cancel := context.WithTimeout(ctx, d.patience)
		defer cancel()
		if ips, v.lookup = d.names.LookupHost(within, host); v.lookup == nil && len(ips) == 0 {
			v.lookup = errors.New("it has no address")
		}
	}
	for _, ip := range ips {
		v.doors = append(v.doors, door{ip: ip})
	}
}

// knock tries all doors of a visit that was resolved, and returns the connection of the
// first that is open, nil if none is.
func (d *doctor) knock(ctx context.Context, v *visit) net.Conn {
	_, port, _ := net.SplitHostPort(v.address)
	conns := make([]net.Conn, len(v.doors))
	var tried sync.WaitGroup
	for i := range v.doors {
		tried.Go(func() {
			began := time.Now()
			conns[i], v.doors[i].err = d.dial(ctx, net.JoinHostPort(v.doors[i].ip, port))
			v.doors[i].took = time.Since(began)
		})
	}
	tried.Wait()
	open := slices.IndexFunc(v.doors, func(d door) bool { return d.err == nil })
	for i, conn := range conns {
		if conn != nil && i != open {
			conn.Close()
		}
	}
	if open < 0 {
		return nil
	}
	return conns[open]
}

// interview finds out who is behind an open door, and closes the connection; without one
// it asks nobody.
func (d *doctor) interview(ctx context.Context, v *visit, conn net.Conn) {
	if conn == nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	secure, err := d.secured(ctx, conn, v.host)
	if err != nil {
		if why := kafka.Refused(ctx, []string{v.address}, err); why != nil {
			v.stranger, v.remedy, _ = strings.Cut(term.OneLine(why), "; ")
			return
		}
		v.stranger, v.remedy = d.identify(ctx, conn.RemoteAddr().String(), v.host, err)
		return
	}
	t := &talk{conn: secure, patience: d.patience}
	if err := v.introduce(t); err != nil {
		v.stranger, v.remedy = d.identify(ctx, conn.RemoteAddr().String(), v.host, err)
		return
	}
	if err := t.logIn(ctx, v.address); err != nil {
		v.stranger, v.remedy = "it does not let this client log in: "+kafka.BrokerSaid(err, ""), "look at --user, --password-file and -X sasl.mechanism"
		if why := kafka.Refused(ctx, []string{v.address}, err); why != nil {
			v.stranger, v.remedy, _ = strings.Cut(term.OneLine(why), "; ")
		}
		return
	}
	v.ask(ctx, t)
}

// secured speaks TLS on a connection, if the command line says so.
func (d *doctor) secured(ctx context.Context, conn net.Conn, host string) (net.Conn, error) {
	config := kafka.Secure(ctx)
	if config == nil {
		return conn, nil
	}
	config.ServerName = host
	secure := tls.Client(conn, config)
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	return secure, secure.HandshakeContext(ctx)
}

// logIn logs in as whom the command line says, if it does.
func (t *talk) logIn(ctx context.Context, address string) error {
	mechanism := kafka.Login(ctx)
	if mechanism == nil {
		return nil
	}
	handshake := kmsg.NewPtrSASLHandshakeRequest()
	handshake.Mechanism = mechanism.Name()
	resp, err := t.ask(handshake, 1)
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(resp.(*kmsg.SASLHandshakeResponse).ErrorCode); err != nil {
		return err
	}
	session, say, err := mechanism.Authenticate(ctx, address)
	for done := false; err == nil && (!done || len(say) > 0); {
		req := kmsg.NewPtrSASLAuthenticateRequest()
		req.SASLAuthBytes = say
		if resp, err = t.latest(req); err != nil {
			return err
		}
		answer := resp.(*kmsg.SASLAuthenticateResponse)
		if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
			return err
		}
		if say = nil; !done {
			done, say, err = session.Challenge(answer.SASLAuthBytes)
		}
	}
	return err
}

// silent reports whether somebody takes connections and does not answer.
func (v *visit) silent() bool { return v.remedy == hangs }

// hangs is what to do about who takes connections and does not answer.
const hangs = "its process is paused or hangs, or is no broker: look into its log"

func (d *doctor) dial(ctx context.Context, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: d.patience}
	return dialer.DialContext(ctx, "tcp", address)
}

// reached reports whether a broker for clients answered.
func (v *visit) reached() bool { return v.apis != nil && v.stranger == "" }

// introduce asks for the versions a broker serves, in the one that all serve.
func (v *visit) introduce(t *talk) error {
	resp, err := t.ask(kmsg.NewPtrApiVersionsRequest(), 0)
	if err != nil {
		return err
	}
	apis := resp.(*kmsg.ApiVersionsResponse)
	if apis.ErrorCode != 0 {
		return fmt.Errorf("ApiVersions: %w", kerr.ErrorForCode(apis.ErrorCode))
	}
	v.apis = make(map[int16]int16, len(apis.ApiKeys))
	for _, k := range apis.ApiKeys {
		v.apis[k.ApiKey] = k.MaxVersion
	}
	t.apis = v.apis
	return nil
}

// ask asks a broker about its cluster and itself.
func (v *visit) ask(ctx context.Context, t *talk) {
	if _, ok := v.apis[int16(kmsg.Metadata)]; !ok {
		v.stranger = "a controller answers, which serves other nodes and no clients"
		v.remedy = "name a listener of a broker, one of listeners that controller.listener.names does not name"
		return
	}
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // none
	resp, err := t.latest(req)
	if err != nil {
		v.stranger = fmt.Sprintf("it tells its versions, and then %s when it is asked for the cluster's metadata", t.silence(err))
		v.remedy = "look into its log"
		if mechanisms, ok := saslMechanisms(ctx, t); ok {
			v.stranger = "it wants a client to log in first, by SASL " + strings.Join(mechanisms, ", ")
			v.remedy = "say --user NAME and --password-file FILE"
		}
		return
	}
	metadata := resp.(*kmsg.MetadataResponse)
	if metadata.ClusterID != nil {
		v.cluster = *metadata.ClusterID
	}
	if n := len(metadata.Brokers); n > maxTold {
		v.stranger, v.remedy = fmt.Sprintf("it tells of %s, which no cluster has", term.Count(n, "broker")), "name the address of a broker"
		return
	}
	for _, b := range metadata.Brokers {
		v.told = append(v.told, told{b.NodeID, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))})
	}
	v.askClock(t)
	v.askNode(t)
}

// askNode finds out which broker answers: only itself it describes.
func (v *visit) askNode(t *talk) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	for _, b := range v.told {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeBroker, strconv.Itoa(int(b.node))
		r.ConfigNames = []string{"advertised.listeners", "listeners"}
		req.Resources = append(req.Resources, r)
	}
	resp, err := t.latest(req)
	if err != nil {
		return
	}
	for _, r := range resp.(*kmsg.DescribeConfigsResponse).Resources {
		n, err := strconv.ParseInt(r.ResourceName, 10, 32)
		if err != nil || r.ErrorCode != 0 {
			continue
		}
		v.node, v.settings = int32(n), make(map[string]string)
		for _, c := range r.Configs {
			if c.Value != nil {
				v.settings[c.Name] = *c.Value
			}
		}
	}
}

// askClock asks for the time. Our own brokers tell theirs; of Kafka's only the leader of
// the controllers tells it, to whoever asks how far the others follow (KIP-836).
func (v *visit) askClock(t *talk) {
	asked := time.Now()
	if resp, err := t.latest(kmsg.NewPtrDescribeClusterRequest()); err == nil {
		answered := time.Now()
		resp.(*kmsg.DescribeClusterResponse).UnknownTags.Each(func(key uint32, value []byte) {
			switch {
			case key == server.ClockTag && len(value) == 8:
				v.clock = clockOf(int64(binary.BigEndian.Uint64(value)), asked, answered)
			case key == server.SoftwareTag:
				v.software = string(value)
			}
		})
	}
	if v.clock.known {
		return
	}
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic, topic.Partitions = "__cluster_metadata", []kmsg.DescribeQuorumRequestTopicPartition{{}}
	req := kmsg.NewPtrDescribeQuorumRequest()
	req.Topics = append(req.Topics, topic)
	asked = time.Now()
	resp, err := t.latest(req)
	if err != nil {
		return
	}
	answered := time.Now()
	for _, st := range resp.(*kmsg.DescribeQuorumResponse).Topics {
		for _, sp := range st.Partitions {
			for _, voter := range sp.CurrentVoters {
				if sp.ErrorCode == 0 && voter.ReplicaID == sp.LeaderID && voter.LastCaughtUpTimestamp > 0 {
					v.leader, v.leaderClock = sp.LeaderID, clockOf(voter.LastCaughtUpTimestamp, asked, answered)
				}
			}
		}
	}
}

// saslMechanisms reports whether a broker wants its clients to log in, and how. It has
// closed the connection of whoever asked something else.
func saslMechanisms(ctx context.Context, t *talk) (mechanisms []string, wanted bool) {
	dialer := net.Dialer{Timeout: t.patience}
	conn, err := dialer.DialContext(ctx, "tcp", t.conn.RemoteAddr().String())
	if err != nil {
		return nil, false
	}
	defer conn.Close()
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Mechanism = "none" // there is no such mechanism: all that there are will be named
	resp, err := (&talk{conn: conn, patience: t.patience}).ask(req, 1)
	if err != nil {
		return nil, false
	}
	handshake := resp.(*kmsg.SASLHandshakeResponse)
	return handshake.SupportedMechanisms, errors.Is(kerr.ErrorForCode(handshake.ErrorCode), kerr.UnsupportedSaslMechanism)
}

// A talk is a connection on which requests are asked and answered one by one. A client
// would hide what is looked for here: it tries again, elsewhere, for as long as it may.
type talk struct {
	conn     net.Conn
	patience time.Duration
	apis     map[int16]int16
	asked    int32
}

// errNotServed is what a broker does not do at all.
var errNotServed = errors.New("the broker does not serve it")

// latest asks in the newest version that both sides know.
func (t *talk) latest(req kmsg.Request) (kmsg.Response, error) {
	theirs, ok := t.apis[req.Key()]
	if !ok {
		return nil, errNotServed
	}
	return t.ask(req, min(theirs, req.MaxVersion()))
}

const (
	// unlikely is more than any answer here is long, and less than what the letters of a
	// protocol of text say when they are read as a length. Bytes that are no answer may
	// be read as a list of so many elements, of a hundred bytes each in memory.
	unlikely = 1 << 20
	// maxTold is how many brokers are visited because somebody told of them.
	maxTold = 2000
)

// errUnreadable is of an answer that has the length and the number of one.
var errUnreadable = errors.New("gives an answer that cannot be read")

// A foreign answer is one that is not of Kafka's protocol: how it begins.
type foreign []byte

func (f foreign) Error() string { return fmt.Sprintf("answers %q", []byte(f)) }

// ask asks in one version. Who did not answer once is not waited for again.
func (t *talk) ask(req kmsg.Request, version int16) (kmsg.Response, error) {
	resp, err := t.exchange(req, version)
	if err != nil && err != errUnreadable {
		t.conn.Close() // an answer that is late would be taken for the next one
	}
	return resp, err
}

func (t *talk) exchange(req kmsg.Request, version int16) (kmsg.Response, error) {
	t.asked++
	t.conn.SetDeadline(time.Now().Add(t.patience))
	req.SetVersion(version)
	if _, err := t.conn.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("millrace")).AppendRequest(nil, req, t.asked)); err != nil {
		return nil, err
	}
	var head [8]byte // length, correlation id
	if n, err := io.ReadFull(t.conn, head[:]); err != nil {
		if n > 0 {
			return nil, foreign(head[:n])
		}
		return nil, err
	}
	length := binary.BigEndian.Uint32(head[:4])
	if length < 4 || length > unlikely || int32(binary.BigEndian.Uint32(head[4:])) != t.asked {
		more := make([]byte, 56)
		t.conn.SetDeadline(time.Now().Add(t.patience / 10))
		n, _ := io.ReadFull(t.conn, more)
		return nil, foreign(append(head[:], more[:n]...))
	}
	body := make([]byte, length-4)
	if _, err := io.ReadFull(t.conn, body); err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	resp.SetVersion(version)
	read := make(chan error, 1)
	go func() { // ends when the answer is read, for the worst of which, 2³² tagged fields, nobody waits
		if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) {
			r := kbin.Reader{Src: body}
			kmsg.SkipTags(&r)
			body = r.Src
		}
		read <- resp.ReadFrom(body)
	}()
	select {
	case err := <-read:
		if err != nil {
			return nil, errUnreadable
		}
		return resp, nil
	case <-time.After(t.patience):
		return nil, errUnreadable
	}
}

// identify finds out what answers at an address, IP:PORT, if that is not a broker: err is
// how it took a request. It returns that, and what to do.
func (d *doctor) identify(ctx context.Context, address, host string, err error) (what, remedy string) {
	remedy = "name the address of a broker, or find out with `ss -ltnp` who has the port"
	var answer foreign
	errors.As(err, &answer)
	if what := protocolOf(answer); what != "" {
		return what, remedy
	}
	// Who speaks one of these says so at once, and somebody waits already.
	ctx, cancel := context.WithTimeout(ctx, d.patience/3)
	defer cancel()
	var cert string
	var isTLS, isHTTP bool
	var tried sync.WaitGroup
	tried.Go(func() { cert, isTLS = d.speaksTLS(ctx, address, host) })
	tried.Go(func() { isHTTP = d.speaksHTTP(ctx, address) })
	tried.Wait()
	if isTLS {
		return "TLS answers" + cert, "say --tls-ca FILE, as a client says security.protocol=SSL and ssl.truststore.location; `millrace cluster ca` prints what belongs into it"
	}
	if isHTTP {
		return "an HTTP server answers", remedy
	}
	switch {
	case answer != nil:
		return fmt.Sprintf("something else than Kafka %v", answer), remedy
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "it takes the connection and " + quiet(d.patience), hangs
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "it closes the connection at the first request", "a listener for nodes does so, and a broker that starts or has not found its cluster yet: look into its log; a proxy does so whose broker is away"
	}
	return err.Error(), remedy
}

// protocolOf names a protocol by how its answer begins, "" if that is unknown.
func protocolOf(answer []byte) string {
	switch text := string(answer); {
	case strings.HasPrefix(text, "HTTP/"):
		return "an HTTP server answers"
	case strings.HasPrefix(text, "AMQP"):
		return "an AMQP server answers, such as RabbitMQ"
	case strings.HasPrefix(text, "SSH-"):
		return "an SSH server answers"
	case strings.HasPrefix(text, "\x15\x03"): // an alert
		return "TLS answers"
	}
	return ""
}

// until lets a connection wait as long as a context does.
func until(ctx context.Context, conn net.Conn) {
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
}

// speaksTLS tries a handshake; cert says whom the certificate names.
func (d *doctor) speaksTLS(ctx context.Context, address, host string) (cert string, ok bool) {
	conn, err := d.dial(ctx, address)
	if err != nil {
		return "", false
	}
	defer conn.Close()
	until(ctx, conn)
	config := &tls.Config{InsecureSkipVerify: true} // nothing is told or believed: it is only asked who is there
	if net.ParseIP(host) == nil {
		config.ServerName = host
	}
	secure := tls.Client(conn, config)
	err = secure.HandshakeContext(ctx)
	var alert tls.AlertError
	if err != nil {
		return "", errors.As(err, &alert)
	}
	if certs := secure.ConnectionState().PeerCertificates; len(certs) > 0 {
		name := certs[0].Subject.CommonName
		if len(certs[0].DNSNames) > 0 {
			name = strings.Join(certs[0].DNSNames, ", ")
		}
		return ", with a certificate for " + name, true
	}
	return "", true
}

func (d *doctor) speaksHTTP(ctx context.Context, address string) bool {
	conn, err := d.dial(ctx, address)
	if err != nil {
		return false
	}
	defer conn.Close()
	until(ctx, conn)
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return false
	}
	begins := make([]byte, 5)
	_, err = io.ReadFull(conn, begins)
	return err == nil && string(begins) == "HTTP/"
}

// quiet says how long somebody said nothing.
func quiet(patience time.Duration) string {
	return fmt.Sprintf("says nothing for %.3g s", patience.Seconds())
}

// silence says how somebody gave no answer.
func (t *talk) silence(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return quiet(t.patience)
	}
	if errors.Is(err, errUnreadable) {
		return err.Error()
	}
	return "closes the connection"
}
