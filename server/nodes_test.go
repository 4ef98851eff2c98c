package server

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/transport"
)

// What nodes say to each other means nothing on a connection of a client's, one that is at work
// least of all: a hello is a frame of a gigabyte, and frames are requests of no version there
// is. Either ends the connection, and the metadata is what it was.
func TestNothingOfNodesIsHeardFromClients(t *testing.T) {
	b := startBroker(t, nil)
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	hello := append([]byte(transport.Magic), 1, 1, 0, 30)
	hello = binary.BigEndian.AppendUint32(hello, crc32.Checksum(append(hello[:8:8], make([]byte, 30)...), castagnoli))
	sent := [][]byte{append(hello, make([]byte, 30)...)}
	for typ := range byte(18) {
		for _, head := range []int{0, 8, 40, 48, 64} {
			f := make([]byte, 24, 32)
			binary.BigEndian.PutUint32(f, uint32(head))
			f[8] = typ
			f = binary.BigEndian.AppendUint32(f, crc32.Checksum(append(f[:24:24], make([]byte, head)...), castagnoli))
			f = append(f, 0, 0, 0, 0)
			sent = append(sent, append(f, make([]byte, head)...))
		}
	}
	before := b.node.Image()
	for _, p := range sent {
		w := b.dial()
		if got := ask[*kmsg.ApiVersionsResponse](w, kmsg.NewPtrApiVersionsRequest()); len(got.ApiKeys) == 0 {
			t.Fatalf("%+v", got)
		}
		w.write(p)
		w.closed()
		w.conn.Close()
	}
	if after := b.node.Image(); after != before {
		t.Errorf("the metadata was at change %d, and is at %d", before.Index, after.Index)
	}
}
