package local

import (
	"os"
	"strings"

	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/replication/identity"
)

// parseJoin reads what --join says: a token, the file that holds one, or addresses. says is
// how it was said, without a token.
func parseJoin(says, text string) ([]string, error) {
	if name, ok := strings.CutPrefix(text, "@"); ok {
		p, err := os.ReadFile(name)
		if err != nil {
			return nil, term.Usage("%s: read the token: %v", says, err)
		}
		if text = strings.TrimSpace(string(p)); !identity.IsToken(text) {
			return nil, term.Usage("%s: the file holds no join token; `millrace cluster token` makes one", says)
		}
	}
	if identity.IsToken(text) {
		if _, err := identity.ParseToken(text); err != nil {
			return nil, term.Usage("%s: only a part of the token is there, or it was changed; `millrace cluster token` makes another", says)
		}
		return []string{strings.TrimSpace(text)}, nil
	}
	if _, err := os.Stat(text); err == nil {
		return nil, term.Usage("%s: that is a file; for the token in it say @%s", says, text)
	}
	addresses, err := kafka.ParseBrokers("--join", text)
	if err != nil {
		return nil, term.Usage("%s: it is HOST:PORT,…, or a token of `millrace cluster token`", says)
	}
	return addresses, nil
}
