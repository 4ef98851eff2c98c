package group

import (
	"errors"

	"millrace/server/coordinator"
	"millrace/server/protocol"
)

// codeOf is what a client gets where an append ended so, or no shard was entered.
func codeOf(err error) protocol.Code {
	switch {
	case err == nil:
		return protocol.None
	case coordinator.Lost(err), errors.Is(err, coordinator.ErrNotCoordinator):
		return protocol.NotCoordinator
	case errors.Is(err, coordinator.ErrTooLarge):
		return protocol.UnknownServerError // as Kafka
	case errors.Is(err, coordinator.ErrLoadInProgress):
		return protocol.CoordinatorLoadInProgress
	default:
		return protocol.CoordinatorNotAvailable
	}
}
