package log

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/internal/storytest"
	"millrace/segment"
	"millrace/segment/record"
)

// TestScripts runs testdata/log/*.txt: a command with its arguments, lines of
// input, "----" and what came of it. After each command that changes something the
// log is closed, once cleanly and once not, opened again, and must be the same.
//
//	open [segment-bytes=N] [flush-messages=N]    (also: close and open with other settings)
//	append epoch=T [at=MS] [epoch-in-batch=T base=O]    each line one entry: "noop", "config", "barrier",
//	                                     "trim N", or batches of values: "a b | c"
//	delete-range MIN MAX
//	roll | roll-if-due HOURS | protect INDEX | drop BEFORE MAX-INDEX
//	read FROM LIMIT MAX-BYTES
//	entries | segments | epochs | state
//	offset-at TIMESTAMP LIMIT | max-timestamp LIMIT | offset-of INDEX
//	epoch-end EPOCH | epoch-at OFFSET | retention HOURS MS BYTES LIMIT
func TestScripts(t *testing.T) {
	storytest.Run(t, "../testdata/log/*.txt", func(t *testing.T, text string) string {
		t.Parallel()
		return runScript(t, text)
	})
}

type script struct {
	t    *testing.T
	root string
	dir  string
	cfg  Config
	l    *Log
	now  time.Time
}

func runScript(t *testing.T, text string) string {
	s := &script{t: t, root: t.TempDir(), now: time.UnixMilli(testClock)}
	s.dir = filepath.Join(s.root, "p")
	s.cfg = Config{FS: fastFS{segment.OS}, Now: func() time.Time { return s.now }}
	defer func() {
		if s.l != nil {
			s.l.Close(false)
		}
	}()
	return storytest.Tell(text, s.run)
}

func (s *script) run(args, input []string) string {
	before := ""
	if s.l != nil {
		before = s.describe()
	}
	answer, err := s.do(args, input)
	if err != nil {
		answer = strings.TrimSpace(answer + "\nerror: " + s.scrub(err.Error()))
	}
	if s.l == nil {
		return answer
	}
	after := s.describe()
	if after != before {
		for _, clean := range []bool{true, false} {
			if err := s.l.Close(clean); err != nil {
				s.t.Fatal(err)
			}
			s.open()
			if again := s.describe(); again != after {
				s.t.Fatalf("after %v, clean=%t:\n%s\nopened again:\n%s", args, clean, after, again)
			}
		}
	}
	return answer
}

