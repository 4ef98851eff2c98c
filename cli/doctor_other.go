//go:build !linux

package cli

// What follows is read from Linux's own interfaces. Elsewhere it is not told.

func (d *doctor) examineProcesses(all []*visit) {
	d.say(untold, "limits", "", "", "not looked at on this system")
}

func (d *doctor) examineDisk(dir string) {
	d.say(untold, "file system", dir, "", "not looked at on this system")
}

func (d *doctor) examineLimits() {}
