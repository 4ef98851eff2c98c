package replication

import (
	"errors"

	"millrace/replication/admission"
	"millrace/replication/controller"
	"millrace/replication/raftgroup"
)

// Errors a caller can act on, beside those of package partition.
var (
	// ErrNotHosted: this node holds no replica of the partition.
	ErrNotHosted = errors.New("replication: partition not hosted here")
	// ErrNoController: the controller group has no leader that this node knows of.
	ErrNoController = controller.ErrNoController
	// ErrFoundElsewhere ends a node that would found a cluster, or just has, at an address
	// where the nodes of another look for it.
	ErrFoundElsewhere = admission.ErrFoundElsewhere
	// ErrOldDisk ends a node whose data folder turned out to be a copy of one that has
	// gone on: a restored backup, or the clone of a disk.
	ErrOldDisk = errors.New("replication: the data folder is an old copy of this node's")

	// ErrUnknown: leadership or storage was lost after the entry was handed to Raft; it may or may not survive.
	ErrUnknown = raftgroup.ErrUnknown
	// ErrClosed: the node was shut down.
	ErrClosed = raftgroup.ErrClosed
)
