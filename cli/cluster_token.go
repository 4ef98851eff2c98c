package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"millrace/cli/local"
	"millrace/cli/term"
	"millrace/replication/admission"
	"millrace/replication/keyring"
)

// dataDirFlag names the folder of a node on this machine, with whose certificate it is asked.
func dataDirFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "data-dir", Value: local.DataDir, DefaultText: local.DataDir, Usage: "`DIR`: the data folder of a node that runs on this machine"}
}

// nodeFolder is the folder that dataDirFlag names, which is that of one node.
func nodeFolder(c *urfave.Context) (string, error) {
	dir := c.String("data-dir")
	if nodes, _ := filepath.Glob(filepath.Join(dir, "node-*", local.NodeFile)); len(nodes) > 0 {
		for i := range nodes {
			nodes[i] = filepath.Dir(nodes[i])
		}
		return "", term.Usage("%s holds the nodes of `millrace up`; name one of them: %s", dir, strings.Join(nodes, ", "))
	}
	return dir, nil
}

// askNode makes a call to the node of a folder.
func askNode(c *urfave.Context, kind uint8, req []byte) ([]byte, error) {
	dir, err := nodeFolder(c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.Context, askTimeout)
	defer cancel()
	answer, err := keyring.Ask(ctx, dir, kind, req)
	if err != nil {
		return nil, term.Fail(term.StatusFailed, "%w", err)
	}
	return answer, nil
}

// askTimeout is below what a node gives a connection for one call.
const askTimeout = 28 * time.Second

func clusterTokenCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "token",
		Usage: "make a token by which nodes join",
		Description: `   Prints a token for millrace serve --join. It holds the addresses of nodes,
   what their certificates are known by, and a secret, of which the cluster keeps
   a hash: the token is shown once, and whoever has it can become a node.

   It is asked of the node whose data folder is here, which runs, with the
   certificate in that folder.

EXAMPLES:
   $ millrace cluster token
   $ millrace cluster token --uses 2 --expires 10m --data-dir ./node-1`,
		Flags: []urfave.Flag{
			dataDirFlag(),
			&urfave.IntFlag{Name: "uses", Value: 1, DefaultText: "1", Usage: "`N` nodes may join with it"},
			&urfave.DurationFlag{Name: "expires", Value: time.Hour, DefaultText: "1h", Usage: "it is good for `TIME`"},
		},
		Action: clusterToken,
	}
}

func clusterToken(c *urfave.Context) error {
	if c.NArg() > 0 {
		return term.Usage("cluster token takes no arguments, but %q was given", c.Args().First())
	}
	req, err := json.Marshal(admission.MintRequest{Uses: int32(min(max(c.Int("uses"), 0), 1<<30)), Expires: c.Duration("expires")})
	if err != nil {
		return err
	}
	token, err := askNode(c, admission.CallMint, req)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s\n", token)
	return err
}
