package local

import (
	"log/slog"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
)

// tellManager tells the service manager that started this process what it does: systemd,
// for a unit with Type=notify, or whoever else named a NOTIFY_SOCKET. Without one it does
// nothing (https://www.freedesktop.org/software/systemd/man/sd_notify.html).
func tellManager(logger *slog.Logger, states ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(states, "\n")); err != nil {
		logger.Warn("the service manager could not be told", "error", err)
	}
}
