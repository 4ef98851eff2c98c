package cli

import "os/exec"

// endsWhole has a command's context end the command.
func endsWhole(*exec.Cmd) {}
