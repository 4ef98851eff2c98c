package term

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	urfave "github.com/urfave/cli/v2"
)

// Password asks for a secret on the terminal, without an echo. Where nobody can be asked, it
// says where the secret may come from.
func Password(c *urfave.Context, question string) (string, error) {
	if !IsTerminal(c.App.Reader) || !IsTerminal(c.App.ErrWriter) {
		return "", Usage("no password, and no terminal to ask for it: say --password-file FILE or MILLRACE_PASSWORD")
	}
	fd := int(c.App.Reader.(*os.File).Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("ask for a password: %w", err)
	}
	fmt.Fprint(c.App.ErrWriter, question)
	type answer struct {
		secret []byte
		err    error
	}
	answered := make(chan answer, 1)
	go func() { // the reader of the password: ends with the line, or with the program
		secret, err := term.ReadPassword(fd)
		answered <- answer{secret, err}
	}()
	defer fmt.Fprintln(c.App.ErrWriter) // the line's end has no echo either
	select {
	case a := <-answered:
		switch {
		case c.Context.Err() != nil:
		case errors.Is(a.err, io.EOF), a.err == nil && len(a.secret) == 0:
			return "", Fail(StatusFailed, "no password was given; nothing was done")
		case a.err != nil:
			return "", fmt.Errorf("read the password: %w", a.err)
		default:
			return string(a.secret), nil
		}
	case <-c.Context.Done():
		term.Restore(fd, before)
	}
	return "", Fail(StatusFailed, "interrupted; nothing was done")
}

// NewPassword asks for a secret that is to be kept, twice.
func NewPassword(c *urfave.Context, whose string) (string, error) {
	first, err := Password(c, fmt.Sprintf("New password %s: ", whose))
	if err != nil {
		return "", err
	}
	second, err := Password(c, "And once more: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", Fail(StatusFailed, "the two passwords differ; nothing was done")
	}
	return first, nil
}
