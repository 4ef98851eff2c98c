package replication

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/internal/memnet"
	"millrace/replication/admission"
	"millrace/replication/folder"
	"millrace/replication/identity"
	"millrace/replication/keyring"
	"millrace/replication/removal"
	"millrace/replication/transport"
	"millrace/segment/record/recordtest"
	"millrace/testdata/ports"
)

// token has a node make a join token.
func (n *testNode) token(uses int32, expires time.Duration) string {
	n.c.t.Helper()
	p, err := json.Marshal(admission.MintRequest{Uses: uses, Expires: expires})
	if err != nil {
		n.c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	text, err := n.door.Mint(ctx, p)
	if err != nil {
		n.c.t.Fatal(err)
	}
	return string(text)
}

// secured waits until every node that runs knows all brokers for secured.
func (c *testCluster) secured() {
	c.t.Helper()
	eventually(c.t, "all brokers have certificates", func() bool {
		for _, n := range c.nodes {
			if n.Node != nil && (!keyring.Secured(n.Image()) || len(n.Image().Brokers()) != len(c.nodes)) {
				return false
			}
		}
		return true
	})
}

// apart starts a cluster whose nodes are not on one machine, in virtual time: node 1 founds
// it, and the others have tokens.
func apart(t *testing.T, n int, f func(t *testing.T, c *testCluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := startClusterOf(&testCluster{t: t, net: memnet.New(), dir: t.TempDir(), host: "10.0.0.1"}, 1)
		defer func() {
			c.stop()
			c.net.Close()
			time.Sleep(time.Minute)
		}()
		for i := range n - 1 {
			c.another(int32(i+2), c.nodes[0].token(1, time.Hour)).start()
		}
		f(t, c)
	})
}

// another adds a node that joins by what is given, and does not start it.
func (c *testCluster) another(id int32, join ...string) *testNode {
	n := &testNode{c: c, id: id, dir: filepath.Join(c.dir, fmt.Sprint("node-", id)), disk: newTestDisk(), join: join}
	n.addr = net.JoinHostPort(c.host, fmt.Sprint(9000+id))
	c.nodes = append(c.nodes, n)
	return n
}

// A cluster has an authority as soon as it is there, and each of its nodes a certificate in a
// file for nobody else to read, before it serves.
func TestNodesHaveCertificatesFromTheStart(t *testing.T) {
	c := startCluster(t, 3, nil)
	defer c.stop()
	c.secured()
	c.append(c.create("orders", 1, 3, nil), "record")
	for _, n := range c.nodes {
		n.private()
		own := n.credentials()
		if own.Name != n.identity.Name() || own.Name.Cluster != n.ClusterID() {
			t.Errorf("node %d has the certificate of %v", n.id, own.Name)
		}
		for path, want := range map[string]os.FileMode{folder.CredentialsName: 0o600, folder.MetaName: 0o700} {
			info, err := os.Stat(n.dataFolder().Path(path))
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("node %d: %s has mode %v, %v, want %v", n.id, path, info.Mode().Perm(), err, want)
			}
		}
	}
}

