package transport

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/frames.txt anew")

// The bytes on the wire are those of testdata/frames.txt, which doc.go explains.
// A change here is a change of version.
func TestFramesAreAsWritten(t *testing.T) {
	var b strings.Builder
	put := func(name string, p []byte) { fmt.Fprintf(&b, "%s\n%s\n", name, hex.Dump(p)) }
	sealed := func(frame []byte, timeout time.Duration, payload ...[]byte) []byte {
		seal(frame, 0x0102030405060708, timeout)
		return append(frame, bytes.Join(payload, nil)...)
	}
	put("hello", hello{
		kind: kindControl, low: 1, high: 1, session: 0x1112131415161718, from: Peer{2, "b"}, target: Peer{1, "a"},
		cluster: "cluster", address: "host:9092",
	}.encode())
	put("acknowledgement", ack{
		status: statusIncarnation, low: 1, high: 1, session: 0x2122232425262728, from: Peer{1, "a"}, cluster: "cluster", reason: "no",
	}.encode())
	for typ := typePing; typ < types; typ++ {
		switch typ {
		case typePong:
			frame, _ := newFrame(typ, 0)
			put("pong", sealed(frame, 0))
		case typeHeartbeatAnswers:
			put("heartbeat answers", sealed(putBeatAnswers([]beatAnswer{{index: 1, flags: flagSuccess, term: 3, lastLog: 5}, {index: 0, code: codeBusy}}), 0))
		case typeAppendAnswer:
			put("append answer", sealed(putAppendAnswer(&raft.AppendEntriesResponse{Term: 3, LastLog: 9, Success: true, NoRetryBackoff: true}), 0))
		case typeVoteAnswer, typePreVoteAnswer:
			put("vote or pre-vote answer", sealed(putVoteAnswer(typ, 3, true), 0))
		case typeTimeoutNowAnswer:
			frame, _ := newFrame(typ, 0)
			put("timeout now answer", sealed(frame, 0))
		case typeSnapshotAnswer:
			put("snapshot answer", sealed(putSnapshotAnswer(&raft.InstallSnapshotResponse{Term: 3, Success: true}), 0))
		case typeCallAnswer:
			frame, _ := newFrame(typ, 0)
			setPayload(frame, []byte("answer"))
			put("call answer", sealed(frame, 0, []byte("answer")))
		case typeFailure:
			put("failure", sealed(putFailure(codeHandler, "no"), 0))
		default:
			name := map[uint8]string{
				typePing: "ping", typeHeartbeats: "heartbeats", typeAppend: "append", typeVote: "vote", typePreVote: "pre-vote",
				typeTimeoutNow: "timeout now", typeSnapshot: "snapshot", typeCall: "call",
			}[typ]
			frame, payload := frameOf(typ)
			put(name, sealed(frame, 10*time.Second, payload...))
		}
	}
	const file = "testdata/frames.txt"
	if *rewrite {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the frames are not those of %s; now:\n%s", file, b.String())
	}
}

// A configuration may declare a billion servers, or nest as deep as it is long.
func TestConfigurationTakesNoMoreThanItsBytes(t *testing.T) {
	for name, b := range map[string]string{
		"2^32-1 servers":     "\x81\xa7Servers\xdd\xff\xff\xff\xff",
		"2^32-1 fields":      "\xdf\xff\xff\xff\xff",
		"2^32-1 bytes of id": "\x81\xa7Servers\x91\x81\xa2ID\xdb\xff\xff\xff\xff",
		"deep nesting":       "\x81\xa1x" + strings.Repeat("\x91", maxConfig-3),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if checkConfiguration([]byte(b)) == nil {
			t.Errorf("%s: accepted", name)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20+16*uint64(len(b)) {
			t.Errorf("%s: %d bytes allocated for %d", name, got, len(b))
		}
	}
}
