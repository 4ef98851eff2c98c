package keyring

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/replication/folder"
	"millrace/replication/identity"
	"millrace/replication/metadata"
	"millrace/replication/transport"
	"millrace/segment"
)

// A world is a cluster's metadata, as its nodes have it at the same time.
type world struct {
	t *testing.T

	mu    sync.Mutex
	image *metadata.Image
}

func newWorld(t *testing.T, level int32) *world {
	w := &world{t: t, image: new(metadata.Image)}
	w.apply(metadata.RegisterBroker{ClusterID: "cluster", Broker: broker(1, level)})
	return w
}

// broker is a node's that reads levels up to one.
func broker(node, level int32) metadata.Broker {
	b := metadata.Broker{ID: node, Incarnation: string(rune('a' - 1 + node)), Host: "127.0.0.1", Port: 9000 + node, MinLevel: 1, MaxLevel: level}
	if level < 2 {
		b.MinLevel, b.MaxLevel = 0, 0
	}
	return b
}

func name(node int32) identity.Name {
	return identity.Name{Cluster: "cluster", Node: node, Incarnation: broker(node, 4).Incarnation}
}

func (w *world) Image() *metadata.Image {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.image
}

func (w *world) apply(change metadata.Change) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	next, err := w.image.Apply(w.image.Index+1, change)
	if err != nil {
		w.t.Fatal(err)
	}
	w.image = next
}

func (w *world) Change(_ context.Context, change metadata.Change) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	next, err := w.image.Apply(w.image.Index+1, change)
	if err == nil {
		w.image = next
	}
	return err
}

// first gives the cluster its first authority.
func (w *world) first() {
	w.t.Helper()
	change, lacks, err := First(w.Image())
	if err != nil || !lacks {
		w.t.Fatal(lacks, err)
	}
	w.apply(change)
}

// ring opens a node's keyring on a folder.
func (w *world) ring(dir string, node int32, log *bytes.Buffer) *Keyring {
	if log == nil {
		log = new(bytes.Buffer)
	}
	k := Open(folder.Folder{FS: segment.OS, Dir: dir}, slog.New(slog.NewTextHandler(log, nil)))
	k.Belongs(name(node), w)
	return k
}

// A certificate is there as soon as the image has an authority, goes with it from then on, and
// is made anew in time; what is in the folder is what the next start has.
func TestACertificateGoesWithTheImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, dir := newWorld(t, 4), t.TempDir()
		k := w.ring(dir, 1, nil)
		if k.Certified() {
			t.Fatal("there is a certificate without an authority")
		}
		if _, err := k.Server(&tls.ClientHelloInfo{}); !errors.Is(err, ErrNoCertificate) {
			t.Error(err)
		}
		w.first()
		own := k.Credentials()
		if own == nil || own.Name != name(1) || k.Credentials() != own {
			t.Fatalf("%+v", own)
		}
		time.Sleep(identity.Life / 2)
		if k.Credentials() != own {
			t.Error("it is made anew too soon")
		}
		time.Sleep(identity.Life / 3)
		renewed := k.Credentials()
		if renewed == own || renewed.Old(time.Now()) {
			t.Errorf("it ends at %v, and it is %v", renewed.Ends(), time.Now())
		}
		if back := w.ring(dir, 1, nil).Credentials(); !back.Ends().Equal(renewed.Ends()) {
			t.Errorf("the next start has one that ends at %v, not %v", back.Ends(), renewed.Ends())
		}
		if info, err := os.Stat(k.folder.Path(folder.CredentialsName)); err != nil || info.Mode().Perm() != 0o600 {
			t.Error(info.Mode(), err)
		}
		// Another incarnation has nothing of the one before.
		other := Open(k.folder, slog.New(slog.DiscardHandler))
		if other.Was() != name(1) {
			t.Errorf("it was %v", other.Was())
		}
		other.Belongs(identity.Name{Cluster: "cluster", Node: 1, Incarnation: "z"}, new(world).with(new(metadata.Image)))
		if other.Certified() {
			t.Error("the certificate of another incarnation is used")
		}
	})
}