func (s *script) open() {
	l, err := Open(s.dir, testID, s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.l = l
}

// describe says everything that must survive.
func (s *script) describe() string {
	return s.state() + "\n" + s.segments() + "\n" + s.entries() + "\n" + fmt.Sprint(s.l.Epochs())
}

func (s *script) scrub(text string) string {
	text = strings.ReplaceAll(text, s.dir, "DIR")
	text = regexp.MustCompile(`-[0-9a-f]{8}\.log`).ReplaceAllString(text, "-N.log")
	return regexp.MustCompile(`\d+ frames? `).ReplaceAllString(text, "")
}

func (s *script) do(args, input []string) (string, error) {
	named := map[string]int64{}
	var plain []int64
	for _, a := range args[1:] {
		k, v, ok := strings.Cut(a, "=")
		if !ok {
			v = a
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			s.t.Fatalf("%v: %v", args, err)
		}
		if ok {
			named[k] = n
		} else {
			plain = append(plain, n)
		}
	}
	switch args[0] {
	case "open":
		if s.l != nil {
			if err := s.l.Close(true); err != nil {
				return "", err
			}
		}
		s.cfg.SegmentBytes, s.cfg.FlushMessages = named["segment-bytes"], named["flush-messages"]
		s.open()
		return s.state(), nil
	case "append":
		return s.append(named, input)
	case "delete-range":
		err := s.l.DeleteRange(uint64(plain[0]), uint64(plain[1]))
		return s.state(), err
	case "roll":
		err := s.l.Roll()
		return s.segments(), err
	case "roll-if-due":
		s.now = s.now.Add(time.Duration(plain[0]) * time.Hour)
		rolled, err := s.l.RollIfDue(s.now)
		return fmt.Sprintf("rolled=%t", rolled), err
	case "protect":
		s.l.SetCommitted(uint64(plain[0]))
		return "ok", nil
	case "drop":
		n, err := s.l.Drop(plain[0], uint64(plain[1]))
		return fmt.Sprintf("removed=%d %s", n, s.state()), err
	case "read":
		return s.read(plain[0], plain[1], int(plain[2]))
	case "entries":
		return s.entries(), nil
	case "segments":
		return s.segments(), nil
	case "epochs":
		return fmt.Sprint(s.l.Epochs()), nil
	case "state":
		return s.state(), nil
	case "offset-at":
		o, f, ok, err := s.l.OffsetAt(testClock+plain[0], plain[1])
		if !ok {
			return "none", err
		}
		return fmt.Sprintf("offset=%d timestamp=%d", o, f-testClock), err
	case "max-timestamp":
		o, f, err := s.l.MaxTimestamp(plain[0])
		if o < 0 {
			return "none", err
		}
		return fmt.Sprintf("offset=%d timestamp=%d", o, f-testClock), err
	case "offset-of":
		o, err := s.l.OffsetOf(uint64(plain[0]))
		return fmt.Sprintf("offset=%d", o), err
	case "epoch-end":
		e, end, ok := s.l.EpochEnd(int32(plain[0]))
		return fmt.Sprintf("epoch=%d end=%d ok=%t", e, end, ok), nil
	case "epoch-at":
		return fmt.Sprintf("epoch=%d", s.l.EpochAt(plain[0])), nil
	case "retention":
		o := s.l.RetentionOffset(time.UnixMilli(testClock+plain[0]), time.Duration(plain[1])*time.Millisecond, plain[2], plain[3])
		return fmt.Sprintf("offset=%d", o), nil
	}
	s.t.Fatalf("unknown command %v", args)
	return "", nil
}

func (s *script) append(named map[string]int64, input []string) (string, error) {
	var logs []*raft.Log
	index, at := s.l.NextIndex(), named["at"]
	if i, ok := named["index"]; ok {
		index = uint64(i)
	}
	for _, line := range input {
		e := &raft.Log{Index: index, Term: uint64(named["epoch"])}
		switch kind, arg, _ := strings.Cut(line, " "); kind {
		case "noop":
			e.Type = raft.LogNoop
		case "barrier":
			e.Type = raft.LogBarrier
		case "config":
			e.Type, e.Data = raft.LogConfiguration, []byte(arg)
		case "trim":
			n, err := strconv.ParseInt(arg, 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			trim := TrimEntry(n)
			e.Type, e.Data, e.Extensions = trim.Type, trim.Data, trim.Extensions
		default:
			for _, values := range strings.Split(line, " | ") {
				var bu record.Builder
				for _, v := range strings.Fields(values) {
					// "v" or "v@ms" or "v*n": a value, its timestamp, its repetitions
					ts := at
					if x, y, ok := strings.Cut(v, "@"); ok {
						n, err := strconv.ParseInt(y, 10, 64)
						if err != nil {
							s.t.Fatal(err)
						}
						v, ts = x, n
					}
					if x, y, ok := strings.Cut(v, "*"); ok {
						n, err := strconv.Atoi(y)
						if err != nil {
							s.t.Fatal(err)
						}
						v = strings.Repeat(x, n)
					}
					bu.Append(record.Record{Timestamp: testClock + ts, Value: []byte(v)})
				}
				b, err := bu.Batch()
				if err != nil {
					s.t.Fatal(err)
				}
				if epoch, ok := named["epoch-in-batch"]; ok {
					b.Assign(named["base"], int32(epoch))
				}
				e.Data = append(e.Data, b...)
			}
		}
		logs = append(logs, e)
		index++
	}
	before := s.l.EndOffset()
	if err := s.l.StoreLogs(logs); err != nil {
		var m *MismatchError
		if errors.As(err, &m) && s.l.EndOffset() != before {
			s.t.Fatal("a mismatch moved the end")
		}
		return s.state(), err
	}
	return fmt.Sprintf("index=%d offset=[%d,%d)", index-1, before, s.l.EndOffset()), nil
}

func (s *script) read(from, limit int64, maxBytes int) (string, error) {
	v, err := s.l.Read(from, limit, maxBytes)
	if err != nil {
		return "", err
	}
	defer v.Release()
	var out strings.Builder
	for _, piece := range v.Bytes {
		for _, b := range batches(piece) {
			if err := b.Check(); err != nil {
				s.t.Fatal(err)
			}
			fmt.Fprintf(&out, "%d epoch=%d:", b.BaseOffset(), b.Epoch())
			for r, err := range b.Records() {
				if err != nil {
					s.t.Fatal(err)
				}
				fmt.Fprintf(&out, " %s", short(string(r.Value)))
			}
			out.WriteString("\n")
		}
	}
	fmt.Fprintf(&out, "pieces=%d next=%d", len(v.Bytes), v.Next)
	return out.String(), nil
}

func short(v string) string {
	if len(v) > 8 {
		return fmt.Sprintf("%c*%d", v[0], len(v))
	}
	return v
}

func (s *script) state() string {
	first, err := s.l.FirstIndex()
	if err != nil {
		s.t.Fatal(err)
	}
	last, err := s.l.LastIndex()
	if err != nil {
		s.t.Fatal(err)
	}
	return fmt.Sprintf("start=%d end=%d first=%d last=%d", s.l.StartOffset(), s.l.EndOffset(), first, last)
}

func (s *script) segments() string {
	var out strings.Builder
	st := s.l.state.Load()
	for _, g := range st.segments {
		i := g.Info()
		fmt.Fprintf(&out, "entries=[%d,%d] offsets=[%d,%d) terms=%d..%d bytes=%d", i.FirstIndex, i.LastIndex, i.BaseOffset, i.NextOffset, i.PrevTerm, i.LastTerm, i.Bytes)
		if !st.isActive(g) {
			out.WriteString(" sealed")
		}
		out.WriteString("\n")
	}
	if out.Len() == 0 {
		return "none"
	}
	return strings.TrimSuffix(out.String(), "\n")
}

func (s *script) entries() string {
	var out strings.Builder
	last, _ := s.l.LastIndex()
	m, err := observe(s.l)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range m.entries {
		e := &m.entries[i]
		fmt.Fprintf(&out, "%d/%d ", e.Index, e.Term)
		before, isTrim := ParseTrim(e)
		switch {
		case isTrim:
			fmt.Fprintf(&out, "trim %d", before)
		case e.Type == raft.LogCommand:
			for _, b := range batches(e.Data) {
				fmt.Fprintf(&out, "[%d,%d)", b.BaseOffset(), b.NextOffset())
			}
		default:
			fmt.Fprintf(&out, "%s %s", strings.ToLower(strings.TrimPrefix(e.Type.String(), "Log")), e.Data)
		}
		out.WriteString("\n")
	}
	if len(m.entries) == 0 {
		return fmt.Sprintf("none, last=%d", last)
	}
	return strings.ReplaceAll(strings.TrimRight(out.String(), "\n "), " \n", "\n")
}
