// Package controller is this node's member of the controllers' group: the Raft group whose
// log is the cluster's metadata. Every node has one. Its state machine is an image
// (metadata.Image), its entries are changes, and where a change stands in the log is which
// image it makes.
//
// # What acts at once
//
// A change is committed by the leader, Propose, and by any other node through it, Change: sent to
// the controller that is heard here, or to a node that hears it, which passes it on once. Who asked waits
// until its own image holds the change. A leader that is lost is replaced like a partition's
// (package failover); what it had under way has an outcome that is not known then, and says
// so. A node that cannot read a change, or an image, stops being a member there and then
// (Down), and goes on with the image it has: to skip one would give the next topic another's
// group. The disk of this log is slow to nobody else, so that a leader whose disk hangs is not
// told to stand down.
//
// # What patience remains
//
// While nobody leads, Change asks again every 20 ms until its context ends. What Raft was
// handed is waited for as long as the context says, and after that may still be committed. A
// vote or a term that cannot be saved is tried again for ever, from 10 ms on to once a
// second; while it waits this member neither votes nor leads. A suffix that was cut for
// entries which a full disk has no room for is filled in the same way; a disk that fails
// stops the member. The log's entries are sent again after 50 to 100 ms where they did not
// arrive, not after raftgroup.CommitTimeout: every node waits for the image. The last image is
// saved once a second at most, and with each snapshot, one every 1,024 entries.
//
// # Whose word counts for what
//
//	what the cluster is     the log, as far as it is committed. The last image, beside it, is an
//	                        earlier state of it: it is used at a start only if the log and
//	                        the snapshots reach it, and what led to it is applied again
//	                        to nothing
//	what is committed       Raft, and after a start the newest snapshot or last image: no leader
//	                        cuts what they hold from this log
//	a snapshot              its leader, if each thing in it can follow the image there is: the
//	                        cluster, the feature level, the last group, the index. It is judged
//	                        before Raft is given it, which would forget the log for it
//	who a broker is         itself: only the node may register it, also where another passes that on
//	whether a change was
//	refused                 metadata.Image.Apply, the same on every node
//
// # Its files
//
// The log and the votes are raft-boltdb's, behind a store that deletes nothing committed, ends
// a goroutine where Raft would panic, and gives no error where a write may have happened
// without undoing it first. Snapshots are Raft's own. A test puts
// something over the files by Config.Files, and reads changes as an older release by
// Config.Decoder.
package controller
