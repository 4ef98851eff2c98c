package admission

import (
	"crypto"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"time"

	"millrace/replication/identity"
	"millrace/replication/keyring"
	"millrace/replication/transport"
)

// A way is one in which a candidate asks to be taken in. It tries all that it has, at each
// address.
type way struct {
	name      string
	transport *transport.Transport
	request   []byte        // of CallJoin
	key       crypto.Signer // that the request asks a certificate for; nil: for none
	loopback  bool          // it leads to loopback addresses alone
	bare      bool          // without a handshake: the way into a cluster that has no authority
}

// ways are those that a candidate has, the best first:
//
//   - with the certificate of the node that it is, if it comes back as another incarnation;
//   - with a token;
//   - with nothing, over TLS to loopback addresses, where that may be enough;
//   - with nothing and bare, as it was before clusters had authorities.
func (c *Candidate) ways(req Request) (ways []*way, err error) {
	own := c.cfg.Keyring.Credentials()
	if c.identity.Rejoin && own != nil {
		cfg := transport.Config{Local: c.identity.Peer(), Cluster: c.identity.Cluster}
		w := &way{name: "with the node's certificate"}
		if err := c.open(w, cfg, own.Client(nil), req); err != nil {
			return nil, err
		}
		ways = append(ways, w)
	}
	nobody := transport.Config{Local: transport.Peer{Incarnation: c.identity.Incarnation}}
	asking := req
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	if asking.Certificate, err = identity.NewRequest(key); err != nil {
		return nil, err
	}
	if c.token != nil {
		asking.Token, asking.Secret = c.token.ID, c.token.Secret
		w := &way{name: "with a token", key: key}
		return append(ways, w), c.open(w, nobody, c.token.Client(nil), asking)
	}
	local := &way{name: "over loopback", key: key, loopback: true}
	if err := c.open(local, nobody, identity.Unpinned(nil), asking); err != nil {
		return nil, err
	}
	bare := &way{name: "without a token", bare: true}
	return append(ways, local, bare), c.open(bare, nobody, nil, req)
}

// open has a way lead somewhere: by handshakes with tlsConfig, or bare.
func (c *Candidate) open(w *way, cfg transport.Config, tlsConfig *tls.Config, req Request) (err error) {
	if w.request, err = json.Marshal(req); err != nil {
		return err
	}
	cfg.Address, cfg.Dialer, cfg.Logger, cfg.Guard = c.cfg.Advertise, c.cfg.Dialer, c.cfg.Logger, keyring.Asking{TLS: tlsConfig}
	w.transport = transport.New(cfg)
	return nil
}

// leads reports whether it can be asked at an address.
func (w *way) leads(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err != nil || !w.loopback || identity.LoopbackHost(host)
}

// last reports whether an error ends the asking: a cluster that says, to who came without
// anything, that it takes a token, says so the next time too. On loopback it was perhaps not
// ready for the better way.
func (w *way) last(addr string, err error) bool {
	host, _, splitErr := net.SplitHostPort(addr)
	return w.bare && splitErr == nil && !identity.LoopbackHost(host) && errors.Is(err, transport.ErrStranger)
}

// become makes the candidate what an answer says that it is.
func (c *Candidate) become(w *way, answer Answer) error {
	if w.key != nil && len(answer.Certificate) > 0 {
		own, err := identity.NewMember(w.key, answer.Certificate, answer.Authorities, time.Now())
		if err != nil {
			return err
		}
		want := identity.Name{Cluster: answer.Cluster, Node: answer.Node, Incarnation: c.identity.Incarnation}
		if own.Name != want {
			return errors.New("it gave this node the certificate of node " + own.Name.String() + ", not of node " + want.String())
		}
		if err := c.cfg.Keyring.Take(own); err != nil {
			return err
		}
	}
	c.identity.Cluster, c.identity.Node, c.identity.Rejoin = answer.Cluster, answer.Node, false
	c.others = answer.Peers
	return nil
}
