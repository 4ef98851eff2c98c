// Package slowlog keeps a log readable while something goes wrong a thousand times a
// second, and the disk from filling with it.
//
// # What is promised
//
// A Limit passes one line in a while for each key, and counts what it leaves out. The
// next line with the key says how many those were, as "withheld". Lines that are left out
// cost a lock and a look into a map, and are not formatted.
//
// It is bounded: it remembers a thousand keys. Beyond those, which only keys that strangers
// choose can reach, all new ones count as one, until others have not been heard of for a
// while. So there are at most a thousand and one lines in the time of one, and what is
// forgotten was counted.
//
// What is the same trouble, and so has the same key, is for the caller to say. A line
// belongs to the package that calls Warn, Error or Lasting, not to this one: its program
// counter is the caller's, so that its level can be set by package.
package slowlog
