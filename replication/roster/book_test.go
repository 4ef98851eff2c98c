package roster

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/folder"
	"millrace/replication/metadata"
	"millrace/replication/transport"
	"millrace/segment"
)

// A testNode is what is around a roster: a cluster, and a network in which those answer
// that have an answer.
type testNode struct {
	mu       sync.Mutex // of what Book.Seek's goroutine asks beside the test: live, answers, asked
	image    *metadata.Image
	live     []int32
	servers  []raft.Server
	answers  map[string][]Entry // by address
	asked    []string
	peers    []int32  // whom to stay connected to
	shown    int      // how often views were
	outdated []string // reasons
}

func (n *testNode) Image() *metadata.Image     { return n.image }
func (n *testNode) Controllers() []raft.Server { return n.servers }
func (n *testNode) Outdated(reason string)     { n.outdated = append(n.outdated, reason) }
func (n *testNode) SetPeers(nodes []int32)     { n.peers = nodes }
func (n *testNode) ShowViews()                 { n.shown++ }

func (n *testNode) Live(broker int32) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.live, broker)
}

func (n *testNode) CallAddr(_ context.Context, addr string, _ uint8, _ []byte) ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, addr)
	if list, ok := n.answers[addr]; ok {
		return json.Marshal(list)
	}
	return nil, transport.ErrUnreachable
}

// of returns the image of a cluster with brokers.
func of(t *testing.T, brokers ...metadata.Broker) *metadata.Image {
	t.Helper()
	image := &metadata.Image{}
	for i, b := range brokers {
		next, err := image.Apply(uint64(i+1), metadata.RegisterBroker{Broker: b, ClusterID: "AAAAAAAAAAAAAAAAAAAAAA"})
		if err != nil {
			t.Fatal(err)
		}
		image = next
	}
	return image
}

var (
	one   = metadata.Broker{ID: 1, Incarnation: "11111111", Host: "one", Port: 1}
	two   = metadata.Broker{ID: 2, Incarnation: "22222222", Host: "two", Port: 2}
	three = metadata.Broker{ID: 3, Incarnation: "33333333", Host: "three", Port: 3}
)

// openBook opens node 1's in a folder.
func openBook(f folder.Folder, n *testNode) *Book {
	return OpenBook(BookConfig{
		Self: transport.Peer{Node: 1, Incarnation: one.Incarnation}, Address: "one:1", Folder: f,
		Cluster: n, Network: n, Views: n, Logger: slog.New(slog.DiscardHandler),
		Timers: BookTimers{Call: time.Second, SeekFirst: time.Second, SeekMost: 4 * time.Second},
	})
}

// Of two addresses of a node the one that it told later holds, unless another incarnation
// of it was registered; and what was learned is there at the next start.
func TestTheLaterAddressHolds(t *testing.T) {
	n := &testNode{image: of(t, one, two, three)}
	f := folder.Folder{FS: segment.OS, Dir: t.TempDir()}
	b := openBook(f, n)
	for _, step := range []struct {
		what string
		take Entry
		news bool
		want string
	}{
		{"the first", Entry{Node: 2, Incarnation: two.Incarnation, Address: "a:1", Epoch: 5}, true, "a:1"},
		{"an earlier one", Entry{Node: 2, Incarnation: two.Incarnation, Address: "b:1", Epoch: 4}, false, "a:1"},
		{"the same, later", Entry{Node: 2, Incarnation: two.Incarnation, Address: "a:1", Epoch: 6}, false, "a:1"},
		{"another incarnation's", Entry{Node: 2, Incarnation: "ffffffff", Address: "c:1", Epoch: 9}, false, "a:1"},
		{"no address", Entry{Node: 2, Incarnation: two.Incarnation, Address: "c:x", Epoch: 9}, false, "a:1"},
		{"a later one", Entry{Node: 2, Incarnation: two.Incarnation, Address: "d:1", Epoch: 7}, true, "d:1"},
	} {
		if news := b.Take([]Entry{step.take}); news != step.news {
			t.Errorf("%s: news %t, want %t", step.what, news, step.news)
		}
		if got, ok := b.Resolve(2); got != step.want || !ok {
			t.Errorf("%s: node 2 is at %q, want %q", step.what, got, step.want)
		}
	}
	if got, ok := b.Resolve(3); got != "three:3" || !ok {
		t.Errorf("node 3, of which only the image knows, is at %q", got)
	}
	if got, ok := b.Resolve(4); ok {
		t.Errorf("node 4, of which nobody knows, is at %q", got)
	}
	if !slices.Equal(n.peers, []int32{2, 3}) {
		t.Errorf("it stays connected to %v, want 2 and 3", n.peers)
	}
	if got, _ := openBook(f, n).Resolve(2); got != "d:1" {
		t.Errorf("after a start node 2 is at %q", got)
	}
	again := two
	again.Incarnation, again.Port = "2222aaaa", 22
	n.image = of(t, one, again)
	if got, _ := b.Resolve(2); got != "two:22" {
		t.Errorf("the new incarnation of node 2 is at %q", got)
	}
}

