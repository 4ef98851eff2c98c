package millrace

import (
	"fmt"
	"go/scanner"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// retired are the words that this project used to have for what its field has a word of
// its own for, or that meant several things. They do not come back. To retire another:
// one line, and the words that stay are in the glossary of CONTRIBUTING.md.
//
// A word is found as a part of a name in Go (outline in IsOutline and outlines) and in
// comments; one that is retired everywhere also in ARCHITECTURE.md and FORMAT.md. A word
// that is good English elsewhere, or in another sense, is retired as a name: "Rest()" is
// the name Rest alone, in this spelling, whatever it names, and comments may say it.
var retired = []retiredWord{
	{"outline", "", "headers only"},
	{"lender", "", "pool (internal/bufpool)"},
	{"Rest()", "segment log", "UnmapIdle"},
	{"Yield()", "segment log", "PunchTail of a segment, ReleaseRoom of a log"},
	{"Forget()", "segment log", "DropCache"},
	{"lied", "segment log", "misplaced"},
	{"Begins()", "segment log", "CheckStart"},
	{"Unused()", "segment log", "NeverAppended"},
	{"Protect()", "log", "SetCommitted"},
	{"Hurry()", "replication", "Expedite"},
	{"Recycle()", "replication", "ReuseBuffers"},
	{"place()", "log", "boundary, between two entries"},
	{"window()", "log", "cacheRun"},
	{"complain", "server", "warn (internal/slowlog)"},
	{"complaint", "server", "warning (internal/slowlog)"},
	{"abdicate", "", "sendTimeoutNow"},
	{"acquaintance", "", "gossip peer"},
	{"belong()", "replication", "joinOrFound"},
	{"beside()", "replication", "concurrentSyncs"},
	{"canvasser", "", "voteRetrier"},
	{"claim()", "replication", "leaderEntry"},
	{"claimed()", "replication", "leaderOf"},
	{"claims()", "replication", "leaders"},
	{"enrol", "", "register"},
	{"enrolled", "", "registered"},
	{"fly", "replication", "be in flight"},
	{"flying", "replication", "in flight"},
	{"greet", "replication server", "handshake, or nudge"},
	{"greeted", "replication server", "handshake, or nudge"},
	{"greeting", "replication server", "handshake, or nudge"},
	{"hair", "replication", "timeoutStep"},
	{"happened()", "replication", "membershipHints"},
	{"haste", "replication", "shorten"},
	{"hasty", "replication", "shortened"},
	{"insist", "replication", "retry"},
	{"landed", "replication", "acknowledged, or applied"},
	{"landing", "replication", "pendingOffset"},
	{"machine()", "replication", "fsm"},
	{"orphan", "", "leaderless group"},
	{"orphaned", "replication", "leaderless"},
	{"owed()", "replication", "pendingTrim"},
	{"rested", "replication", "quiesced, or backed off"},
	{"resting", "replication", "quiesced, or backing off"},
	{"restTime()", "replication", "quiesceTime"},
	{"stand()", "replication", "campaign"},
	{"flight", "server/coordinator server/group", "pending append"},
	{"flying", "server/coordinator server/group", "pending append"},
	{"landed", "server/coordinator server/group", "durable"},
	{"landing", "server/coordinator server/group", "pending append"},
	{"land", "server/coordinator server/group", "is durable"},
	{"led()", "server/journal", "hosted"},
	{"tape", "server", "journal in memory (coordinatortest.Journal)"},
}

// A retiredWord is one that is not used any more.
type retiredWord struct {
	word string // of lower-case letters; or a whole name, with () behind it
	in   string // the packages, each with those below it, between spaces; "": everywhere
	say  string // instead
}

// TestWords holds the list.
func TestWords(t *testing.T) {
	scopes := map[string]bool{}
	for _, w := range retired {
		for _, dir := range strings.Fields(w.in) {
			scopes[dir] = false
		}
	}
	for _, file := range goFiles(t) {
		if file.path == "words_test.go" {
			continue
		}
		for dir := range scopes {
			scopes[dir] = scopes[dir] || strings.HasPrefix(file.path, dir+"/")
		}
		source, err := os.ReadFile(file.path)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range wordsInGo(file.path, source) {
			t.Error(found)
		}
	}
	for _, page := range []string{"ARCHITECTURE.md", "FORMAT.md"} {
		source, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(source), "\n") {
			for _, found := range wordsInText(fmt.Sprintf("%s:%d", page, i+1), line, everywhere(retired)) {
				t.Error(found)
			}
		}
	}
	for dir, there := range scopes {
		if !there {
			t.Errorf("words are retired in %s, where no Go file is", dir)
		}
	}
}

