package millrace

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"millrace/docs"
)

// translated are the documents of which there is a Chinese version, NAME.zh-CN.md.
var translated = []string{"README.md", "docs/tutorial.md"}

// TestTranslations holds Chinese documents to the English ones: section by section the
// same headings, commands, links, tables and names. What only a reader can compare, the
// sentences, has a sum for each section at the end of the translation: it fails when the
// English has changed since. Translate the change, and then go test -run TestTranslations
// . -rewrite writes the sums anew.
func TestTranslations(t *testing.T) {
	for _, name := range translated {
		t.Run(name, func(t *testing.T) {
			english, err := docs.Read(name)
			if err != nil {
				t.Fatal(err)
			}
			name := translation(name)
			if *rewrite {
				source, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				text, _, _ := strings.Cut(string(source), sumsBegin)
				if err := os.WriteFile(name, []byte(text+sums(english)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			chinese, err := docs.Read(name)
			if err != nil {
				t.Fatal(err)
			}
			compareTranslation(t, english, chinese)
		})
	}
}

// translation is the name of a document's Chinese version.
func translation(name string) string { return strings.TrimSuffix(name, ".md") + ".zh-CN.md" }

func compareTranslation(t *testing.T, english, chinese *docs.Document) {
	for _, d := range []struct {
		*docs.Document
		other string
	}{{english, chinese.Path}, {chinese, english.Path}} {
		if first, _, _ := strings.Cut(string(d.Source), "\n"); !strings.Contains(first, "]("+path.Base(d.other)+")") {
			t.Errorf("the first line of %s does not link to %s: %s", d.Path, path.Base(d.other), first)
		}
	}
	if len(english.Sections) != len(chinese.Sections) {
		t.Fatalf("%s has %d headings, %s %d", english.Path, len(english.Sections)-1, chinese.Path, len(chinese.Sections)-1)
	}
	_, recorded, _ := strings.Cut(string(chinese.Source), sumsBegin)
	for i, e := range english.Sections {
		c := chinese.Sections[i]
		differ := func(what string, want, got any) {
			t.Errorf("%s, section %q, and %s, section %q: %s differ\n%v\n%v", english.Path, e.Heading, chinese.Path, c.Heading, what, want, got)
		}
		if e.Level != c.Level {
			differ("the levels of the headings", e.Level, c.Level)
		}
		if want, got := commands(e.Blocks), commands(c.Blocks); !slices.Equal(want, got) {
			differ("the blocks of code", strings.Join(want, "\n"), strings.Join(got, "\n"))
		}
		if want, got := targets(t, english, e), targets(t, chinese, c); i > 0 && !slices.Equal(want, got) {
			differ("the links", want, got)
		}
		if want, got := slices.Sorted(slices.Values(e.Code)), slices.Sorted(slices.Values(c.Code)); !slices.Equal(want, got) {
			differ("the names set as code", want, got)
		}
		if !slices.Equal(e.Rows, c.Rows) {
			differ("the rows of the tables", e.Rows, c.Rows)
		}
		if i > 0 && !strings.Contains(recorded, sum(e)) {
			t.Errorf("section %q of %s has changed since %s translated it: translate the change, then run go test -run TestTranslations . -rewrite", e.Heading, english.Path, chinese.Path)
		}
	}
}

// comments are those at the end of a line and those that are lines; translations have
// their own.
var (
	hashComments  = regexp.MustCompile(`(?m)[ \t]+# .*$|^# .*\n`)
	slashComments = regexp.MustCompile(`(?m)[ \t]+// .*$|^// .*\n`)
)

// commands are blocks of code without comments.
func commands(blocks []*docs.Block) (all []string) {
	for _, b := range blocks {
		comments := hashComments
		switch b.Language {
		case "go", "java", "js", "rs":
			comments = slashComments
		}
		all = append(all, b.Language+"\n"+comments.ReplaceAllString(b.Code, ""))
	}
	return all
}

// targets are where a section's links lead, in a form in which those of a translation
// equal those of the original: with the English document's name, if the Chinese one is
// linked to from the Chinese, and the number of a heading.
func targets(t *testing.T, d *docs.Document, s *docs.Section) (all []string) {
	for _, link := range s.Links {
		if strings.Contains(link, "://") {
			all = append(all, link)
			continue
		}
		file, anchor, _ := strings.Cut(link, "#")
		target := d.Path
		if file != "" {
			target = path.Join(path.Dir(d.Path), file)
		}
		if _, err := os.Stat(target); err != nil {
			t.Errorf("%s, section %q, links to %s: %v", d.Path, s.Heading, link, err)
			continue
		}
		to := strings.TrimSuffix(target, ".zh-CN.md") + ".md"
		if to == target+".md" { // an English one
			to = target
			if _, err := os.Stat(translation(target)); err == nil && strings.HasSuffix(d.Path, ".zh-CN.md") {
				to += ", of which there is " + translation(target)
			}
		}
		if anchor != "" {
			there, err := docs.Read(target)
			if err != nil {
				t.Fatal(err)
			}
			heading := slices.IndexFunc(there.Sections, func(s *docs.Section) bool { return docs.Anchor(s.Heading) == anchor })
			if heading < 0 {
				t.Errorf("%s, section %q, links to %s: there is no such heading", d.Path, s.Heading, link)
			}
			to += fmt.Sprint(", heading ", heading)
		}
		all = append(all, to)
	}
	return all
}

const sumsBegin = "\n<!-- Sums of the English sections that this translates; see TestTranslations.\n"

// sums are the lines with which a translation ends.
func sums(english *docs.Document) string {
	text := sumsBegin
	for _, s := range english.Sections[1:] { // before the first heading is the other language
		text += sum(s)
	}
	return text + "-->\n"
}

// sum is the line of one section. What is in blocks is compared as it is, and where lines
// break is all the same.
func sum(s *docs.Section) string {
	words := strings.Join(strings.Fields(s.Heading+"\n"+s.Text), " ")
	return fmt.Sprintf("%.4x %s\n", sha256.Sum256([]byte(words)), s.Heading)
}

// The excerpts of programs that the tutorial shows are what the programs say.
func TestTheTutorialShowsItsPrograms(t *testing.T) {
	for _, name := range []string{"docs/tutorial.md", translation("docs/tutorial.md")} {
		d, err := docs.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		excerpts := d.Blocks("python")
		if len(excerpts) == 0 {
			t.Errorf("%s shows no program", name)
		}
		programs, err := fs.Glob(os.DirFS("testdata/tutorial"), "*.py")
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range excerpts {
			if !slices.ContainsFunc(programs, func(program string) bool {
				source, err := os.ReadFile(path.Join("testdata/tutorial", program))
				return err == nil && strings.Contains(string(source), b.Code)
			}) {
				t.Errorf("%s shows what no program in testdata/tutorial says:\n%s", name, b.Code)
			}
		}
	}
}
