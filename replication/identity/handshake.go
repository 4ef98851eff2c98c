package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// What nodes ask for by ALPN. See the package's comment.
const (
	Sealed = "millrace/1"
	Bare   = "millrace-bare/1"
	Join   = "millrace-join/1"
)

// goOn is the byte that a server sends when both sides are to go on without TLS.
const goOn = 1

// A Proof is what is known of the other end of a connection. The zero Proof is that of one
// who has shown nothing.
type Proof struct {
	Protocol string // what was agreed on; "": there was no handshake
	Name     Name   // of Sealed and Bare: whom the certificate names
}

// Certified reports whether the other end has shown that it is the node it is named.
func (p Proof) Certified() bool { return p.Protocol == Sealed || p.Protocol == Bare }

// IsNode reports whether a client that offers these protocols is a node, or wants to be one.
func IsNode(protocols []string) bool {
	return slices.ContainsFunc(protocols, func(p string) bool { return p == Sealed || p == Bare || p == Join })
}

// base is what both sides of every handshake have in common. Names are not those of hosts,
// and authorities change: certificates are looked at by VerifyConnection alone.
func base(now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
		Time: now, InsecureSkipVerify: true,
	}
}

// serverSuffix ends the name of the server that a node asks for, behind its cluster's id.
const serverSuffix = ".cluster.millrace"

// ClusterOf tells of which cluster a node is that has begun a handshake; "" if it does not
// say so. It is no secret, and proves nothing.
func ClusterOf(hello *tls.ClientHelloInfo) string {
	cluster, ok := strings.CutSuffix(hello.ServerName, serverSuffix)
	if !ok {
		return ""
	}
	return cluster
}

// clock is now, for a handshake that is under way.
func clock(now func() time.Time) time.Time {
	if now != nil {
		return now()
	}
	return time.Now()
}

// Client is how a node dials another of its cluster.
func (c *Credentials) Client(now func() time.Time) *tls.Config {
	cfg := base(now)
	cfg.ServerName = c.Name.Cluster + serverSuffix
	cfg.Certificates = []tls.Certificate{c.own}
	cfg.VerifyConnection = verifier{c, now}.connection
	return cfg
}

// Server is how a node answers a handshake that another begins: one for Join from anybody,
// others from those of its cluster.
func (c *Credentials) Server(hello *tls.ClientHelloInfo, now func() time.Time) *tls.Config {
	cfg := base(now)
	cfg.Certificates = []tls.Certificate{c.own}
	if slices.Contains(hello.SupportedProtos, Join) {
		cfg.NextProtos = []string{Join}
		return cfg
	}
	cfg.NextProtos = offer(hello.Conn)
	cfg.ClientAuth = tls.RequireAnyClientCert // which VerifyConnection judges
	cfg.VerifyConnection = verifier{c, now}.connection
	return cfg
}

// A verifier judges the other side of a handshake of members.
type verifier struct {
	*Credentials
	now func() time.Time
}

// connection implements tls.Config.VerifyConnection.
func (v verifier) connection(state tls.ConnectionState) error {
	_, name, err := v.verify(state.PeerCertificates, clock(v.now))
	if err == nil && name.Cluster != v.Name.Cluster {
		err = fmt.Errorf("identity: the certificate is that of node %s, this is cluster %s", name, v.Name.Cluster)
	}
	return err
}

// offer is what members ask for, and agree to, over a connection.
func offer(conn net.Conn) []string {
	if Loopback(conn) {
		return []string{Bare, Sealed}
	}
	return []string{Sealed}
}

// Loopback reports whether both ends of a connection are loopback addresses.
func Loopback(conn net.Conn) bool {
	return loopback(conn.LocalAddr()) && loopback(conn.RemoteAddr())
}

func loopback(addr net.Addr) bool {
	if addr == nil {
		return false
	}
	at, err := netip.ParseAddrPort(addr.String())
	return err == nil && at.Addr().Unmap().IsLoopback()
}

// LoopbackHost reports whether a host, a name or an address, can only be this machine.
func LoopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	at, err := netip.ParseAddr(host)
	return err == nil && at.Unmap().IsLoopback()
}

// Dial shakes hands on a connection that was just dialled, and returns what goes on over it.
// cfg is of Credentials.Client or Token.Client. ctx ends the handshake; conn is the caller's
// to close after an error.
func Dial(ctx context.Context, conn net.Conn, cfg *tls.Config) (net.Conn, Proof, error) {
	if len(cfg.NextProtos) == 0 {
		cfg = cfg.Clone()
		cfg.NextProtos = offer(conn)
	}
	records := &Records{Conn: conn}
	secure := tls.Client(records, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, Proof{}, fmt.Errorf("TLS handshake: %w", err)
	}
	proof, err := proofOf(secure)
	if err != nil {
		return nil, Proof{}, err
	}
	if proof.Protocol != Bare {
		records.Open()
		return sealed{secure, conn}, proof, nil
	}
	var answer [1]byte
	if _, err := secure.Read(answer[:]); err != nil {
		return nil, Proof{}, fmt.Errorf("TLS handshake: %w", err)
	}
	if answer[0] != goOn {
		return nil, Proof{}, fmt.Errorf("identity: a node sent %#x to go on without TLS, want %#x", answer[0], goOn)
	}
	return conn, proof, nil
}

// Accept returns what goes on over a connection whose handshake, by Credentials.Server, the
// other side has asked for by one of our protocols, and is done. secure must read through
// records.
func Accept(secure *tls.Conn, records *Records) (net.Conn, Proof, error) {
	proof, err := proofOf(secure)
	if err != nil {
		return nil, Proof{}, err
	}
	if proof.Protocol != Bare {
		records.Open()
		return sealed{secure, records.Conn}, proof, nil
	}
	if _, err := secure.Write([]byte{goOn}); err != nil {
		return nil, Proof{}, err
	}
	return records.Conn, proof, nil
}

// A sealed connection ends as one without TLS does, at once: a tls.Conn waits up to 5 s for
// a last word to be taken by another side that may be gone. What comes over it has lengths
// and checksums of its own, by which an end too early is known.
type sealed struct {
	*tls.Conn
	over net.Conn
}

// Close implements net.Conn.
func (s sealed) Close() error { return s.over.Close() }

func proofOf(secure *tls.Conn) (Proof, error) {
	state := secure.ConnectionState()
	p := Proof{Protocol: state.NegotiatedProtocol}
	switch p.Protocol {
	case Join:
		return p, nil
	case Sealed, Bare:
	default:
		return p, fmt.Errorf("identity: the other side speaks no protocol of nodes, but %q", p.Protocol)
	}
	if len(state.PeerCertificates) == 0 {
		return p, errors.New("identity: no certificate was shown")
	}
	var err error
	p.Name, err = NameOf(state.PeerCertificates[0])
	return p, err
}
