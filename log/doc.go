// Package log is one partition's log: an ordered list of segments with two doors. Raft's goes
// by index, and the log is its LogStore; Kafka's goes by offset. Every record is stored once.
//
//	offset   0              31        80     98        117      Kafka's: Read, OffsetAt, Drop …
//	         |==============|=========|------|---------|-----
//	index                             13     16        19       Raft's: GetLog, StoreLogs, DeleteRange …
//	         compacted                entries          active
//
// An entry is what Raft counts. A command holds whole batches and takes their offsets; every
// other entry takes none. What compaction has merged holds offsets and no entries, so only
// Kafka's door leads there.
//
// # Who decides what
//
// Only StoreLogs and WriteLogs add entries, only DeleteRange takes them off the end, only Drop
// takes them off the beginning; Compact rewrites what a snapshot covers, and Install replaces
// everything, of a log that is closed. Offsets are assigned when an entry is stored: a leader's
// StoreLogs stamps them into the batches before anybody else sees them, a follower's finds the
// same numbers there or refuses the entry.
//
// # How it is built
//
//	Log       the changes                          change.go, store.go, roll.go, retention.go, compact.go
//	contents  what readers see: a state, the cache  read.go, state.go, epoch.go, cache.go
//	folder    the manifest, and the files           folder.go, manifest.go, open.go
//	filter    what a compaction keeps of a batch    filter.go, keys.go
//	Staging   segments being pulled, and Install    stage.go
//
// How entries become frames is entries.go. What a file is, how it is read, appended to and
// recovered, is package segment's.
//
// # Who holds which lock for what
//
// Readers hold none. They load the state, an immutable list, and read its segments; if one was
// closed meanwhile because the list changed, they read again with the newer list. A view keeps
// its pages whatever becomes of the segment.
//
//	lock               held                                guards
//	Log.compaction     for all of one Compact              nothing: it lets one run at a time
//	Log.changing       by every change, through its waits  folder, cfg, unflushed, began, rolled
//	                   for the disk; by a compaction for
//	                   each new file, and for the switch
//	Reader.closing     while a segment's file syncs or     the answer of a sync that failed
//	                   closes
//	Reader.mu          for moments, by readers too         a segment's tables and mapping
//	Cache.mu, then     for moments                         entries stored last, of all logs
//	cacheRun.mu                                            and of one
//
// They are taken in this order, from the top, as far as one holds several. Flush takes closing
// alone: so a sync runs beside the append that follows, and callers that wait for the same one share it.
// state, failed, closed, committed and isFollower are atomic; only a change writes a state.
// Owner.LogFailed is called under whatever the change holds, LogRolled under nothing.
//
// # What is on disk when
//
//	when this returns    this survives a loss of power
//	WriteLogs            nothing new; it is in the page cache, and readers see it
//	Flush                what was stored before the call
//	StoreLogs            its entries, if one is no command or FlushMessages records are due
//	Reserve              nothing new; there is room for what comes next until the log is closed
//	Roll, RollIfDue      everything; the manifest has the ended segment's length
//	Checkpoint           everything; the manifest has the last segment's length so far
//	Drop                 the log start, and, if it moved, everything
//	DeleteRange          the end; the file keeps its bytes, and the next entry begins another
//	Compact              the new segments in place of the old
//	Install              the new log in place of the old
//	Close(true)          as Checkpoint
//	Open                 all that the log shows from then on
//
// # Why in this order
//
// Everything but an append replaces the manifest (changeLocked), and a crash leaves the old
// list or the new one. Around that one moment:
//
//   - A file is written, synced and its name synced before a manifest lists it. Else a crash
//     leaves a list of what is not there, which Open takes for damage.
//   - A file is deleted after a manifest calls it removed, and stays among the removed until it
//     is gone. So a crash, or a deletion that fails, leaves nothing behind for good.
//   - A compaction and an installation have their files called removed before they make them.
//     So a crash half-way deletes what was half made.
//   - The last segment is synced before a manifest has its length, in a roll, a checkpoint or a
//     clean close: Open takes what is bad below that length for damage, not for a torn tail.
//   - The last segment is synced before Drop moves the log start: were the start beyond what a
//     crash leaves, offsets would be given twice.
//   - Room is taken before anything is written, and batches are stamped after that. So a full
//     disk refuses an entry that is still byte for byte what the caller passed.
//   - Epochs are noted before the next roll, which writes them down.
//   - What is cut leaves the cache before the shorter list is shown: GetLog asks the cache first.
//
// # What Open believes
//
// The manifest, and nothing else in the folder. A file that it calls removed is deleted. A
// segment with a number that it has not given out is one that a crash left before its first
// frame, and deleted; if it has frames, somebody has put an older manifest there, and that is
// damage. Other files are left alone. Of a sealed segment the length and the header are compared
// now, and its bytes when they are read. Of
// the last one what lies below the manifest's length had been synced; behind it
// segment.Recover finds the end, and what it keeps it makes durable. A torn tail ends the
// segment before it. Epochs are the manifest's, and what the entries behind say. An index file is
// believed if it is the segment's own and whole, and made again otherwise.
//
// FORMAT.md has the crash model, and every byte.
//
// # When a change goes wrong
//
// A *RefusedError says that the system would not begin it, for want of room on the
// disk, of descriptors or of memory: nothing has changed, what was half made is gone,
// and the next try may succeed. A full disk is one of those, since room is taken
// before anything is written.
//
// Whatever goes wrong from the first write on that counts (a write, a sync, a
// rename) leaves the disk's state unknown, and the log failed: it can be read, but
// every change returns the same *FailedError until it is closed and opened again.
// Config.Owner is told at that moment, whoever asked for the change.
//
// # How it is tested
//
// testdata/log tells what a log does, step by step, and every step is opened again. In
// crash_test.go the power goes before each operation on a file in turn, and what was not synced
// goes every way that it can; in fault_test.go, compactfault_test.go and installfault_test.go
// each operation fails in turn; beside_test.go has others change the log at the same time.
package log
