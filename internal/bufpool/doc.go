// Package bufpool keeps the memory that bytes from the network came in, for those to
// come.
//
// Fresh memory is zeroed, and the system finds it page by page, which together costs more
// than the bytes' way through loopback. A sync.Pool would do, but is emptied by the
// garbage collector, which then must not run often.
//
// # What is promised
//
// Get returns memory of length 0 and at least the capacity asked for, with whatever was in
// it, or nil: who calls makes it then, of RoundUp bytes, so that it fits the next. Put takes
// memory from anywhere, and it is the pool's from there on: who calls must not touch it
// again, nor anything that shares it.
//
// A Pool holds no more than 8 MiB, and pieces of 32 KiB to 8 MiB: what is smaller is not
// worth keeping, what is larger comes too seldom. What nobody gets for 2 to 4 seconds goes to
// the garbage collector. Both calls take one lock, and neither allocates once the pool has
// been as full as it gets.
package bufpool
