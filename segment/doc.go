// Package segment stores a run of a log's entries in one file, with two index files beside it
// that can be rebuilt from it, and has the file system that everything on disk goes through.
//
// # How it is built
//
//	Active    appends, allocates, syncs, seals; one writer's           append.go, recover.go
//	Reader    reads what is there, sealed or still appended to         read.go, times.go, mapped.go
//	pinned    a Reader whose mapping stays while it is used            mapped.go
//	tables    what is known of the frames: how many, where, of when    tables.go, table.go
//	View      pages lent to who sends them                             view.go
//	mapping   a file in memory, counted by references                  map.go
//	crcCache  which frames were checked lately                         crccache.go
//	walker    goes over a file that may be damaged                     verify.go
//	FS        files as a log needs them; a test's may fail             fs.go, replace.go
//
// Layouts are in header.go, frame.go and package index.
//
// # Crash model
//
// Assumed: after a crash, any byte not synced may be old, new or zero, in any
// order; a synced byte stays; a rename is durable after its folder's sync; a
// sync that failed once has failed for good.
//
// A segment is only ever appended to. The first frame of each write carries a
// flag if everything before it was synced when it was written, so bytes that
// are bad can be judged when a segment is recovered:
//
//   - no flagged frame follows: a torn tail. Nobody was told that the bytes are
//     safe; they are cut.
//   - a flagged frame follows, or the segment was sealed or cleanly closed
//     beyond them: corruption. They were safe once. Nothing is cut.
//
// A tail is cut by ending the segment before it, never by changing the file:
// what follows goes into a new segment.
//
// What recovery keeps it writes once more from the last flagged frame on, before
// it syncs: after a failed sync the page cache may hold, as clean, bytes that
// never reached the disk, and another sync alone would report success.
//
// # An append, and what readers see
//
//	Allocate   room on the disk; the file grows in steps, so that a small write changes no inode
//	write      all frames with one system call, headers and payloads as they lie in memory
//	sync       if the caller asks for it
//	show       the tables, info and written, under mu: from here on a reader finds the frames
//	spill      every 512 entries the tail of the index goes to its file
//
// So a reader never meets a frame that is half written, and of StoreLogs none that is not
// durable. What fails before write leaves everything as it was. After a write or a sync that
// failed nobody knows what the file holds, so the segment must be recovered; a sync that failed
// is remembered, since the system tells one caller only.
//
// # What is on disk when
//
//	Create             the header; the name when the folder is synced
//	Append, synced     its frames, and all before
//	Sync               what was appended before the call
//	Allocate           room, in the file's length; bytes that read as zero
//	PunchTail          less room; the length stays
//	Finish             everything, and index files, which are not synced
//	Seal               no room behind the last frame; nothing is appended any more
//
// # What recovery believes
//
// The length that the log knows, from a checkpoint, had been synced, so what is bad below it is
// corruption. Behind it headers are walked, whose CRCs begin with the segment's salt and their
// position: no client's bytes and no older segment's pass for a frame. Payloads are compared from
// the last flagged frame on, since only there can they be torn. The file's length is not
// believed to be room: a hole may lie behind the last frame.
//
// # Who holds which lock for what
//
//	lock                held                              guards
//	Reader.rebuilding   while tables are rebuilt          nothing: one reader does it, others wait
//	Reader.closing      while the file syncs or closes    broken, the sync that failed
//	Reader.mu           reading: to look at tables;       tables, mapping, closed
//	                    writing: to add frames, to map,
//	                    to unmap, to put in new tables
//	mappings.mu         for moments                       which segments are mapped
//	residence.mu        for moments                       what was read through mappings
//
// They are taken in this order; for another segment's mu makeRoom only tries. Under mu three
// things may wait for the disk: a page of a frame's header or of an index that is not in memory,
// index files that are read or written, a file that is closed. A write and a sync never do, and
// a rebuild works on tables of its own. Only the writer's goroutine uses an Active, but for
// Sync, Synced and Room, which are for any.
//
// # Mapped memory
//
// Data is read through mappings, and lent as such (View): from the page cache to the socket
// without a copy. That has a price, paid in these places:
//
//   - A page that the disk cannot deliver is a fault, which ends a process: whatever touches
//     mapped memory runs under Guard, and is handed to no decoder that may use a goroutine.
//   - A file never shrinks while it may be mapped; it is deleted instead.
//   - A mapping lives until its last reference is gone, an owner's, a reader's or a view's. It
//     begins with its owner's.
//   - A process may have only so many: the segments not read lately are unmapped (mappings).
//   - Pages count as the process's memory: after every 16 MiB read they are let go (residence).
package segment
