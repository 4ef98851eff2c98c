package log

import (
	"log/slog"
	"path/filepath"

	"millrace/segment"
)

// A folder is where a log lies: its manifest, the files that this lists, and files that it
// does not list any more, or not yet. It has no lock: an open log's is under changing.
type folder struct {
	dir      string
	fs       segment.FS
	logger   *slog.Logger
	manifest *manifest     // what the disk has, or will have with the next one
	writing  map[name]bool // files of the compaction under way
}

func (d *folder) path(name string) string { return filepath.Join(d.dir, name) }

// commit puts m in the manifest's place. An error before the rename, which renamed tells,
// leaves the old one, also on disk; after any other nobody knows which is there.
func (d *folder) commit(m *manifest) (renamed bool, err error) {
	if renamed, err = segment.WriteFile(d.fs, d.path(manifestName), m.encode()); err == nil {
		d.manifest = m
	}
	return renamed, err
}

// removeFiles deletes the files that the manifest, which is on disk, calls removed. Those
// it cannot delete stay among them.
func (d *folder) removeFiles(m *manifest) {
	left := m.removed[:0]
	for _, n := range m.removed {
		if d.writing[n] {
			left = append(left, n)
			continue
		}
		if err := segment.Remove(d.fs, d.path(n.file())); err != nil {
			d.logger.Warn("a segment could not be deleted", "file", n.file(), "error", err)
			left = append(left, n)
		}
	}
	m.removed = left
}
