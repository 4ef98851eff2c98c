package server

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/segment/record"
)

// A setting that is described with an effect has one: its definition is resolved
// to a field, or says what a node is, and the field is read by somebody. One
// without says so.
func TestEverySettingThatHasAnEffectIsRead(t *testing.T) {
	selected := map[string]bool{} // x.Name, outside of package metadata
	named := map[string]bool{}    // "name", in package metadata's resolvers and in what reads a configuration file
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == ".git") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		inMetadata := dir == "../replication/metadata"
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if !inMetadata {
					selected[n.Sel.Name] = true
				}
			case *ast.CallExpr: // r.long("log.roll.ms")
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && inMetadata && len(n.Args) == 1 && s.Sel.Name != "Errorf" {
					if l, ok := n.Args[0].(*ast.BasicLit); ok && l.Kind == token.STRING {
						name, _ := strconv.Unquote(l.Value)
						named[name] = true
					}
				}
			case *ast.ValueSpec: // const nodeIDKey = "node.id"
				for _, v := range n.Values {
					if l, ok := v.(*ast.BasicLit); ok && l.Kind == token.STRING && strings.HasSuffix(path, "cli/config.go") {
						name, _ := strconv.Unquote(l.Value)
						named[name] = true
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, settings := range []any{metadata.BrokerSettings{}, metadata.TopicSettings{}} {
		for i := range reflect.TypeOf(settings).NumField() {
			if f := reflect.TypeOf(settings).Field(i); !selected[f.Name] {
				t.Errorf("nobody reads %s.%s", reflect.TypeOf(settings).Name(), f.Name)
			}
		}
	}
	with := map[string]bool{} // topics' settings that have an effect
	check := func(d *metadata.Definition) {
		without := strings.Contains(d.Doc, "without effect")
		if with[d.Name] = !without; !without && !named[d.Name] {
			t.Errorf("%s is said to have an effect, and nobody reads it: %s", d.Name, d.Doc)
		}
		if without && named[d.Name] {
			t.Errorf("%s is said to have no effect, and is read", d.Name)
		}
	}
	giving := map[string]bool{}
	for _, d := range metadata.TopicDefinitions() {
		if d.Name != "remote.storage.enable" { // only one value
			check(d)
		}
		for _, s := range d.Synonyms {
			giving[s.Name] = true // a topic's setting reads it
		}
	}
	for _, d := range metadata.BrokerDefinitions() {
		if !giving[d.Name] {
			check(d)
		}
	}
	if len(selected) < 1000 || len(named) < 50 {
		t.Errorf("only %d fields and %d names were found: the test tests nothing", len(selected), len(named))
	}
}

// offsets.topic.compression.codec, as a batch's attributes number it.
func TestCommittedOffsetsAreStoredWithTheirCodec(t *testing.T) {
	b := startBroker(t, map[string]string{"offsets.topic.compression.codec": "4", "offsets.topic.num.partitions": "1"})
	b.create("t", 1, nil)
	b.coordinates("g")
	w := b.dial()
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.SetVersion(8)
	commit.Group, commit.Generation = "g", -1
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic = "t"
	rp := kmsg.NewOffsetCommitRequestTopicPartition()
	rp.Offset = 7
	rt.Partitions = append(rt.Partitions, rp)
	commit.Topics = append(commit.Topics, rt)
	if got := ask[*kmsg.OffsetCommitResponse](w, commit).Topics[0].Partitions[0]; got.ErrorCode != 0 {
		t.Fatalf("%+v", got)
	}
	top, _ := b.node.Image().Topic(offsetsTopic)
	p := fetchedPartition(t, ask[*kmsg.FetchResponse](w, fetchRequest(13, "", top.ID, 0, 0)))
	if batch := record.Batch(p.RecordBatches); len(batch) < 61 || batch.Codec() != record.Zstd {
		t.Errorf("%d bytes, codec %v", len(batch), batch.Codec())
	}
}
