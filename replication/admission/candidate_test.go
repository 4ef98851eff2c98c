package admission

import (
	"strings"
	"testing"

	"millrace/replication/folder"
)

// Who listens before it founds a cluster hears of those that there may be: what a stranger says
// instead keeps nobody from founding one, and is in no error that people read.
func TestAListenerHearsOfClusters(t *testing.T) {
	l := listener{foreign: make(chan string, 1)}
	id := folder.NewClusterID()
	for _, said := range []string{"", "other", id[1:], id + "A", id + "\n", id[:4] + "\r\n" + id[4:], "\x1b[2J" + id[4:], strings.Repeat("A", 64), "-" + id[1:]} {
		if l.Foreign(said); len(l.foreign) > 0 {
			t.Errorf("%q is heard", <-l.foreign)
		}
	}
	for range 2 { // the first is enough, and the next waits for nobody
		l.Foreign(id)
	}
	if got := <-l.foreign; got != id {
		t.Errorf("%q is heard, not %q", got, id)
	}
}
