package settings

import (
	"errors"
	"fmt"
	"strings"
)

// ErrInvalid is why a value, or several together, are refused. The text of an error that
// wraps it is a sentence for a client: Kafka's own where Kafka has one.
var ErrInvalid = errors.New("settings: invalid setting")

// A refusal is that sentence.
type refusal string

func (r refusal) Error() string { return string(r) }
func (r refusal) Unwrap() error { return ErrInvalid }

func invalid(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// Shown is a client's text cut and cleaned for a message: messages travel back
// in Kafka strings, which are valid UTF-8, and into logs, which are lines.
func Shown(s string) string {
	const most = 249 // as long as a topic's name may be
	cut := s
	if len(cut) > most {
		cut = cut[:most]
	}
	cut = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(cut, "?"))
	if len(s) > most {
		cut += "…"
	}
	return cut
}
