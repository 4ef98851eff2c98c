//go:build unix

package certificate

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"millrace/security/certificate/certificatetest"
)

// While one handshake waits for a disk that does not answer, others go on with what there is.
func TestASlowDiskHoldsUpOneHandshake(t *testing.T) {
	a := certificatetest.NewAuthority(t)
	cert, key := a.Issue(t, "broker", time.Hour)
	path := filepath.Join(t.TempDir(), "broker.pem")
	if err := os.WriteFile(path, []byte(cert+key), 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var passed atomic.Int64
	s, err := New(Config{Certificate: path, Now: func() time.Time { return began.Add(time.Duration(passed.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	first := s.current()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil { // who opens it waits for somebody who writes
		t.Fatal(err)
	}
	passed.Store(int64(lookEvery))
	looked := make(chan struct{})
	go func() {
		s.current()
		close(looked)
	}()
	for reads := false; !reads; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		reads = s.reads
		s.mu.Unlock()
	}
	passed.Store(10 * int64(lookEvery)) // it takes long
	if s.current() != first {
		t.Error("another configuration, while the files are read")
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	<-looked
	if s.current() != first {
		t.Error("what could not be read is shown")
	}
}
