package group

import (
	"context"
	"errors"
	"regexp/syntax"
	"slices"
	"time"
	"unicode/utf8"

	"millrace/server/coordinator"
	"millrace/server/protocol"
)

// Regular expressions of subscriptions (KIP-848) are RE2's, whose syntax is Go's.
// They come from anyone who may join, so what one costs is bounded twice: by the
// size of its program before that is made, and by the steps it takes over all
// names. Package regexp bounds neither: 2 KB of it compiled for seconds, and matched
// one name for a minute.

// maxProgram is the most instructions of an expression: five hundred names of
// twenty characters side by side.
const maxProgram = 10_000

// stepsOf is how many steps an expression may take over so many names: some 10 ms,
// and as much as a hundred threads of a name of forty characters for each.
func stepsOf(names int) int { return 1<<20 + names<<12 }

var (
	errLargeExpression = errors.New("it is too large")
	errSlowExpression  = errors.New("it takes too many steps to match")

	// errNotIn is not the expression's fault: the coordinator closed, or the client
	// hung up, before it was let in.
	errNotIn = errors.New("group: not let in to match an expression")
)

// compile returns the program of an expression that matches whole names.
func compile(expression string) (*syntax.Prog, error) {
	if tooLong(expression) {
		return nil, errLargeExpression
	}
	if _, err := syntax.Parse(expression, syntax.Perl); err != nil {
		return nil, err // what is not balanced by itself does not become so by our brackets
	}
	re, err := syntax.Parse(`\A(?:`+expression+`)\z`, syntax.Perl)
	if err != nil {
		return nil, err
	}
	if instructions(re) > maxProgram {
		return nil, errLargeExpression
	}
	return syntax.Compile(re.Simplify())
}

