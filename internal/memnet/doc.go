// Package memnet is a network in memory, for tests of several nodes in one process.
//
// A [Network] joins hosts. A host is a name, which is also the address that it listens
// at; there are no ports. Nothing runs between its calls but timers, so that a cluster on
// it lives in the virtual time of testing/synctest, and nothing of it is left when its
// connections are closed.
//
//	n := memnet.New()
//	l, err := n.Listen("one")
//	conn, err := n.Dial(ctx, "two", "one")
//	n.Set("one", "two", memnet.Held) // what "one" sends does not arrive
//	n.Heal()                         // now it does
//
// Connections are like those of TCP, and unlike those of net.Pipe: a write returns when
// its bytes are in the buffer of its direction, and waits only while that is full. What
// was written before Close or CloseWrite arrives, and its end behind it. A read or write
// whose deadline is over fails, whatever has arrived. Who writes to an end that is closed
// and has said so loses the first write, and finds the connection reset by the next.
//
// Each direction between two hosts has a [Way], which [Network.Set] changes:
//
//	          dialing          what is sent                the connections
//	Open      succeeds         arrives at once, in order   stay
//	Stalled   succeeds         waits                       stay
//	Held      waits            waits                       stay
//	Lost      waits            is lost, and its end too    are deaf for good
//	Severed   is refused       fails                       are reset
//
// To dial takes both directions, and the worse of the two counts. Stalled is a process
// that is paused, whose kernel still answers for it; Held a cable that is pulled out and
// put back; Lost a cut in which packets are given up, after which a connection has a hole
// and delivers nothing more; Severed a firewall that answers with resets, to both ends
// whichever direction is severed.
//
// What happens to a host: [Network.Kill] ends it as a kernel ends a process, with a word
// to everybody it was connected to; [Network.Vanish] as a power cut does, without one.
// A [Carrier] is for a test that delays, repeats or loses single messages of a
// connection.
package memnet
