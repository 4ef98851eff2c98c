package admission

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"millrace/replication/controller"
	"millrace/replication/identity"
	"millrace/replication/keyring"
	"millrace/replication/metadata"
	"millrace/replication/raftgroup"
	"millrace/replication/roster"
	"millrace/replication/transport"
)

// A Host is the node whose cluster others ask to be taken into.
type Host interface {
	Cluster
	// ID and ClusterID are the node's own.
	ID() int32
	ClusterID() string
	// Controller is the node that leads the controllers, if one is known.
	Controller() (node int32, ok bool)
	// AskController has another node, which leads the controllers, answer a request.
	AskController(ctx context.Context, node int32, req []byte) ([]byte, error)
	// RotateAuthority is keyring.Rotate's.
	RotateAuthority(ctx context.Context) error
	// Live reports whether a broker is connected.
	Live(node int32) bool
	// AddNonvoter adds a broker to the controller group, without a vote.
	AddNonvoter(ctx context.Context, broker *metadata.Broker) error
}

// A Door is where other nodes ask to be taken in. Any goroutine may call its methods.
//
// In a cluster without authorities whoever asks is taken in. In others it takes a certificate,
// of a registered broker that comes back as another incarnation; or a token; or that the node asks over
// loopback, while all brokers are there and the cluster has no users: then whoever can ask
// may do everything there anyhow.
type Door struct {
	host   Host
	logger *slog.Logger
}

// NewDoor returns a node's.
func NewDoor(h Host, logger *slog.Logger) *Door { return &Door{host: h, logger: logger} }

// Answer answers the calls that are a Door's, heard is false for others: CallJoin, which is
// for everybody, and CallMint and keyring.CallRotate, for who can read the folder of a
// broker (see keyring.Operates).
func (d *Door) Answer(ctx context.Context, from transport.Peer, kind uint8, req []byte) (answer []byte, heard bool, err error) {
	operates := keyring.Operates(transport.OriginOf(ctx), d.host.Image())
	switch {
	case kind == CallJoin:
		answer, err = d.Admit(ctx, from, req)
	case kind == CallMint && operates:
		answer, err = d.Mint(ctx, req)
	case kind == keyring.CallRotate && operates:
		ctx, cancel := sooner(ctx)
		defer cancel()
		err = d.host.RotateAuthority(ctx)
	default:
		return nil, false, nil
	}
	return answer, true, err
}

// answerMargin is how long before who asks stops waiting it is told what is waited for.
const answerMargin = 2 * time.Second

// sooner ends before ctx does, so that who waits hears why in time.
func sooner(ctx context.Context) (context.Context, context.CancelFunc) {
	end, limited := ctx.Deadline()
	if !limited {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-min(answerMargin, time.Until(end)/2)))
}

// Admit answers CallJoin of whoever a call came from: another node that passes on what it was
// asked, or a stranger.
func (d *Door) Admit(ctx context.Context, from transport.Peer, p []byte) ([]byte, error) {
	var req Request
	if err := json.Unmarshal(p, &req); err != nil {
		return nil, fmt.Errorf("join request: %w", err)
	}
	if from.Node == 0 { // what a member says of who asked it holds, and no stranger says that of himself
		req.Forwarded, req.Vouched = false, vouchedBy(transport.OriginOf(ctx), req)
	}
	leader, ok := d.host.Controller()
	if ok && leader != d.host.ID() && !req.Forwarded {
		req.Forwarded = true
		forward, err := json.Marshal(req)
		if err != nil {
			return nil, err
		}
		return d.host.AskController(ctx, leader, forward)
	}
	answer := Answer{Refused: "the controller has no leader now", Retry: true}
	if ok && leader == d.host.ID() {
		answer = d.admit(ctx, req, time.Now())
	}
	if answer.Refused != "" && !answer.Retry {
		d.logger.Warn("a node was not taken into the cluster", "node", req.Node, "host", req.Host, "port", req.Port, "reason", answer.Refused)
	}
	return json.Marshal(answer)
}

// vouchedBy is what the node that is asked knows of who asks.
func vouchedBy(o transport.Origin, req Request) string {
	name := o.Proof.Name
	switch {
	case o.Proof.Certified() && name.Node == req.Node && name.Incarnation == req.Incarnation:
		return vouchedCertificate
	case o.Proof.Protocol == identity.Join && o.Loopback:
		return vouchedLoopback
	case o.Proof.Protocol == identity.Join:
		return vouchedSealed
	}
	return ""
}

// errToken refuses a token. Why exactly is nobody's business who has not the right one.
var errToken = errors.New("the join token is not good: it has ended, or is of another cluster; `millrace cluster token` makes another")

// errUnregistered refuses a certificate.
var errUnregistered = errors.New("its certificate names a broker that is not registered, or was taken out of the cluster: it joins as a new one does, by a token")

// lets decides whether a node is taken in at all, by what it proves. Whether its token is used
// up is seen when it is used.
func lets(image *metadata.Image, req Request, now time.Time) error {
	switch {
	case image.Level() < keyring.SecureLevel:
		return nil
	case req.Vouched == vouchedCertificate:
		// The certificate of a broker that was removed is good until it ends, or the authority
		// is changed; its word is not.
		if _, registered := image.Broker(req.Node); !registered {
			return errUnregistered
		}
		return nil
	case req.Vouched == "":
		return errors.New("the nodes of this cluster prove who they are, and who asks to join it does so over TLS")
	case req.Token != "":
		t, known := image.JoinToken(req.Token)
		if !known || !identity.SecretIs(req.Secret, t.Hash) || now.UnixMilli() >= t.Expires || len(req.Certificate) == 0 {
			return errToken
		}
		return nil
	case req.Vouched == vouchedLoopback && onlyLoopback(image, req):
		return nil
	}
	return fmt.Errorf("it takes a token to join this cluster: `millrace cluster token`, on the machine of one of its nodes, makes one, and `millrace serve --join TOKEN` takes it%s", elsewhere(image))
}