// instructions is about how many instructions re compiles to; beyond maxProgram it
// may say less.
func instructions(re *syntax.Regexp) int {
	n := 2 + len(re.Rune)/64
	if re.Op == syntax.OpLiteral {
		n = len(re.Rune)
	}
	for _, sub := range re.Sub {
		if n += instructions(sub); n > maxProgram {
			return n
		}
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return n
}

// A matcher runs a program over names in lockstep, so that a rune costs no more
// than the program has instructions, and counts the steps.
type matcher struct {
	prog    *syntax.Prog
	steps   int
	place   int   // in the names, counted on
	seen    []int // by instruction: the place at which it was last added
	now     []uint32
	next    []uint32
	stack   []uint32
	matched bool // the program ends at this place in the name
}

func newMatcher(prog *syntax.Prog) *matcher {
	return &matcher{prog: prog, seen: make([]int, len(prog.Inst))}
}

// add adds an instruction to the list, and those it leads to without a rune.
func (m *matcher) add(list []uint32, pc uint32, at syntax.EmptyOp) []uint32 {
	m.stack = append(m.stack[:0], pc)
	for len(m.stack) > 0 {
		pc := m.stack[len(m.stack)-1]
		m.stack = m.stack[:len(m.stack)-1]
		m.steps++
		if m.seen[pc] == m.place {
			continue
		}
		m.seen[pc] = m.place
		i := &m.prog.Inst[pc]
		switch i.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			m.stack = append(m.stack, i.Out, i.Arg)
		case syntax.InstCapture, syntax.InstNop:
			m.stack = append(m.stack, i.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(i.Arg)&^at == 0 {
				m.stack = append(m.stack, i.Out)
			}
		case syntax.InstMatch:
			m.matched = true
		case syntax.InstFail:
		default:
			list = append(list, pc)
		}
	}
	return list
}

// match reports whether the program matches a name from end to end. It gives up when
// more than limit steps have been taken, over all names.
func (m *matcher) match(name string, limit int) (bool, error) {
	before := rune(-1)
	r, size := first(name)
	m.place++
	m.matched = false
	m.now = m.add(m.now[:0], uint32(m.prog.Start), syntax.EmptyOpContext(before, r))
	for len(name) > 0 {
		name = name[size:]
		before = r
		r, size = first(name)
		at := syntax.EmptyOpContext(before, r)
		m.place++
		m.matched = false
		m.next = m.next[:0]
		for _, pc := range m.now {
			m.steps++
			if i := &m.prog.Inst[pc]; i.MatchRune(before) {
				m.next = m.add(m.next, i.Out, at)
			}
		}
		m.now, m.next = m.next, m.now
		if m.steps > limit {
			return false, errSlowExpression
		}
	}
	return m.matched, nil
}

// first returns the first rune of s and its size; -1 and 0: there is none.
func first(s string) (rune, int) {
	if s == "" {
		return -1, 0
	}
	return utf8.DecodeRuneInString(s)
}

// resolve returns the topics that are seen and whose names an expression matches,
// ascending. It runs
// without any lock, one expression at a time on a node, and hosts by turns. errNotIn
// if ctx ends first.
func (c *Coordinator) resolve(ctx context.Context, host string, sight Sight, expression string) ([]string, error) {
	if err := c.matching.take(ctx, c.done, host); err != nil {
		return nil, err
	}
	defer c.matching.leave()
	prog, err := compile(expression)
	if err != nil {
		return nil, err
	}
	if c.cfg.Topics == nil {
		return nil, nil
	}
	var matches []string
	m, names := newMatcher(prog), c.cfg.Topics.Names()
	for _, name := range names {
		ok, err := m.match(name, stepsOf(len(names)))
		if err != nil {
			return nil, err
		}
		if ok && (sight == nil || sight.Sees(name)) {
			matches = append(matches, name)
		}
	}
	slices.Sort(matches)
	return matches, nil
}

// resolved reports whether a group has resolved an expression, as it has once a member
// has joined with it: whoever joins with the same costs nothing more. Otherwise it
// returns the code for a group that is not served here.
func (c *Coordinator) resolved(group, expression string) (is bool, code protocol.Code) {
	s, code := c.shardOf(group)
	if code != protocol.None {
		return false, code
	}
	if !s.Do(func() {
		if g := s.groupLocked(group); g != nil {
			if cg, ok := g.members.(*consumerGroup); ok {
				is = cg.regex(expression) != nil
			}
		}
	}) {
		return false, protocol.NotCoordinator
	}
	return is, protocol.None
}

// A resolver matches the expressions of a consumer group again when topics have changed.
type resolver struct {
	of         *consumerGroup
	resolving  bool            // the goroutine "resolver" runs, or what it found is on its way to the journal
	resolvedAt time.Time       // when all expressions were resolved; zero: not here
	resolvedBy <-chan struct{} // of Topics, from before that
}

// resolveLocked starts the resolver if topics have changed since the group's
// expressions were resolved, and group.consumer.regex.refresh.interval.ms is over. They
// match what is seen by the member that beats, which has an expression itself, as in Kafka.
func (r *resolver) resolveLocked(sight Sight) {
	c := r.of
	topics, now := c.shard.c.cfg.Topics, c.shard.Now()
	if r.resolving || len(c.regexes) == 0 || topics == nil || c.shard.EndedLocked() || !over(r.resolvedBy) {
		return
	}
	if r.resolvedAt.IsZero() { // not by this coordinator: the records say when
		r.resolvedAt = now
		for _, v := range c.regexes {
			if v.at < millis(r.resolvedAt) {
				r.resolvedAt = now.Add(-millisOf(millis(now) - v.at))
			}
		}
	}
	if now.Sub(r.resolvedAt) < c.shard.c.settings().Consumer.RegexRefresh {
		return
	}
	r.resolving = true
	expressions := c.allRegexes()
	changed := topics.Changed()
	c.shard.c.workers.Go(func() { r.refresh(sight, expressions, changed) })
}

// refresh is the goroutine "resolver". An expression that has become too slow keeps
// what it matched.
func (r *resolver) refresh(sight Sight, expressions []string, changed <-chan struct{}) {
	c := r.of
	found := make(map[string][]string)
	for _, expression := range expressions {
		var matches []string
		var err error
		if failed := coordinator.Catch(func() { matches, err = c.shard.c.resolve(context.Background(), "", sight, expression) }); failed != nil {
			err = failed
		}
		if err != nil {
			c.shard.Log.Warn("an expression is not resolved again", "group", c.group.id, "error", err)
			continue
		}
		found[expression] = matches
	}
	c.shard.Lock()
	defer c.shard.Unlock()
	(&refreshed{c, found, changed}).againLocked()
}

// A refreshed is the step that puts what expressions match by now.
type refreshed struct {
	c       *consumerGroup
	found   map[string][]string // topics by expression
	changed <-chan struct{}     // of Topics, from before they were looked for
}

// againLocked implements step.
func (f *refreshed) againLocked() {
	if !f.c.shard.EndedLocked() && f.c.currentLocked() {
		f.c.stepLocked(f)
	}
}

func (f *refreshed) fail(protocol.Code) {}

func (f *refreshed) on(d *draft) func(error) {
	moved := false
	for expression, matches := range f.found {
		if old := d.regex(expression); old != nil && !slices.Equal(old.topics, matches) {
			d.put(regexKey, expression, regexValue{topics: matches, version: millis(d.now), at: millis(d.now)}.append(nil))
			moved = true
		}
	}
	if moved {
		d.bump()
		d.replan()
	}
	return func(err error) {
		c := f.c
		c.resolving = false
		if err == nil {
			c.resolvedAt, c.resolvedBy = c.shard.Now(), f.changed
			c.afterStep(nil)
		}
	}
}