// private fails the test if another user of the machine could read something in the folder.
func (n *testNode) private() {
	n.c.t.Helper()
	eventually(n.c.t, "the node has a segment", func() bool {
		segments, err := filepath.Glob(n.dataFolder().Path(folder.PartitionsName, "*", "*.log"))
		return err != nil || len(segments) > 0
	})
	err := filepath.WalkDir(n.dir, func(path string, e os.DirEntry, err error) error {
		var info os.FileInfo
		if err == nil {
			info, err = e.Info()
		}
		switch {
		case errors.Is(err, os.ErrNotExist): // replaced meanwhile
			return nil
		case err != nil:
			return err
		case info.Mode().Perm()&0o077 != 0:
			n.c.t.Errorf("%s has mode %v", path, info.Mode())
		case e.IsDir() && e.Name() == folder.MetaName: // what libraries make in it is open, and it is not
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		n.c.t.Error(err)
	}
}

// A spy hears all that is sent.
type spy struct {
	mu    sync.Mutex
	heard bytes.Buffer
}

// Carry implements memnet.Carrier.
func (s *spy) Carry(_, _ string, _ int64, b []byte) (int, []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard.Write(b)
	return len(b), []time.Duration{0}
}

func (s *spy) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Count(s.heard.Bytes(), []byte(text))
}

// Between machines nothing that nodes send each other can be read. On one machine they spare
// themselves that.
func TestWhatGoesBetweenMachinesIsSealed(t *testing.T) {
	for _, host := range []string{"10.0.0.1", "127.0.0.1"} {
		synctest.Test(t, func(t *testing.T) {
			s := new(spy)
			w := memnet.New()
			w.Carrier = s
			c := startClusterOf(&testCluster{t: t, net: w, dir: t.TempDir(), host: host}, 1)
			defer func() {
				c.stop()
				w.Close()
				time.Sleep(time.Minute)
			}()
			for id := int32(2); id <= 3; id++ {
				c.another(id, c.nodes[0].token(1, time.Hour)).start()
			}
			id := c.create("orders", 1, 3, nil)
			c.append(id, "to be seen by nobody")
			time.Sleep(time.Second)
			c.sameEverywhere(id)
			sealed := host != "127.0.0.1"
			if n := s.count("to be seen by nobody"); (n == 0) != sealed {
				t.Errorf("at %s a record is on the line %d times", host, n)
			}
			if n := s.count(transport.Magic); (n == 0) != sealed {
				t.Errorf("at %s a handshake is on the line %d times", host, n)
			}
			if s.count("PRIVATE KEY") != 0 && sealed {
				t.Errorf("at %s keys are on the line", host)
			}
		})
	}
}

// joins tries to start a node for a while, and returns why it did not.
func (n *testNode) joins(limit time.Duration) error {
	err := n.tryStart(limit)
	if err != nil && n.Node != nil {
		n.copied = true // whatever it was told, it is no part of this
		n.stop()
	}
	return err
}

// A token lets in as many nodes as it says, for as long as it says, and into its own cluster.
// Without one nobody comes in from another machine.
func TestTokensLetNodesIn(t *testing.T) {
	apart(t, 1, func(t *testing.T, c *testCluster) {
		first := c.nodes[0]
		once := first.token(1, time.Hour)
		c.another(2, once).start()
		if b, ok := first.Image().Broker(2); !ok || !b.Secured {
			t.Errorf("broker 2 is %+v", b)
		}
		parsed, err := identity.ParseToken(once)
		if err != nil {
			t.Fatal(err)
		}
		if left, ok := first.Image().JoinToken(parsed.ID); ok && left.Uses != 0 {
			t.Errorf("the token is good %d times yet", left.Uses)
		}
		brief := first.token(1, time.Minute)
		time.Sleep(time.Minute)
		twice := first.token(2, time.Hour)
		wrong := parsed
		wrong.Secret = bytes.Repeat([]byte{1}, len(parsed.Secret))
		other, err := identity.NewAuthority(first.ClusterID(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		elsewhere := identity.NewToken(other, []string{first.addr})
		for i, tt := range []struct {
			name, join, want string
		}{
			{"used up", once, "as often as it may be"},
			{"ended", brief, "not good"},
			{"another secret", wrong.Encode(), "not good"},
			{"of another authority", elsewhere.Encode(), "another authority"},
			{"none", first.addr, "millrace cluster token"},
			{"half of one", once[:len(once)-5], "token"},
		} {
			n := c.another(int32(10+i), tt.join)
			if err := n.joins(5 * time.Second); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("with a token that is %s: %v, want %q", tt.name, err, tt.want)
			} else if len(tt.join) > 60 && strings.Contains(err.Error(), tt.join[20:60]) {
				t.Errorf("the error shows the token: %v", err)
			}
			if n.log.count("") > 0 && strings.Contains(strings.Join(n.log.lines, "\n"), once[20:60]) {
				t.Error("the log shows the token")
			}
		}
		if n := len(first.Image().Brokers()); n != 2 {
			t.Errorf("%d brokers are registered, want 2", n)
		}
		for id := int32(3); id <= 4; id++ {
			c.another(id, twice).start()
		}
		if err := c.another(5, twice).joins(5 * time.Second); err == nil {
			t.Error("a token for two lets in a third")
		}
		if strings.Contains(strings.Join(first.log.lines, "\n"), once[20:60]) {
			t.Error("the log shows a token")
		}
	})
}

// An asker asks with a token to be taken in, as often as the test likes.
type asker struct {
	c     *testCluster
	token identity.Token
}

// request is one for a certificate, by a key of its own.
func (a asker) request() []byte {
	a.c.t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		a.c.t.Fatal(err)
	}
	request, err := identity.NewRequest(key)
	if err != nil {
		a.c.t.Fatal(err)
	}
	return request
}

// ask asks one of the cluster's nodes.
func (a asker) ask(of *testNode, node int32, incarnation string, request []byte) (answer admission.Answer) {
	a.c.t.Helper()
	p, err := json.Marshal(admission.Request{
		Node: node, Incarnation: incarnation, Host: "10.0.0.9", Port: 9000 + node, MinLevel: 1, MaxLevel: keyring.SecureLevel,
		Token: a.token.ID, Secret: a.token.Secret, Certificate: request,
	})
	if err != nil {
		a.c.t.Fatal(err)
	}
	asking := transport.New(transport.Config{
		Local: transport.Peer{Incarnation: incarnation}, Dialer: a.c.net.Dialer("10.0.0.9:1"), Guard: keyring.Asking{TLS: a.token.Client(nil)},
	})
	defer asking.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if p, err = asking.CallAddr(ctx, of.addr, admission.CallJoin, p); err == nil {
		err = json.Unmarshal(p, &answer)
	}
	if err != nil {
		a.c.t.Error(err)
	}
	return answer
}

// A token for one node is for one, whoever asks with it for several by one request for a
// certificate. The same node may ask again: its answer may have been lost. Whoever knows its
// name and the token and has another key may not.
func TestATokenCountsNodesAndNotRequestsForCertificates(t *testing.T) {
	apart(t, 1, func(t *testing.T, c *testCluster) {
		first := c.nodes[0]
		token, err := identity.ParseToken(first.token(1, time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		by := asker{c, token}
		request := by.request()
		for range 2 {
			if a := by.ask(first, 7, "one", request); a.Refused != "" || len(a.Certificate) == 0 {
				t.Fatalf("the node that the token is for is refused: %q", a.Refused)
			}
		}
		for _, other := range []struct {
			node        int32
			incarnation string
			request     []byte
		}{{8, "two", request}, {7, "two", request}, {8, "one", request}, {7, "one", by.request()}} {
			if a := by.ask(first, other.node, other.incarnation, other.request); !strings.Contains(a.Refused, "as often as it may be") || len(a.Certificate) > 0 {
				t.Errorf("the token lets node %d in, too, as %s: %q, a certificate of %d bytes", other.node, other.incarnation, a.Refused, len(a.Certificate))
			}
		}
		if n := len(first.Image().Brokers()); n != 2 {
			t.Errorf("%d brokers are registered, want 2", n)
		}
		time.Sleep(time.Hour)
		if a := by.ask(first, 7, "one", request); a.Refused == "" || len(a.Certificate) > 0 {
			t.Error("an answer is given again when the token has ended")
		}
	})
}

// Of many that come with one token at the same time, by different nodes, as many are let in as
// it is for.
func TestATokenThatManyUseAtOnce(t *testing.T) {
	apart(t, 3, func(t *testing.T, c *testCluster) {
		const uses, many = 3, 12
		token, err := identity.ParseToken(c.nodes[1].token(uses, time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // all know of it
		by := asker{c, token}
		answers := make(chan admission.Answer, many)
		for i := range int32(many) {
			request := by.request()
			go func() { answers <- by.ask(c.nodes[i%3], 10+i, fmt.Sprint("at-once-", i), request) }()
		}
		in := 0
		for range many {
			switch a := <-answers; {
			case a.Refused == "" && len(a.Certificate) > 0:
				in++
			case !strings.Contains(a.Refused, "as often as it may be") || len(a.Certificate) > 0:
				t.Errorf("%q, a certificate of %d bytes", a.Refused, len(a.Certificate))
			}
		}
		if n := len(c.controllerLead().Image().Brokers()); in != uses || n != 3+uses {
			t.Errorf("%d of %d are let in, and %d brokers are registered, want %d", in, many, n, 3+uses)
		}
	})
}

// A node that is started again with its token needs none, and finds the others by it.
func TestAUsedTokenIsNoObstacleLater(t *testing.T) {
	apart(t, 3, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		c.append(id, "before")
		n := c.nodes[2]
		n.stop()
		n.start()
		c.append(id, "after")
		if n.log.count("the folder belongs to a cluster already") != 1 {
			t.Error("it does not say that the token is of no use")
		}
	})
}

// A node whose disk is lost in part comes back as another incarnation, by the authority in its
// last image; one that has lost that too needs a token, and says so.
func TestANodeThatComesBackProvesWhoItIs(t *testing.T) {
	apart(t, 3, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		c.append(id, "before")
		n := c.nodes[2]
		lose := func(names ...string) {
			n.stop()
			for _, other := range c.nodes[:2] {
				for other.Live(n.id) {
					time.Sleep(time.Millisecond)
				}
			}
			for _, name := range names {
				if err := os.RemoveAll(n.dataFolder().Path(name)); err != nil {
					t.Fatal(err)
				}
			}
		}
		was := n.identity.Incarnation
		lose(folder.VotesName)
		n.start()
		if n.identity.Incarnation == was || n.credentials().Name.Incarnation != n.identity.Incarnation {
			t.Errorf("it was %s, is %s, and has the certificate of %v", was, n.identity.Incarnation, n.credentials().Name)
		}
		c.append(id, "after its votes were lost")

		// One whose certificate is gone makes another.
		lose(folder.CredentialsName)
		n.start()
		c.append(id, "after its certificate was lost")

		lose(folder.MetaName, folder.VotesName, folder.CredentialsName)
		n.join = []string{c.nodes[0].addr}
		if err := n.joins(5 * time.Second); err == nil || !strings.Contains(err.Error(), "millrace cluster token") {
			t.Errorf("without its last image: %v", err)
		}
		n.join = []string{c.nodes[0].token(1, time.Hour)}
		n.start()
		c.append(id, "after all was lost")
		time.Sleep(time.Minute)
		c.sameEverywhere(id)
	})
}

// A broker that was removed has a certificate, and what it takes to make another. Neither opens
// anything: it is no member's connection, and no way back as another incarnation. It comes back
// as a new node does, by a token.
func TestTheCertificateOfARemovedBrokerOpensNothing(t *testing.T) {
	apart(t, 3, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		c.append(id, "before")
		c.settled()
		n := c.nodes[2]
		time.Sleep(2 * time.Second) // the last image is saved within one
		was := n.identity
		n.stop()
		c.remove(c.nodes[0], n.id, removal.Meaning{Lowered: 1})
		c.follow(id, 1, 2)
		before := c.nodes[0].Image().Index
		for _, other := range c.nodes[:2] {
			for kind := byte(controlConn); kind <= bulkConn; kind++ {
				s := c.knock(other, strangerHello{kind: kind, node: n.id, incarnation: was.Incarnation, cluster: was.Cluster, own: n.credentials()})
				if s.ack.status != 8 || s.ack.incarnation != "" {
					t.Errorf("node %d, kind %d: %+v", other.id, kind, s.ack)
				}
			}
		}
		if err := os.RemoveAll(n.dataFolder().Path(folder.VotesName)); err != nil {
			t.Fatal(err)
		}
		n.join = []string{c.nodes[0].addr}
		if err := n.joins(5 * time.Second); err == nil || !strings.Contains(err.Error(), "millrace cluster token") {
			t.Errorf("as another incarnation: %v", err)
		}
		if n.stop(); c.nodes[0].Image().Index != before {
			t.Errorf("the metadata was at %d, and is at %d", before, c.nodes[0].Image().Index)
		}
		// Its last image has an authority that is none any more, and the key of that.
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := c.nodes[0].RotateAuthority(ctx); err != nil {
			t.Fatal(err)
		}
		n.join = []string{c.nodes[0].token(1, time.Hour)}
		n.start()
		c.append(id, "after")
		if own := n.credentials(); !own.Issuer().Is(c.nodes[0].credentials().Issuer()) {
			t.Error("it has a certificate of the authority from before")
		}
		c.secured()
	})
}

// A cluster that was away for longer than its certificates are good comes back.
func TestCertificatesThatEndedAreMadeAnew(t *testing.T) {
	apart(t, 3, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		c.append(id, "before")
		time.Sleep(2 * time.Second) // the last image is saved within one
		c.stop()
		time.Sleep(identity.Life + time.Hour)
		c.startAll()
		c.append(id, "after a month")
		time.Sleep(time.Minute)
		c.sameEverywhere(id)
	})
}

// Certificates that are not right are refused, each with its reason in the log, and have no
// effect: one of another authority, one that has ended, a right one in another node's name,
// one of an incarnation that is not registered.
func TestWrongCertificatesHaveNoEffect(t *testing.T) {
	c := startCluster(t, 3, nil)
	defer c.stop()
	c.secured()
	n := c.nodes[0]
	authorities, err := keyring.Parse(n.Image().Authorities())
	if err != nil {
		t.Fatal(err)
	}
	of := func(a identity.Authority, node int32, incarnation string, at time.Time) *identity.Credentials {
		own, err := identity.NewCredentials(identity.Name{Cluster: n.ClusterID(), Node: node, Incarnation: incarnation}, []identity.Authority{a}, at)
		if err != nil {
			t.Fatal(err)
		}
		return own
	}
	stranger, err := identity.NewAuthority(n.ClusterID(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	second := c.nodes[1].identity
	for _, tt := range []struct {
		name string
		own  *identity.Credentials
		says strangerHello
		want string
	}{
		{"another authority's", of(stranger, 2, second.Incarnation, time.Now()), strangerHello{node: 2, incarnation: second.Incarnation}, "unknown authority"},
		{"in another's name", of(authorities[0], 3, c.nodes[2].identity.Incarnation, time.Now()), strangerHello{node: 2, incarnation: second.Incarnation}, "its certificate that it is node 3"},
		{"of no registered incarnation", of(authorities[0], 2, "never", time.Now()), strangerHello{node: 2, incarnation: "never"}, "2.never"},
		{"of no registered node", of(authorities[0], 77, "x", time.Now()), strangerHello{node: 77, incarnation: "x"}, "77.x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for kind := byte(controlConn); kind <= bulkConn; kind++ {
				conn, err := net.DialTimeout("tcp", n.addr, 5*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(20 * time.Second))
				cfg := tt.own.Client(nil)
				cfg.VerifyConnection = nil
				over, _, err := identity.Dial(context.Background(), conn, cfg)
				if err != nil {
					continue // a mux logs the reason: see its tests
				}
				g := tt.says
				g.kind, g.cluster = kind, n.ClusterID()
				if s := sayHello(t, over, g); s.ack.status == 0 || !strings.Contains(s.ack.reason, tt.want) {
					t.Errorf("kind %d: %+v, want %q", kind, s.ack, tt.want)
				}
			}
		})
	}
	if n.log.countOf("its certificate that it is node 3") == 0 { // a line in a while for each host
		t.Error("the log does not say why a connection was refused")
	}
}

// countOf counts the lines with a text somewhere.
func (l *testLog) countOf(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// A cluster of a release that knows no certificates becomes one whose nodes prove who they
// are, one node after the other, and serves all the time. From then on nothing else is heard.
func TestRollingUpgradeToCertificates(t *testing.T) {
	if testing.Short() {
		t.Skip("whole clusters take a second or two each; run without -short")
	}
	t.Parallel()
	c := startClusterAt(t, 3, nil, keyring.SecureLevel-1)
	defer c.stop()
	id := c.create("orders", 1, 3, nil)
	want := []string{"before"}
	c.append(id, "before")
	if level := c.nodes[0].Image().Level(); level != keyring.SecureLevel-1 || len(c.nodes[0].Image().Authorities()) > 0 {
		t.Fatalf("the cluster is at level %d", level)
	}
	for i, n := range c.nodes {
		c.maxLevel = 0
		n.stop()
		c.append(id, fmt.Sprint("without node ", n.id)) // two of three are a quorum, of whichever release
		want = append(want, fmt.Sprint("without node ", n.id))
		n.start()
		eventually(t, "the node is heard by all", func() bool {
			for _, other := range c.nodes {
				if !other.Live(n.id) || !n.Live(other.id) {
					return false
				}
			}
			return true
		})
		c.append(id, fmt.Sprint("with node ", n.id))
		want = append(want, fmt.Sprint("with node ", n.id))
		if i < 2 && len(n.Image().Authorities()) > 0 {
			t.Error("there is an authority before all can have certificates")
		}
	}
	c.secured()
	c.settled()
	for _, n := range c.nodes { // what is open was proved, or is replaced with the next start
		n.stop()
		c.append(id, fmt.Sprint("again without ", n.id))
		want = append(want, fmt.Sprint("again without ", n.id))
		n.start()
		c.settled()
	}
	c.check("after the upgrade", id, want)
	n, other := c.nodes[0], c.nodes[1].identity
	for kind := byte(controlConn); kind <= onceConn; kind++ {
		s := c.knock(n, strangerHello{kind: kind, node: other.Node, incarnation: other.Incarnation, cluster: other.Cluster})
		if s.ack.status != 8 {
			t.Errorf("kind %d, without a certificate: %+v", kind, s.ack)
		}
	}
}

// The authority is changed while a producer writes: no record fails, no connection is refused,
// and a certificate of the old one opens nothing afterwards.
func TestTheAuthorityIsRotatedUnderLoad(t *testing.T) {
	c := startCluster(t, 3, nil)
	defer c.stop()
	c.secured()
	id := c.create("orders", 1, 3, nil)
	c.append(id, "first")
	old := c.nodes[2].credentials()
	_, p := c.leader(id)
	stop, wrote := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				wrote <- nil
				return
			default:
			}
			if _, err := appendWait(p, recordtest.Values("under way")); err != nil {
				wrote <- err
				return
			}
		}
	}()
	for round := range 3 {
		before := c.nodes[0].Image().Authorities()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		done := make(chan error, 1)
		go func() { done <- c.nodes[round%3].RotateAuthority(ctx) }()
		for open := true; open; { // connections are made all the while, from every node to every other
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				open = false
			default:
				for _, from := range c.nodes {
					for _, to := range c.nodes {
						if _, err := from.transport.CallAddr(ctx, to.addr, callSeek, nil); from != to && err != nil {
							t.Errorf("from node %d to node %d: %v", from.id, to.id, err)
						}
					}
				}
			}
		}
		cancel()
		after := c.nodes[0].Image().Authorities()
		if len(after) != 1 || after[0] == before[0] {
			t.Fatalf("there were %d authorities, and are %d", len(before), len(after))
		}
	}
	close(stop)
	if err := <-wrote; err != nil {
		t.Errorf("a record was not taken: %v", err)
	}
	for _, n := range c.nodes {
		if own := n.credentials(); !own.Issuer().Is(n.keyring.Credentials().Issuer()) {
			t.Errorf("node %d has kept another certificate than it shows", n.id)
		}
		conn, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		cfg := old.Client(nil)
		cfg.VerifyConnection = nil
		if _, _, err := identity.Dial(context.Background(), conn, cfg); err == nil {
			t.Errorf("node %d takes a certificate of the authority before", n.id)
		}
	}
}