func everywhere(words []retiredWord) []retiredWord {
	return slices.DeleteFunc(slices.Clone(words), func(w retiredWord) bool { return w.in != "" })
}

// wordsInGo returns a complaint for each retired word in a file of Go.
func wordsInGo(path string, source []byte) (found []string) {
	here := slices.DeleteFunc(slices.Clone(retired), func(w retiredWord) bool {
		return w.in != "" && !slices.ContainsFunc(strings.Fields(w.in), func(dir string) bool { return strings.HasPrefix(path, dir+"/") })
	})
	if len(here) == 0 {
		return nil
	}
	files := token.NewFileSet()
	file := files.AddFile(path, -1, len(source))
	var s scanner.Scanner
	s.Init(file, source, nil, scanner.ScanComments)
	for {
		pos, tok, text := s.Scan()
		at := fmt.Sprintf("%s:%d", path, file.Line(pos))
		switch tok {
		case token.EOF:
			return found
		case token.IDENT:
			for _, w := range here {
				if w.names(text) {
					found = append(found, fmt.Sprintf("%s: the name %s: %s", at, text, w))
				}
			}
		case token.COMMENT:
			for i, line := range strings.Split(text, "\n") {
				found = append(found, wordsInText(fmt.Sprintf("%s:%d", path, file.Line(pos)+i), line, here)...)
			}
		}
	}
}

// wordsInText returns a complaint for each of words that a line of prose has.
func wordsInText(at, line string, words []retiredWord) (found []string) {
	for _, part := range strings.FieldsFunc(line, func(r rune) bool { return !unicode.IsLetter(r) && r != '_' }) {
		for _, w := range words {
			if !strings.HasSuffix(w.word, "()") && w.names(part) {
				found = append(found, fmt.Sprintf("%s: %q: %s", at, part, w))
			}
		}
	}
	return found
}

func (w retiredWord) String() string {
	where := ""
	if w.in != "" {
		where = " in " + strings.Join(strings.Fields(w.in), ", ")
	}
	return fmt.Sprintf("%q is retired%s; say %s", w.word, where, w.say)
}

// names reports whether the word is a part of a name, or all of it.
func (w retiredWord) names(name string) bool {
	if whole, ok := strings.CutSuffix(w.word, "()"); ok {
		return name == whole
	}
	for _, part := range partsOf(name) {
		if part == w.word || part == w.word+"s" {
			return true
		}
	}
	return false
}

// partsOf returns the words of a name in lower case: is, http and error of isHTTPError.
func partsOf(name string) (parts []string) {
	letters := []rune(name)
	from := 0
	cut := func(to int) {
		if to > from {
			parts = append(parts, strings.ToLower(string(letters[from:to])))
		}
		from = to
	}
	for i, r := range letters {
		switch {
		case !unicode.IsLetter(r):
			cut(i)
			from = i + 1
		case unicode.IsUpper(r) && (i == 0 || !unicode.IsUpper(letters[i-1]) || i+1 < len(letters) && unicode.IsLower(letters[i+1])):
			cut(i)
		}
	}
	cut(len(letters))
	return parts
}

// TestWordsAreFound is the proof that the list holds what it says.
func TestWordsAreFound(t *testing.T) {
	was := retired
	defer func() { retired = was }()
	retired = []retiredWord{{"outline", "", "headers only"}, {"Rest()", "log segment", "UnmapIdle"}, {"lied", "log", "misplaced"}}
	source := []byte(`package p

// A line of outlines, a Rest,
// and an underlined word that lied.
func IsOutline(outlined bool) { Rest(restTime, haveLied, outline_2, "outline") }

func HTTPOutline() {}
`)
	for path, want := range map[string]string{
		"log/a.go":     "3 outlines, 4 lied, 5 IsOutline, 5 Rest, 5 haveLied, 5 outline_2, 7 HTTPOutline",
		"segment/a.go": "3 outlines, 5 IsOutline, 5 Rest, 5 outline_2, 7 HTTPOutline",
		"logs/a.go":    "3 outlines, 5 IsOutline, 5 outline_2, 7 HTTPOutline",
	} {
		var got []string
		for _, f := range wordsInGo(path, source) {
			line, said, _ := strings.Cut(strings.TrimPrefix(f, path+":"), ": ")
			said, _, _ = strings.Cut(strings.TrimPrefix(said, "the name "), ":")
			got = append(got, line+" "+strings.Trim(said, `"`))
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("in %s: %s; expected %s", path, got, want)
		}
	}
}
