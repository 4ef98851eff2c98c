// Package docs reads the project's Markdown documents, for what holds them to what they
// say: tests that run their commands, and a test that compares them with their
// translations.
package docs

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	extast "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/text"
)

// A Document is a Markdown file as it was read.
type Document struct {
	Path     string
	Source   []byte
	Sections []*Section // the first begins with the document, before any heading
}

// A Section is what stands between one heading, of any level, and the next.
type Section struct {
	Heading string // as it is written; "" before the first
	Level   int    // of the heading, from 1; 0 before the first
	Text    string // the Markdown below the heading, without its code blocks
	Blocks  []*Block
	Links   []string // the targets, in order
	Code    []string // what is set as code within sentences, in order
	Rows    []int    // the columns of each row of its tables
}

// A Block is a fenced block of code.
type Block struct {
	Language    string // the first word after the fence
	Code        string
	start, stop int // of Code in Source
}

// Read reads the document in a file.
func Read(path string) (*Document, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := &Document{Path: path, Source: source}
	section := &Section{}
	from := 0 // of the text that has not been given to a section
	take := func(to int) { section.Text += string(source[from:to]) }
	root := goldmark.New(goldmark.WithExtensions(extension.Table)).Parser().Parse(text.NewReader(source))
	for node := root.FirstChild(); node != nil; node = node.NextSibling() {
		switch n := node.(type) {
		case *ast.Heading:
			at := n.Lines().At(0)
			take(lineStart(source, at.Start))
			from = lineEnd(source, at.Start)
			d.Sections = append(d.Sections, section)
			section = &Section{Heading: string(at.Value(source)), Level: n.Level}
		case *ast.FencedCodeBlock:
			if n.Info == nil {
				return nil, fmt.Errorf("%s: a block of code in section %q does not say its language", path, section.Heading)
			}
			info := n.Info.Segment
			b := &Block{Language: string(n.Language(source)), start: lineEnd(source, info.Start)}
			b.stop = b.start
			if k := n.Lines().Len(); k > 0 {
				b.stop = n.Lines().At(k - 1).Stop
			}
			b.Code = string(source[b.start:b.stop])
			take(lineStart(source, info.Start))
			from = lineEnd(source, b.stop)
			section.Blocks = append(section.Blocks, b)
		default:
			if err := ast.Walk(node, section.collect(source)); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	take(len(source))
	d.Sections = append(d.Sections, section)
	return d, nil
}

// collect returns what gathers a section's links, code and tables from its nodes.
func (s *Section) collect(source []byte) ast.Walker {
	return func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := node.(type) {
		case *ast.Link:
			s.Links = append(s.Links, string(n.Destination))
		case *ast.CodeSpan:
			var code strings.Builder
			for part := n.FirstChild(); part != nil; part = part.NextSibling() {
				code.Write(part.(*ast.Text).Segment.Value(source))
			}
			s.Code = append(s.Code, strings.Join(strings.Fields(code.String()), " "))
		case *extast.TableHeader, *extast.TableRow:
			s.Rows = append(s.Rows, n.ChildCount())
		}
		return ast.WalkContinue, nil
	}
}

// lineStart is where the line begins that has the byte at i.
func lineStart(source []byte, i int) int {
	return bytes.LastIndexByte(source[:i], '\n') + 1
}

// lineEnd is where the line ends, its newline included, that has the byte at i.
func lineEnd(source []byte, i int) int {
	if n := bytes.IndexByte(source[i:], '\n'); n >= 0 {
		return i + n + 1
	}
	return len(source)
}

// Blocks are the document's blocks of code in some languages, in order.
func (d *Document) Blocks(languages ...string) (all []*Block) {
	for _, s := range d.Sections {
		for _, b := range s.Blocks {
			if slices.Contains(languages, b.Language) {
				all = append(all, b)
			}
		}
	}
	return all
}

// Replace returns the document's source with other code in some of its blocks.
func (d *Document) Replace(code map[*Block]string) []byte {
	var out []byte
	from := 0
	for _, s := range d.Sections {
		for _, b := range s.Blocks {
			if with, ok := code[b]; ok {
				out = append(append(out, d.Source[from:b.start]...), with...)
				from = b.stop
			}
		}
	}
	return append(out, d.Source[from:]...)
}

// Anchor is what a heading is linked to by, as GitHub makes it.
func Anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}
