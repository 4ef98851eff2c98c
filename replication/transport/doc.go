// Package transport carries the messages of all Raft groups of a node, and calls
// from node to node, over three connections a peer.
//
// A Transport is a node's; a Port is one group's raft.Transport on it. What a transport
// needs of its node are the interfaces of Config: a Guard has them prove it, a Membership
// knows who peers are, an
// Observer hears of them, a Handler serves calls, Entries know what appends carry. What a
// port needs of its group is Member.
//
// # Connections
//
// Each side of a pair of nodes dials its own connections, sends requests on them and
// receives the answers there. Answers come in any order and are told apart by request id,
// so that no group waits for another's. There are three, for what is small and urgent
// (control), for entries (data) and for what is large (bulk), so that nothing waits for
// what is larger: a vote is not behind 4 MiB of entries, nor those behind a snapshot. A
// fourth kind (once) is for a single call, of a node that is not a member yet, say.
//
// A connection is dialled when somebody needs it, or SetPeers holds the peer; data and
// bulk bring the control connection with them, whose pings watch over all three. Dials
// that fail are 50 ms to 1 s apart. A peer that dials us ends that wait.
//
// # The way of a request
//
//	Raft ─▶ Port ─▶ client.do ─▶ writer ══ connection ══▶ served ─▶ inbox ─▶ Raft
//	Raft ◀─ Port ◀─ client.read ◀═════════ connection ══ writer ◀─ replier ◀─┘
//
// Payloads are referenced on the way out, never copied, and joined by writev; on the way
// in they are read once, into the memory that Raft is given. The frame's checksums are
// compared before anything is believed.
//
// # Bounds
//
//	requests of a group, until answered      32, and 16 MiB of entries (Limits)
//	requests of all groups and calls         128 MiB of what they carry
//	calls that run, a connection             64 on control, 8 on bulk, 1 on once
//	snapshots that are installed, a group    1
//	answers to a peer that does not read     64 MiB, then its connection is closed; an answer
//	                                         to a call waits for room from 16 MiB on
//	requests to a peer that does not read    one for each that waits for its answer; who
//	                                         gives up takes it back
//	memory for a frame that has begun        128 KiB, and 3 bytes for each that came
//	connections                              4,096, a quarter of which strangers
//	events for the Observer                  none: they are no more than handshakes, and each counts
//
// Who finds no place is told so at once (busy), and Raft tries again.
//
// # Who waits for what
//
//	served.run      the peer to send. Never for a group, a handler or a disk
//	writer.run      the peer to read: 10 s, and a second for each 32 KiB
//	client.read     the peer to answer. It wakes who waits and goes on
//	inbox.pump      its group's Raft to take a request, until the sender gives up, and
//	                to answer it, as long as that takes
//	handle, install the Handler, the Member
//	report          the Observer, which must not block
//	monitor         nobody
//	Raft's own      Port's methods: see quiescing, peer.reach and Timers.Timeout
//
// So a group whose disk hangs fills its own inbox and nothing else; a peer that does not
// read holds up one writer, and those who wait for answers from it; one that sends slowly
// holds up its own connection. A line that is too slow for appends in time gets smaller
// ones: peer.limit. What is silent is closed, so that nobody waits for it.
//
// A group has no goroutine here while nothing waits for it, and costs no timer: idle ones
// are quiesced, which the comment at the top of quiesce.go explains.
//
// # Timers
//
// They are a node's to choose (Timers), and must go together. Package raftgroup has
// Raft's beside them, and a test that holds all to it.
//
//   - PingInterval is several times in PeerTimeout, so that one lost ping is no death. A
//     process that finds its own tick late by a third of PeerTimeout was paused itself, and
//     buries nobody.
//   - PeerTimeout is below Timeout: who died is known before an append to it times out, and
//     one that does time out is the group's fault, or the line's. The kernel is told to give
//     up after PeerTimeout, too, on what it sent and is not acknowledged.
//   - GatherInterval, plus the 5 ms that answers wait for each other, is far below Raft's
//     lease: it is added to each heartbeat. Appends for whose answers new entries would wait
//     are not gathered, for a second after the last ones.
//   - Quiesce, PingInterval and GatherInterval together are below Raft's lease, since an
//     append that is held goes at the last ping before its time.
//   - DialTimeout bounds what whoever joins a listener's full queue may wait in it.
//   - An append to a server that is away waits for it, up to a minute: reachFor.
//
// # Evidence
//
// A connection of kind 1 to 3, in either direction, is evidence that its peer
// lives. When a process dies the kernel closes its connections at once, those it
// dialled and those it accepted, and when the last of them is gone the peer is
// reported down. One that keeps its connections but says nothing for PeerTimeout (a paused
// process, a cut cable) has them closed and is down as well. Pings on the control
// connections give an idle peer something to say. A session number in the handshake tells
// a process from the one before it under the same name.
//
// # What a peer is believed
//
// A connection comes to Serve, and from a dial, with what the other end has proved by its
// certificate (package identity); Config.Guard says with whom that may be nothing. A hello
// and its acknowledgement that say another cluster, node or incarnation than the certificate
// are refused, on connections of all kinds. Who comes to join has one of kind 4. What a
// member is asked beyond that, since it may be an old one, a copy, or broken:
//
//   - The cluster's id, in every handshake but of kind 4, where the caller is nobody
//     whatever it says, and OriginOf tells what it has proved. What Membership.Judge knows
//     against it, on kinds 1 to 3.
//   - That no other process speaks under its name. One that does is not replaced: it would
//     be reported dead on its word.
//   - Terms that elections can have made since the group last heard of one: see maxJump.
//   - Messages that Raft survives. It takes for committed whatever lies below
//     min(LeaderCommitIndex, its own last index), so the commit index is cut to the last
//     entry that a request carries, or matches. It panics on a configuration that does not
//     decode and on unknown types of entry, stores entries out of order if told so, and
//     takes the sender's name from the message, which here is the handshake's. All of it is
//     checked on the receiving side, before a message is queued; what is in an entry's data
//     is Entries.Check's to judge, in the same place.
//
// A frame that breaks a rule ends its connection, a request that does is answered so. A
// panic while one is read costs its connection, and the process nothing.
//
// # Format
//
// All integers are big-endian; CRC is CRC-32C (Castagnoli). A connection begins
// with a hello of the dialling side, which the other answers with an
// acknowledgement. A string is a u16 length and that many bytes. The kinds of connection
// are
//
//	1 control   pings, heartbeats, votes, small calls
//	2 data      appends with entries
//	3 bulk      snapshots, large calls
//	4 once      a single call, possibly of a node that is not a member yet
//
//	hello                                     acknowledgement
//	 0  magic    "MLRC"                        0  magic    "MLRC"
//	 4  version  u8, lowest spoken: 1          4  version  u8, lowest spoken: 1
//	 5  kind     u8, 1 to 4                    5  status   u8, below
//	 6  length   u16 of the body, <= 1024      6  length   u16 of the body, <= 1024
//	 8  crc      u32 of [0,8) and body         8  crc      u32 of [0,8) and body
//	12  session  u64, random, one a process   12  session  u64
//	20  node     i32, who calls; 0: joining   20  node     i32, who answers
//	24  target   i32, who is meant; 0: any    24  cluster      string, <= 64
//	28  cluster      string, <= 64             .  incarnation  string, <= 64
//	 .  incarnation  string, <= 64             .  reason       string, <= 200
//	 .  target's incarnation  string, <= 64; empty: any
//	 .  address  string, <= 270, where         .  highest version  u8
//	             the caller listens            .  about  string, <= 128
//	 .  highest version  u8                     .  at     u64, of status 10: the metadata
//	 .  about    string, <= 128: of itself                change at which it is known
//
// Bytes of a body behind the fields above are ignored, and the last two may be
// missing, as in the first release: the highest version is then the lowest. These
// fields stay where they are in all versions. A connection speaks the highest version
// that both sides know; without one it is refused. Kinds 1 to 3 need a node
// id, an incarnation and a cluster id, equal on both sides. An acknowledgement tells
// session, incarnation and about only to who was let in with one of them. Status is
// 0 welcome, 1 version, 2 cluster, 3 node, 4 incarnation, 5 malformed, 6 closing, 7 you
// called yourself, 8 no member, 9 your data folder is an old copy, 10 another incarnation
// has your place; all but 0 are
// refusals, after which the connection is closed. Behind
// a welcome both directions are a sequence of frames:
//
//	 0  head length     u32
//	 4  payload length  u32
//	 8  type            u8
//	 9  reserved        3 bytes, zero
//	12  timeout         u32, milliseconds the sender waits; 0 in answers: none, in requests: 10 s
//	16  request         u64, chosen by the sender, repeated in the answer
//	24  head CRC        u32 of [0,24) and the head
//	28  payload CRC     u32 of the payload; 0 without one
//	32  head, then payload
//
// Types, the connections they may travel on, and their heads. Requests go from the
// dialling side, answers (*) the other way. flags are bit sets from the lowest bit.
//
//	 1  ping               control, data, bulk    no head
//	 2  pong *                                    no head
//	 3  heartbeats         control
//	       0  count        u32, 0 to 4096
//	       4  reserved     u32
//	       8  count times
//	           0  group          u64
//	           8  term           u64, 1 to 2^31-1
//	          16  previous index u64
//	          24  previous term  u64, at most term; 0 exactly if the index is
//	          32  commit index   u64, at most previous index
//	 4  heartbeat answers *
//	       0  count        u32
//	       4  reserved     u32
//	       8  count times; several frames may answer one, each for some of its groups
//	           0  position   u32, in the heartbeats frame
//	           4  code       u8, below; 0: answered
//	           5  flags      u8: success, no retry backoff
//	           6  reserved   u16
//	           8  term       u64
//	          16  last index u64
//	 5  append             data
//	       0  group        u64
//	       8  term         u64
//	      16  previous index u64
//	      24  previous term  u64
//	      32  commit index u64, at most previous index + count
//	      40  count        u32, 1 to 1024
//	      44  reserved     u32
//	      48  count times, of the entries behind the previous index
//	           0  term              u64, from the previous entry's to the request's
//	           8  data length       u32; of a configuration at most 64 KiB
//	          12  extensions length u16
//	          14  type              u8: 0 command, 1 noop, 4 barrier, 5 configuration
//	          15  reserved          u8
//	       payload: each entry's data and extensions in turn, at most 256 MiB
//	 6  append answer *
//	       0  term         u64
//	       8  last index   u64
//	      16  flags        u8: success, no retry backoff
//	      17  reserved     7 bytes
//	 7  vote               control
//	       0  group        u64
//	       8  term         u64
//	      16  last index   u64
//	      24  last term    u64, below term
//	      32  flags        u8: leadership transfer
//	      33  reserved     7 bytes
//	 8  vote answer *
//	       0  term         u64
//	       8  flags        u8: granted
//	       9  reserved     7 bytes
//	 9  pre-vote           control; as vote, without flags
//	10  pre-vote answer *  as vote answer
//	11  timeout now        control
//	       0  group        u64
//	12  timeout now answer *  no head
//	13  snapshot           bulk
//	       0  group        u64
//	       8  term         u64
//	      16  last index   u64
//	      24  last term    u64
//	      32  configuration index   u64
//	      40  configuration length  u32, at most 64 KiB
//	      44  version      u8 = 1
//	      45  reserved     19 bytes
//	       payload: the configuration, then the data, at most 16 MiB
//	14  snapshot answer *
//	       0  term         u64
//	       8  flags        u8: success
//	       9  reserved     7 bytes
//	15  call               control, bulk, once
//	       0  kind         u8, the callers' own
//	       1  reserved     7 bytes
//	       payload: the request, at most 1 MiB, on bulk 16 MiB + 64 KiB
//	16  call answer *      no head; payload: the answer, limited alike
//	17  failure *          answers any request but ping
//	       0  code         u8
//	       1  reserved     7 bytes
//	       8  text         the rest, at most 1 KiB
//
// Codes are 1 busy, 2 unknown group, 3 expired, 4 invalid, 5 closing,
// 6 unsupported, 7 an error of Raft, 8 an error of the call's handler. A request
// that breaks a rule above is answered with 4; a frame that does (its type, its
// lengths, its checksums, its reserved bytes) ends the connection. Reserved bytes
// of heads are written as zero and, unless said otherwise, not looked at. An
// answer to a request that is not waited for is skipped.
package transport
