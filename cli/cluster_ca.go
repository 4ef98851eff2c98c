package cli

import (
	"fmt"

	urfave "github.com/urfave/cli/v2"

	"millrace/cli/term"
	"millrace/replication"
	"millrace/replication/keyring"
	"millrace/replication/metadata"
)

func clusterCACommand() *urfave.Command {
	return &urfave.Command{
		Name:      "ca",
		Usage:     "print or rotate the cluster's certificate authority",
		ArgsUsage: "[rotate]",
		Description: `   Prints the certificates of the authorities by which the nodes of the cluster
   know each other, PEM: what a client is given to believe brokers that run with
   --tls auto. They are read from the data folder of a node, whether it runs or
   not. While the authority is being changed there are two.

   With rotate a new authority is made, every node issues itself a certificate by
   it, and the old one is dropped, while all goes on. It is asked of the node
   whose data folder is here, which runs. All brokers that are registered must
   run: one that is down would believe nobody afterwards. If one is, the command
   says so, and goes on where it was when it is given again. Clients that were
   given an authority must be given the new one; join tokens that were made
   before are of no use any more. Whoever has had a node's folder has the key of
   the authority of that time, and is shut out by this.

EXAMPLES:
   $ millrace cluster ca > ca.pem
   $ millrace cluster ca rotate`,
		Flags:  []urfave.Flag{dataDirFlag()},
		Action: clusterCA,
	}
}

func clusterCA(c *urfave.Context) error {
	switch {
	case c.NArg() == 1 && c.Args().First() == "rotate":
		return clusterRotate(c)
	case c.NArg() > 0:
		return term.Usage("cluster ca takes no arguments but rotate, and %q was given", c.Args().First())
	}
	dir, err := nodeFolder(c)
	if err != nil {
		return err
	}
	var image *metadata.Image
	err = keyring.AwaitFolder(c.Context, dir, func() (err error) {
		switch image, err = replication.LastImage(dir); {
		case err != nil:
			return term.Fail(term.StatusFailed, "%s: no node has run in this folder, or this is not its user (--data-dir names another): %w", dir, err)
		case len(image.Authorities()) == 0 && image.Level() < keyring.SecureLevel:
			return nil
		case len(image.Authorities()) == 0:
			return term.Fail(term.StatusNotFound, "the cluster has no authority yet: try again when its nodes run")
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(image.Authorities()) == 0:
		return term.Fail(term.StatusNotFound, "the cluster has no authority: it is at feature level %d, and makes one at %d; upgrade all its nodes", image.Level(), keyring.SecureLevel)
	}
	for _, a := range image.Authorities() {
		if _, err := fmt.Fprint(c.App.Writer, a.Certificate); err != nil {
			return err
		}
	}
	return nil
}

func clusterRotate(c *urfave.Context) error {
	fmt.Fprintln(c.App.ErrWriter, "every broker is asked to take three steps; one that is down is waited for, some 30 s")
	if _, err := askNode(c, keyring.CallRotate, nil); err != nil {
		return err
	}
	_, err := fmt.Fprintln(c.App.Writer, "the cluster has a new certificate authority; see `millrace cluster ca`")
	return err
}