// A broker that is away keeps the authority from being changed: it would believe nobody when
// it is back. When it is, the change goes on where it was.
func TestRotationWaitsForAllBrokers(t *testing.T) {
	apart(t, 3, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		c.append(id, "before")
		n := c.nodes[2]
		n.stop()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.nodes[0].RotateAuthority(ctx); err == nil || !strings.Contains(err.Error(), "broker 3") {
			t.Errorf("without node 3: %v", err)
		}
		n.start()
		c.append(id, "after")
		ctx, cancel = context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := c.nodes[1].RotateAuthority(ctx); err != nil {
			t.Fatal(err)
		}
		if all := n.Image().Authorities(); len(all) != 1 {
			t.Errorf("%d authorities", len(all))
		}
		n.stop()
		n.start()
		c.append(id, "at last")
		time.Sleep(time.Minute)
		c.sameEverywhere(id)
	})
}

// The command line asks the node of a folder by the certificate that lies there, and is heard
// by no other node's name.
func TestAFoldersCertificateAsksItsNode(t *testing.T) {
	c := startCluster(t, 2, nil)
	defer c.stop()
	c.secured()
	eventually(t, "the folder has the image", func() bool {
		image, err := LastImage(c.nodes[1].dir)
		return err == nil && keyring.Secured(image)
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	text, err := keyring.Ask(ctx, c.nodes[1].dir, admission.CallMint, []byte(`{"uses":1,"expires":60000000000}`))
	if err != nil {
		t.Fatal(err)
	}
	token, err := identity.ParseToken(string(text))
	if err != nil || len(token.Nodes) != 2 {
		t.Errorf("%+v, %v", token, err)
	}
	if _, ok := c.nodes[0].Image().JoinToken(token.ID); !ok {
		t.Error("the cluster does not know the token")
	}
	for _, req := range []string{`{"uses":0,"expires":1000000000}`, `{"uses":1,"expires":1}`, `{"uses":1001,"expires":1000000000}`, `x`} {
		if _, err := keyring.Ask(ctx, c.nodes[1].dir, admission.CallMint, []byte(req)); err == nil {
			t.Errorf("%s is taken", req)
		}
	}
	if _, err := keyring.Ask(ctx, t.TempDir(), admission.CallMint, nil); err == nil {
		t.Error("a folder without a node has one that answers")
	}
	// Who waits for a rotation hears whom that waits for, before it gives up.
	c.nodes[1].stop()
	brief, end := context.WithTimeout(context.Background(), 4*time.Second)
	defer end()
	if _, err := keyring.Ask(brief, c.nodes[0].dir, keyring.CallRotate, nil); err == nil || !strings.Contains(err.Error(), "broker 2 has not taken up") {
		t.Errorf("while broker 2 is down: %v", err)
	}
}

// A node of another cluster that looks for this one is told so, which ends who founded by
// mistake: nothing proves that word, since no node knows the authorities of other clusters. It
// counts from members alone, for a cluster that there may be, and not where the operator has
// said that a cluster is to be founded.
func TestHandshakesTellOfOtherClusters(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	n := c.nodes[0]
	other := folder.NewClusterID()
	conn, _ := net.Pipe()
	defer conn.Close()
	hello := func(n *testNode, name string, protocols ...string) error {
		_, err := n.NodeTLS(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: protocols, Conn: conn})
		return err
	}
	for _, tt := range []struct {
		name      string
		protocols []string
	}{
		{n.ClusterID() + ".cluster.millrace", []string{identity.Sealed}},
		{other + ".cluster.millrace", []string{identity.Join}},
		{other + ".cluster.millrace", []string{identity.Sealed, identity.Join}},
		{other, []string{identity.Sealed}},
		{"other.cluster.millrace", []string{identity.Sealed}},
		{"-" + other[1:] + ".cluster.millrace", []string{identity.Sealed}},
		{".cluster.millrace", []string{identity.Sealed}},
		{"", []string{identity.Sealed}},
	} {
		if err := hello(n, tt.name, tt.protocols...); err != nil && strings.Contains(err.Error(), "looks for") {
			t.Errorf("%q, %v: %v", tt.name, tt.protocols, err)
		}
	}
	peers{n.Node}.Foreign("other") // as a hello has it
	peers{n.Node}.Foreign("")
	if err := n.Failure(); err != nil {
		t.Fatalf("it ends: %v", err)
	}
	if err := hello(n, other+".cluster.millrace", identity.Sealed); err == nil || !strings.Contains(err.Error(), other) {
		t.Errorf("%v", err)
	}
	eventually(t, "the founder ends", func() bool { return n.Failure() != nil })
	if err := n.Failure(); !errors.Is(err, admission.ErrFoundElsewhere) {
		t.Error(err)
	}
	n.copied = true

	told := &testNode{c: c, id: 1, addr: ports.Hold(t, 1)[0], dir: filepath.Join(c.dir, "told"), disk: newTestDisk()}
	defer told.stop()
	if err := launch(t, told, func(cfg *Config) { cfg.Found = true }); err != nil {
		t.Fatal(err)
	}
	if err := hello(told, other+".cluster.millrace", identity.Sealed); err == nil {
		t.Error("it answers a node of another cluster")
	}
	if err := told.Failure(); err != nil {
		t.Errorf("told to found a cluster it ends: %v", err)
	}
}
