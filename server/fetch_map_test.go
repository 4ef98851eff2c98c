//go:build unix

package server

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// touching looks at every byte it is given, as TLS does.
type touching struct {
	nowhere
	sum *byte
}

func (c touching) Write(p []byte) (int, error) {
	for _, b := range p {
		*c.sum += b
	}
	return len(p), nil
}

// What encrypts copies, and a copy of a page that cannot be read faults: that
// costs the connection and not the process.
func TestAPageThatCannotBeReadEndsItsConnectionOnly(t *testing.T) {
	b := startBroker(t, nil)
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 4 << 20
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	mapped, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(mapped)
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	c := newConnection(b.server, touching{sum: new(byte)})
	defer c.close()
	for name, pieces := range map[string]net.Buffers{"small pieces": {[]byte("head"), mapped[4096:8192]}, "one large piece": {mapped}} {
		if err := c.write(nil, pieces, &c.share.client); err == nil || !strings.Contains(err.Error(), "cannot be read") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
