package keyring

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"millrace/replication/controller"
	"millrace/replication/folder"
	"millrace/replication/identity"
	"millrace/replication/metadata"
	"millrace/replication/transport"
)

// Ask makes a call to the node that runs in a data folder, with the certificate that lies
// there: whoever can read the folder may do whatever the node may. It is how the command
// line asks for what Kafka's protocol has no request for, so that no listener for clients has
// to serve it, whatever it asks of them.
//
// A node that was just started has a folder before it has a certificate: it is waited for.
func Ask(ctx context.Context, dataDir string, kind uint8, req []byte) ([]byte, error) {
	var own *identity.Credentials
	var self *metadata.Broker
	err := AwaitFolder(ctx, dataDir, func() (err error) {
		own, self, err = reach(folder.Folder{Dir: dataDir})
		return err
	})
	if err != nil {
		return nil, err
	}
	t := transport.New(transport.Config{
		Local: transport.Peer{Node: own.Name.Node, Incarnation: own.Name.Incarnation}, Cluster: own.Name.Cluster,
		Guard: Asking{own.Client(nil)},
	})
	defer t.Close()
	answer, err := t.CallAddr(ctx, net.JoinHostPort(self.Host, strconv.Itoa(int(self.Port))), kind, req)
	var told *transport.RemoteError
	if errors.As(err, &told) {
		return nil, errors.New(told.Message)
	}
	return answer, err
}

// AwaitFolder calls look until it finds in a data folder what it looks for, for as long as a
// node takes that was just started. It returns look's last error, at once if the folder is
// empty or not there.
func AwaitFolder(ctx context.Context, dataDir string, look func() error) error {
	err := look()
	for begun := time.Now(); err != nil && time.Since(begun) < startsWithin; err = look() {
		if there, _ := os.ReadDir(dataDir); len(there) == 0 {
			break
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return err
		}
	}
	return err
}

const (
	startsWithin = 5 * time.Second // a node that founds a cluster listens for others first
	lookEvery    = 100 * time.Millisecond
)

// reach is who a folder's node is, and where.
func reach(f folder.Folder) (*identity.Credentials, *metadata.Broker, error) {
	last, err := controller.LastImage(f.Path(folder.MetaName))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: no node has run in this folder, or this is not its user (--data-dir names another): %w", f.Dir, err)
	}
	own := Open(f, slog.New(slog.DiscardHandler)).own
	if own == nil {
		return nil, nil, fmt.Errorf("%s: %w", f.Dir, ErrNoCertificate)
	}
	self, registered := last.Broker(own.Name.Node)
	if !registered {
		return nil, nil, fmt.Errorf("%s: node %s is not in the cluster's metadata", f.Dir, own.Name)
	}
	return own, self, nil
}

// Asking is the Guard of who dials in one way, and is not dialled.
type Asking struct{ TLS *tls.Config }

// Dial implements transport.Guard.
func (a Asking) Dial(transport.Peer) (*tls.Config, bool) { return a.TLS, false }

// Bare implements transport.Guard.
func (Asking) Bare(transport.Peer, bool) error { return transport.ErrStranger }
