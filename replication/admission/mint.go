package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"millrace/replication/identity"
	"millrace/replication/keyring"
	"millrace/replication/metadata"
	"millrace/replication/roster"
)

// CallMint is the call that asks for a token: a MintRequest, JSON, answered by the token's
// text.
const CallMint uint8 = 11

// A MintRequest says what a token is to be good for.
type MintRequest struct {
	Uses    int32         `json:"uses"`    // nodes that it lets in
	Expires time.Duration `json:"expires"` // how long from now
}

// Bounds of a MintRequest.
const (
	maxUses = 1000
	maxLife = 30 * 24 * time.Hour
)

// Mint makes a join token for the cluster. The answer is the only copy of its secret.
func (d *Door) Mint(ctx context.Context, p []byte) ([]byte, error) {
	var req MintRequest
	if err := json.Unmarshal(p, &req); err != nil {
		return nil, fmt.Errorf("request for a token: %w", err)
	}
	if req.Uses < 1 || req.Uses > maxUses || req.Expires < time.Second || req.Expires > maxLife {
		return nil, fmt.Errorf("a join token lets in 1 to %d nodes, and is good for a second to %v", maxUses, maxLife)
	}
	image := d.host.Image()
	authorities, err := keyring.Parse(image.Authorities())
	if err != nil {
		return nil, err
	}
	if len(authorities) == 0 {
		return nil, fmt.Errorf("the cluster has no authority: it is at feature level %d and takes in whoever asks; upgrade all its nodes", image.Level())
	}
	var nodes []string
	for _, b := range image.Brokers() {
		nodes = append(nodes, roster.Address(b))
	}
	now := time.Now()
	token := identity.NewToken(authorities[0], nodes[:min(len(nodes), maxTokenNodes)])
	change := metadata.PutJoinToken{
		Token: metadata.JoinToken{ID: token.ID, Hash: identity.HashSecret(token.Secret), Expires: now.Add(req.Expires).UnixMilli(), Uses: req.Uses},
		At:    now.UnixMilli(),
	}
	if err := d.host.Change(ctx, change); err != nil {
		return nil, err
	}
	d.logger.Info("made a join token", "id", token.ID, "uses", req.Uses, "expires", now.Add(req.Expires))
	return []byte(token.Encode()), nil
}

// maxTokenNodes is how many addresses a token has at most.
const maxTokenNodes = 5
