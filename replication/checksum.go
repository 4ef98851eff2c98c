package replication

import "hash/crc32"

// castagnoli is the polynomial of all checksums here: of snapshots, of the last image, of
// the noted age and of entries between nodes.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)