// elsewhere says why loopback is not enough.
func elsewhere(image *metadata.Image) string {
	if len(image.Users()) > 0 {
		return " (it has users, so that even nodes on one machine with all others need one)"
	}
	for _, b := range image.Brokers() {
		if !identity.LoopbackHost(b.Host) {
			return fmt.Sprintf(" (without one only nodes join that are on one machine with all others, and broker %d is at %s)", b.ID, b.Host)
		}
	}
	return ""
}

// onlyLoopback reports whether nobody is in a cluster, or would be, who is not on this machine,
// and nobody has a password there.
func onlyLoopback(image *metadata.Image, req Request) bool {
	for _, b := range image.Brokers() {
		if !identity.LoopbackHost(b.Host) {
			return false
		}
	}
	return identity.LoopbackHost(req.Host) && len(image.Users()) == 0
}

// use uses a token up by one. Who asks again with the same request, since the answer was lost,
// uses it no more: the same node, by the same request for a certificate, whose key nobody else
// has. The same request for another node is another use, or a token for one would be for all
// that its owner makes up.
func (d *Door) use(ctx context.Context, req Request, now time.Time) error {
	by := fmt.Appendf(nil, "%d %q ", req.Node, req.Incarnation)
	sum := sha256.Sum256(append(by, req.Certificate...))
	return d.host.Change(ctx, metadata.UseJoinToken{ID: req.Token, At: now.UnixMilli(), By: hex.EncodeToString(sum[:16])})
}

// admit takes a node in, on the controller: it registers the broker, and adds it to the
// controller group without a vote. The vote comes when it has caught up.
func (d *Door) admit(ctx context.Context, req Request, now time.Time) Answer {
	h := d.host
	refused := func(err error) Answer {
		// A founder that has not registered itself yet is about to.
		retry := errors.Is(err, controller.ErrNoController) || errors.Is(err, raftgroup.ErrUnknown) || errors.Is(err, metadata.ErrNoCluster)
		return Answer{Refused: err.Error(), Retry: retry}
	}
	image := h.Image()
	level := image.Level()
	if max(req.MaxLevel, 1) < level || req.MinLevel > max(level, 1) {
		return refused(fmt.Errorf("the cluster is at feature level %d, the node reads %d to %d: run a release on it that reads that", level, max(req.MinLevel, 1), max(req.MaxLevel, 1)))
	}
	if err := lets(image, req, now); err != nil {
		answer := refused(err)
		answer.Retry = req.Vouched == "" || errors.Is(err, errUnregistered) // it asks in another way, too
		return answer
	}
	if known, ok := image.Broker(req.Node); ok && h.Live(req.Node) &&
		(known.Incarnation != req.Incarnation || known.Host != req.Host || known.Port != req.Port) {
		return refused(fmt.Errorf("node %d is in the cluster and alive at %s:%d%s", req.Node, known.Host, known.Port, IDTaken))
	}
	authorities, err := keyring.Parse(image.Authorities())
	switch {
	case err != nil:
		return refused(err)
	case level >= keyring.SecureLevel && len(authorities) == 0:
		return Answer{Refused: "the cluster is about to make its authority", Retry: true}
	case level >= keyring.SecureLevel && req.Token != "" && req.Vouched != vouchedCertificate:
		if err := d.use(ctx, req, now); err != nil {
			return refused(err)
		}
	}
	joiner := metadata.Broker{ID: req.Node, Incarnation: req.Incarnation, Host: req.Host, Port: req.Port, Rack: req.Rack, Secured: level >= keyring.SecureLevel}
	if level >= 2 {
		joiner.MinLevel, joiner.MaxLevel = req.MinLevel, req.MaxLevel
	}
	if err := h.Change(ctx, metadata.RegisterBroker{Broker: joiner}); err != nil {
		return refused(err)
	}
	broker, ok := h.Image().BrokerOf(req.Incarnation)
	if !ok {
		return refused(fmt.Errorf("%w: the registration was replaced at once", raftgroup.ErrUnknown))
	}
	if err := h.AddNonvoter(ctx, broker); err != nil {
		return refused(fmt.Errorf("%w: %v", controller.ErrNoController, err))
	}
	answer := Answer{Cluster: h.ClusterID(), Node: broker.ID, Peers: make(map[int32]string)}
	for _, b := range h.Image().Brokers() {
		if b.ID != broker.ID {
			answer.Peers[b.ID] = roster.Address(b)
		}
	}
	if len(authorities) > 0 && len(req.Certificate) > 0 {
		if err := answer.certify(authorities, req, now); err != nil {
			return refused(err)
		}
	}
	return answer
}

// certify adds the new member's certificate, and the authorities that it is to believe.
func (a *Answer) certify(authorities []identity.Authority, req Request, now time.Time) error {
	name := identity.Name{Cluster: a.Cluster, Node: a.Node, Incarnation: req.Incarnation}
	granted, err := authorities[0].Grant(name, req.Certificate, now)
	if err != nil {
		return err
	}
	a.Certificate = granted
	for _, authority := range authorities {
		certificate, _, err := authority.PEM()
		if err != nil {
			return err
		}
		a.Authorities = append(a.Authorities, certificate)
	}
	return nil
}