// A certificate of the cluster's present authority holds against an image from before, which a
// node that is let in again has, and one that ended just after a rotation.
func TestNoCertificateIsMadeByAnImageFromBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, dir := newWorld(t, 4), t.TempDir()
		w.first()
		step := &steps{world: w, images: []*metadata.Image{w.Image()}}
		if err := Rotate(t.Context(), step, 1, laggards{w: w}); err != nil {
			t.Fatal(err)
		}
		all, err := Parse(w.Image().Authorities())
		if err != nil {
			t.Fatal(err)
		}
		given, err := identity.NewCredentials(name(1), all, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for i, before := range step.images[:len(step.images)-1] {
			k := Open(folder.Folder{FS: segment.OS, Dir: dir}, slog.New(slog.DiscardHandler))
			k.Belongs(name(1), (&world{}).with(before))
			if k.Take(given) != nil || !k.Credentials().Issuer().Is(all[0]) {
				t.Errorf("image %d: given the present one it makes one of another authority", i)
			}
			back := Open(k.folder, slog.New(slog.DiscardHandler))
			back.Belongs(name(1), (&world{}).with(before))
			if own := back.Credentials(); !own.Issuer().Is(all[0]) || shakes(t, own, given) != nil || shakes(t, given, own) != nil {
				t.Errorf("image %d: at the next start it makes one of another authority, or does not believe the others", i)
			}
		}
		// The present image takes over, and the next rotation is followed.
		k := w.ring(dir, 1, nil)
		k.Credentials()
		if err := Rotate(t.Context(), step, 1, laggards{w: w}); err != nil {
			t.Fatal(err)
		}
		if next, err := Parse(w.Image().Authorities()); err != nil || !k.Credentials().Issuer().Is(next[0]) {
			t.Errorf("the next authority is not taken up: %v", err)
		}
	})
}

func (w *world) with(image *metadata.Image) *world {
	w.image = image
	return w
}

// What is in the folder and cannot be read is made anew, and no key is in what is said of it.
func TestADamagedCertificateIsMadeAnew(t *testing.T) {
	w, dir := newWorld(t, 4), t.TempDir()
	w.first()
	k := w.ring(dir, 1, nil)
	k.Credentials()
	path := k.folder.Path(folder.CredentialsName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, good[:len(good)/3], 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if own := w.ring(dir, 1, &log).Credentials(); own == nil || own.Name != name(1) {
		t.Errorf("%+v", own)
	}
	if !strings.Contains(log.String(), "made anew") || strings.Contains(log.String(), "BEGIN") {
		t.Errorf("the log says %s", log.String())
	}
	if back := w.ring(dir, 1, nil); back.Was() != name(1) {
		t.Error("it was not saved")
	}
	if now, err := os.ReadFile(path); err != nil || bytes.Equal(now, good[:len(good)/3]) {
		t.Error("the file is as it was", err)
	}
}

// A folder that cannot be written costs a warning in a while and a try to write, however many
// handshakes there are, and is written when it can be.
func TestACertificateHoldsThatIsNotSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		w.first()
		dir := t.TempDir()
		missing := dir + "/missing"
		var log bytes.Buffer
		k := w.ring(missing, 1, &log)
		own := k.Credentials()
		for range 100 {
			k.Credentials()
		}
		if said := strings.Count(log.String(), "not saved"); own == nil || said != 1 {
			t.Fatalf("%v, and it is said %d times", own, said)
		}
		if err := os.Mkdir(missing, 0o755); err != nil {
			t.Fatal(err)
		}
		if k.Credentials() != own {
			t.Error("it is another one")
		}
		if back := w.ring(missing, 1, nil); back.Was() != (identity.Name{}) {
			t.Error("it is tried at each handshake")
		}
		time.Sleep(saveEvery)
		if k.Credentials() != own {
			t.Error("it is another one")
		}
		if back := w.ring(missing, 1, nil); back.Was() != name(1) {
			t.Error("it was not saved when it could be")
		}
	})
}

// A node that cannot take up what the image says does not say that it has, and goes on with the
// certificate that it has; that is in the log, and not at each handshake.
func TestAKeyringSaysWhatItCannotTakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		w.first()
		var log bytes.Buffer
		k := w.ring(t.TempDir(), 1, &log)
		own := k.Credentials()
		if p, err := k.Index(); err != nil || binary.BigEndian.Uint64(p) != w.Image().Index {
			t.Fatalf("%x, %v", p, err)
		}
		const nothing = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
		authority := w.Image().Authorities()[0]
		w.apply(metadata.SetAuthorities{Authorities: []metadata.Authority{{Certificate: nothing, Key: authority.Key}, authority}})
		if p, err := k.Index(); err == nil || strings.Contains(err.Error(), "BEGIN") {
			t.Errorf("it has taken up change %x of what cannot be read: %v", p, err)
		}
		for range 100 {
			if k.Credentials() != own {
				t.Fatal("it is another one")
			}
		}
		if said := strings.Count(log.String(), "not as the cluster has it"); said != 1 {
			t.Errorf("it is said %d times", said)
		}
		// A rotation waits for such a node.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		sound := newWorld(t, 4)
		sound.apply(metadata.RegisterBroker{Broker: broker(2, 4)})
		sound.first()
		before := sound.Image().Index
		if err := Rotate(ctx, sound, 1, answering{k}); err == nil || !strings.Contains(err.Error(), "broker 2") || sound.Image().Index != before {
			t.Errorf("the authority is changed though a broker does not take that up: %v", err)
		}
	})
}