// A node that is told an old address of its own, under a later time than its start, tells
// its own anew.
func TestOwnAddressIsToldAnew(t *testing.T) {
	n := &testNode{image: of(t, one)}
	b := openBook(folder.Folder{FS: segment.OS, Dir: t.TempDir()}, n)
	was := b.Entries()[0]
	old := was
	old.Address, old.Epoch = "old:1", was.Epoch+7
	if !b.Take([]Entry{old}) {
		t.Error("it is no news")
	}
	if now := b.Entries()[0]; now.Address != "one:1" || now.Epoch != old.Epoch+1 {
		t.Errorf("it tells %+v", now)
	}
	foreign := old
	foreign.Incarnation, foreign.Epoch = "ffffffff", old.Epoch+9
	if b.Take([]Entry{foreign}) {
		t.Error("another incarnation's is its own")
	}
	if hint := b.Hints()[0]; hint.Incarnation != "" {
		t.Errorf("whoever asks is told the incarnation %q", hint.Incarnation)
	}
}

// A fullDisk takes no names while it is full.
type fullDisk struct {
	segment.FS
	full bool
}

func (d *fullDisk) Rename(from, to string) error {
	if d.full {
		return syscall.ENOSPC
	}
	return d.FS.Rename(from, to)
}

// What a peer says of where it is, is shown to the others, and what could not be saved is
// saved later.
func TestAnAddressThatWasNotSavedIsSavedLater(t *testing.T) {
	n := &testNode{image: of(t, one, two)}
	disk := &fullDisk{FS: segment.OS, full: true}
	f := folder.Folder{FS: disk, Dir: t.TempDir()}
	b := openBook(f, n)
	peer := transport.Peer{Node: 2, Incarnation: two.Incarnation}
	for range 2 { // the second is no news
		b.Learned(peer, "new:2")
	}
	b.SaveAgain()
	if saved := f.Peers(); len(saved) != 0 || n.shown != 1 {
		t.Errorf("on a full disk %v is saved; the others were told %d times, want once", saved, n.shown)
	}
	disk.full = false
	b.SaveAgain()
	if saved, want := f.Peers(), map[int32]string{2: "new:2"}; !maps.Equal(saved, want) {
		t.Errorf("%v is saved, want %v", saved, want)
	}
}

// A node whose peers have all moved asks at the addresses that it was given, more and more
// rarely, until it hears all that it knows of.
func TestABookSeeksUntilAllAreHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &testNode{image: of(t, one, two), live: []int32{1}, answers: map[string][]Entry{}}
		b := openBook(folder.Folder{FS: segment.OS, Dir: t.TempDir()}, n)
		done := make(chan struct{})
		go func() {
			b.Seek(t.Context(), 8, []string{"one:1", "known:1"})
			close(done)
		}()
		time.Sleep(time.Second + 2*time.Second + 4*time.Second + 4*time.Second)
		synctest.Wait()
		if want := []string{"known:1", "known:1", "known:1", "known:1"}; !slices.Equal(n.asked, want) {
			t.Fatalf("it asked at %q, want %q", n.asked, want)
		}
		n.mu.Lock()
		n.answers["known:1"] = []Entry{{Node: 2, Address: "moved:2", Epoch: 3}}
		n.mu.Unlock()
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if got, _ := b.Resolve(2); got != "moved:2" || n.shown != 1 {
			t.Errorf("node 2 is at %q, the others were told %d times", got, n.shown)
		}
		n.mu.Lock()
		n.live = []int32{1, 2}
		n.mu.Unlock()
		time.Sleep(4 * time.Second)
		<-done
		if len(n.asked) != 5 {
			t.Errorf("it asked %d times, want 5", len(n.asked))
		}
	})
}

// Who says nothing of an address is at none.
func TestAddressesAreTakenApart(t *testing.T) {
	for addr, want := range map[string]string{"a:1": "a", "[::1]:9092": "::1", "a": "", "a:x": "", "a:65536": "", "": ""} {
		if host, _, err := SplitAddress(addr); host != want || (err == nil) != (want != "") {
			t.Errorf("%q: host %q, %v", addr, host, err)
		}
	}
	if got := Address(&one); got != "one:1" {
		t.Errorf("node 1 is at %s", got)
	}
}
