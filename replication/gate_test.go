package replication

import (
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"millrace/replication/controller"
	"millrace/replication/metadata"
	"millrace/segment/record"
	"millrace/segment/record/recordtest"
)

// A replica that a peer sends bytes instead of a batch to refuses them, goes on, and
// the process with it.
func TestAppendOfOneByteEndsNothing(t *testing.T) {
	c, id, gone, who, starts := threeWithARecord(t)
	defer c.stop()
	n, p := c.leader(id)
	s := c.inTheNameOf(gone, who, starts, n, dataConn)
	r := n.replicaOf(p.Group())
	last, term := r.Raft.LastIndex(), r.Raft.CurrentTerm()
	for _, data := range [][]byte{{1}, make([]byte, 20), stampedAt(-1, term, "a")} {
		head, payload := appendFrame(p.Group(), term, last, term, 0, &raft.Log{Term: term, Data: data})
		if typ, head, payload, err := s.ask(5, head, payload); typ != 17 || head[0] != 4 {
			t.Fatalf("an append of %d bytes: %s; want failure 4, invalid", len(data), describe(typ, head, payload, err))
		}
	}
	c.stillWorks(id)
}

// The controllers' group is sent changes of metadata.
func TestGateLetsInOnlyChangesThatCanBeRead(t *testing.T) {
	for _, c := range []struct {
		name, data, ext string
		want            string // part of the error; "": let in
	}{
		{name: "a change", data: `{"v":1,"change":"DeleteTopic","body":{}}`},
		{name: "a change of a newer release", data: `{"v":9,"change":"Fly","body":{"how":1}}`},
		{name: "no change", data: "\x01", want: "cannot be read"},
		{name: "a change with extensions", data: `{"v":1,"change":"DeleteTopic","body":{}}`, ext: "\x01", want: "extensions"},
	} {
		err := gate{}.Check(controller.Group, &raft.Log{Index: 9, Term: 3, Data: []byte(c.data), Extensions: []byte(c.ext)})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// FuzzControllerEntries applies whatever the gate lets in to an image.
func FuzzControllerEntries(f *testing.F) {
	f.Add([]byte(`{"v":1,"change":"RegisterBroker","body":{"Broker":{"ID":1,"Incarnation":"a","Host":"h","Port":1},"ClusterID":"c"}}`))
	f.Add([]byte(`{"v":1,"change":"CreateTopic","body":{"Name":"t","Assignment":[[1]]}}`))
	f.Add([]byte(`{"v":2,"change":"Fly","body":{}}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		if (gate{}).Check(controller.Group, &raft.Log{Index: 1, Term: 1, Data: p}) != nil {
			if _, err := metadata.DecodeChange(p); err == nil {
				t.Error("the gate refuses a change that can be read")
			}
			return
		}
		change, err := metadata.DecodeChange(p)
		if err != nil {
			return
		}
		if next, err := (&metadata.Image{}).Apply(1, change); err == nil {
			if _, err := metadata.DecodeImage(next.Encode()); err != nil {
				t.Errorf("an image that was made by %s cannot be read: %v", p, err)
			}
		}
	})
}

// stampedAt is a batch as a leader of the term has stored it.
func stampedAt(offset int64, term uint64, values ...string) record.Batch {
	b := recordtest.Values(values...)
	b.Assign(offset, int32(term))
	return b
}