// An answering keyring is that of each of the Peers.
type answering struct{ *Keyring }

// Call implements Peers.
func (a answering) Call(context.Context, int32, uint8, []byte) ([]byte, error) { return a.Index() }

// Who has what, and with whom that goes: see Guard.
func TestAGuardAsksForWhatTheClusterHas(t *testing.T) {
	at := func(level int32, secured ...bool) *world {
		w := newWorld(t, level)
		for i, s := range secured {
			b := broker(int32(i+1), level)
			b.Secured = s
			w.apply(metadata.RegisterBroker{Broker: b})
		}
		return w
	}
	none := (&world{t: t}).with(new(metadata.Image))
	for _, tt := range []struct {
		name             string
		w                *world
		certified        bool
		bare, once, dial bool // of and to node 2; dial: it may be bare
		seek             bool // whoever is at an address may be dialled bare
	}{
		{"below level 4", at(3, false, false), false, true, true, true, true},
		{"at it, and nobody is secured", at(4, false, false), true, true, true, true, true},
		{"the other is not", at(4, true, false), true, true, true, true, true},
		{"only the other is", at(4, false, true), true, false, true, false, true},
		{"all are", at(4, true, true), true, false, false, false, false},
		{"it joined without, and has no image", none, false, true, true, true, true},
		{"it joined with a certificate, and has no image", none, true, false, false, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := Open(folder.Folder{FS: segment.OS, Dir: t.TempDir()}, slog.New(slog.DiscardHandler))
			if tt.certified {
				a, err := identity.NewAuthority("cluster", time.Now())
				if err != nil {
					t.Fatal(err)
				}
				own, err := identity.NewCredentials(name(1), []identity.Authority{a}, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				if err := k.Take(own); err != nil {
					t.Fatal(err)
				}
			}
			g := Guard{Keyring: k, Images: tt.w}
			second := transport.Peer{Node: 2, Incarnation: name(2).Incarnation}
			if err := g.Bare(second, false); (err == nil) != tt.bare || err != nil && !errors.Is(err, ErrBare) {
				t.Errorf("heard bare: %v", err)
			}
			if err := g.Bare(second, true); (err == nil) != tt.once {
				t.Errorf("heard bare for one call: %v", err)
			}
			if tt.w.Image().Level() >= SecureLevel {
				for _, other := range []transport.Peer{{Node: 2, Incarnation: "another"}, {Node: 77, Incarnation: "x"}} {
					if g.Bare(other, false) == nil {
						t.Errorf("%s is heard bare", other)
					}
				}
			}
			if cfg, orBare := g.Dial(second); (cfg != nil) != tt.certified || orBare != tt.dial {
				t.Errorf("dialled by %v, or bare: %v", cfg != nil, orBare)
			}
			if cfg, orBare := g.Dial(transport.Peer{}); (cfg != nil) != tt.certified || orBare != tt.seek {
				t.Errorf("an address is dialled by %v, or bare: %v", cfg != nil, orBare)
			}
		})
	}
}

// Who asks for a broker's sake, by the certificate in its folder: over a connection for one
// call, and as the broker that is registered.
func TestWhoOperates(t *testing.T) {
	w := newWorld(t, 4)
	w.apply(metadata.RegisterBroker{Broker: broker(2, 4)})
	shown := func(protocol string, n identity.Name, once bool) transport.Origin {
		return transport.Origin{Once: once, Proof: identity.Proof{Protocol: protocol, Name: n}}
	}
	before := name(2)
	before.Incarnation = "before"
	for what, o := range map[string]transport.Origin{
		"a member's connection":   shown(identity.Sealed, name(2), false),
		"nothing":                 {Once: true, Loopback: true},
		"who comes to join":       shown(identity.Join, name(2), true),
		"an earlier incarnation":  shown(identity.Sealed, before, true),
		"no registered broker":    shown(identity.Sealed, name(3), true),
		"nobody, with a protocol": shown(identity.Bare, identity.Name{}, true),
	} {
		if Operates(o, w.Image()) {
			t.Errorf("%s operates", what)
		}
	}
	for _, protocol := range []string{identity.Sealed, identity.Bare} {
		if !Operates(shown(protocol, name(2), true), w.Image()) {
			t.Errorf("a broker's folder does not, over %s", protocol)
		}
	}
	w.apply(metadata.RemoveBroker{ID: 2})
	if Operates(shown(identity.Sealed, name(2), true), w.Image()) {
		t.Error("a broker that was removed operates")
	}
}

