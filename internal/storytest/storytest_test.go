package storytest

import (
	"strings"
	"testing"
)

// What came of a command is told anew; comments, commands and input stay as they are.
func TestTell(t *testing.T) {
	const text = `# Paragraphs of comments
# alone stay.

# This one has a command.
join a b
c
d
----
what came of it before
in two lines

silent

join
----
`
	const want = `# Paragraphs of comments
# alone stay.

# This one has a command.
join a b
c
d
----
a b c d

silent
----

join
----
`
	tell := func(text string) string {
		return Tell(text, func(command, input []string) string {
			if command[0] == "silent" {
				return ""
			}
			return strings.Join(append(command[1:], input...), " ")
		})
	}
	got := tell(text)
	if got != want {
		t.Errorf("told:\n%s\nwant:\n%s", got, want)
	}
	if again := tell(got); again != got {
		t.Errorf("told again it is another:\n%s", again)
	}
}
