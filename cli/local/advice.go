package local

import (
	"errors"

	"millrace/cli/term"
	"millrace/replication"
	"millrace/replication/admission"
	"millrace/replication/folder"
)

// advices are what to do, on the command line, about why a broker does not begin or must
// end, by the kind of the error. They go on where its text ends: the library does not know
// how it is started.
var advices = []struct {
	kind   error
	advice string
}{
	{admission.ErrNoIdentity, "; restore the file or choose another folder with --data-dir"},
	{admission.ErrStrangeFolder, "; choose another folder, or an empty one, with --data-dir"},
	{admission.ErrOtherNode, "; leave out --node-id or choose another folder with --data-dir"},
	{admission.ErrJoinUnread, "; name a node of the cluster with --join"},
	{admission.ErrNobodyKnown, "; name one with --join"},
	{admission.ErrIDTaken, " with --node-id"},
	{admission.ErrFoundElsewhere, "; if this node lost its disk, start it in an empty folder with --node-id and --join; if a new cluster is meant, with --found"},
	{replication.ErrOldDisk, ": see `millrace cluster rescue --help` first"},
}

// Advised says of an error of a broker's what to do about it as well, if that is known.
func Advised(err error) error {
	if inUse := (*folder.InUseError)(nil); errors.As(err, &inUse) {
		return term.Explain(err, "%v; stop it, or choose another folder with --data-dir", err)
	}
	for _, a := range advices {
		if errors.Is(err, a.kind) {
			return term.Explain(err, "%v%s", err, a.advice)
		}
	}
	return err
}