// Peers are nodes that know of changes when the world does, but for those that are away.
type laggards struct {
	w    *world
	away map[int32]bool
}

func (l laggards) Call(_ context.Context, node int32, kind uint8, _ []byte) ([]byte, error) {
	if l.away[node] || kind != CallIndex {
		return nil, net.ErrClosed
	}
	k := &Keyring{images: l.w, logger: slog.New(slog.DiscardHandler)}
	return k.Index()
}

// At each step of a rotation whoever is one step behind believes who is not, and is believed.
func TestARotationLeavesNobodyBehind(t *testing.T) {
	w := newWorld(t, 4)
	w.apply(metadata.RegisterBroker{Broker: broker(2, 4)})
	w.first()
	step := &steps{world: w, images: []*metadata.Image{w.Image()}}
	if err := Rotate(context.Background(), step, 1, laggards{w: w}); err != nil {
		t.Fatal(err)
	}
	if len(step.images) != 4 {
		t.Fatalf("it took %d steps", len(step.images)-1)
	}
	if before, after := step.images[0].Authorities(), w.Image().Authorities(); len(after) != 1 || after[0] == before[0] {
		t.Error("the authority is the same")
	}
	for i := range 3 {
		behind, ahead := step.images[i], step.images[i+1]
		var sides [2]*identity.Credentials
		for j, image := range []*metadata.Image{behind, ahead} {
			all, err := Parse(image.Authorities())
			if err != nil {
				t.Fatal(err)
			}
			if sides[j], err = identity.NewCredentials(name(int32(j+1)), all, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		for j := range sides {
			if err := shakes(t, sides[j], sides[1-j]); err != nil {
				t.Errorf("step %d: %v", i+1, err)
			}
		}
	}
}

// A steps world keeps its images.
type steps struct {
	*world
	images []*metadata.Image
}

func (s *steps) Change(ctx context.Context, change metadata.Change) error {
	err := s.world.Change(ctx, change)
	s.images = append(s.images, s.Image())
	return err
}

// shakes has one dial the other.
func shakes(t *testing.T, client, server *identity.Credentials) error {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	served := make(chan error, 1)
	go func() {
		records := &identity.Records{Conn: b}
		secure := tls.Server(records, server.Server(&tls.ClientHelloInfo{Conn: b, SupportedProtos: []string{identity.Sealed}}, nil))
		err := secure.Handshake()
		if err != nil {
			b.Close()
		}
		served <- err
	}()
	_, _, err := identity.Dial(context.Background(), a, client.Client(nil))
	if err != nil {
		a.Close()
	}
	return errors.Join(err, <-served)
}

// A broker that is away holds a rotation up where it is, and the next one goes on from there.
func TestARotationGoesOnWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		w.apply(metadata.RegisterBroker{Broker: broker(2, 4)})
		w.first()
		step := &steps{world: w}
		peers := laggards{w: w, away: map[int32]bool{2: true}}
		for range 2 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			if err := Rotate(ctx, step, 1, peers); err == nil || !strings.Contains(err.Error(), "broker 2") {
				t.Errorf("%v", err)
			}
			cancel()
		}
		if len(step.images) != 0 {
			t.Errorf("%d changes while a broker is away", len(step.images))
		}
		peers.away[2] = false
		if err := Rotate(context.Background(), step, 1, peers); err != nil || len(step.images) != 3 {
			t.Errorf("%d changes, %v", len(step.images), err)
		}
	})
}

// A meddled world is one in which somebody else begins a rotation just before it is first
// changed.
type meddled struct {
	*steps
	other []metadata.Authority // what that one makes of the authorities; nil until it has
}

func (m *meddled) Change(ctx context.Context, change metadata.Change) error {
	if m.other == nil {
		next, err := withNew(m.Image())
		if err != nil {
			return err
		}
		m.other = next
		m.apply(metadata.SetAuthorities{Authorities: next})
	}
	return m.steps.Change(ctx, change)
}

// Of two rotations that are begun at once the second goes on with what the first has changed:
// an authority by which nodes may have issued their certificates is not put away unseen.
func TestRotationsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		w.apply(metadata.RegisterBroker{Broker: broker(2, 4)})
		w.first()
		m := &meddled{steps: &steps{world: w}}
		if err := Rotate(context.Background(), m, 1, laggards{w: w}); err != nil {
			t.Fatal(err)
		}
		if after := w.Image().Authorities(); len(after) != 1 || after[0] != m.other[1] {
			t.Errorf("%d authorities, and not the one that was there first", len(after))
		}
		if len(m.images) != 3 { // one is refused
			t.Errorf("%d changes", len(m.images))
		}
	})
}
