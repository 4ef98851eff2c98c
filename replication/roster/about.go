package roster

import (
	"encoding/binary"
	"fmt"

	"millrace/replication/metadata"
	"millrace/replication/transport"
)

// An About is what a node says about itself in each handshake between nodes:
//
//	lowest feature level u16 · highest u16 · age u64 · run, the rest: 16 hex digits
//
// and in gossip too, as the age grows. Nodes of the first release say nothing.
type About struct {
	Low, High int32
	Age       uint64 // of its data folder
	Run       string // random, of the process
}

// of is what a says, as the image would have it of the node that says it.
func (a About) of(p transport.Peer) *metadata.Broker {
	return &metadata.Broker{Incarnation: p.Incarnation, Starts: a.Age, Run: a.Run}
}

// Encode returns what is sent.
func (a About) Encode() string {
	p := binary.BigEndian.AppendUint16(nil, uint16(a.Low))
	p = binary.BigEndian.AppendUint16(p, uint16(a.High))
	return string(binary.BigEndian.AppendUint64(p, a.Age)) + a.Run
}

// decodeAbout reads it.
func decodeAbout(s string) (About, error) {
	if s == "" {
		return About{Low: 1, High: 1}, nil
	}
	if len(s) < 12 {
		return About{}, fmt.Errorf("roster: a peer says %d bytes about itself, at least 12", len(s))
	}
	p := []byte(s)
	return About{
		Low: int32(binary.BigEndian.Uint16(p)), High: int32(binary.BigEndian.Uint16(p[2:])),
		Age: binary.BigEndian.Uint64(p[4:]), Run: s[12:],
	}, nil
}
