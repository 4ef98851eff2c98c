package group

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"millrace/internal/storytest"
	"millrace/server/protocol"
)

// TestStories runs testdata/group/*.txt, each with one group, "g", in virtual time: a
// command with its arguments, "----" and what came of it. Clients take a step each second
// of a wait, in the order in which they came: they join, sync, beat, give back what they
// are to, and join again as they are told.
//
//	topic NAME PARTITIONS        there is such a topic; 0: there is not any more
//	policy WORD                  group.consumer.migration.policy, from the next move on
//	classic NAME [static]        a client of the classic protocol comes, which assigns eagerly
//	cooperative NAME [static]    the same, which assigns cooperatively
//	consumer NAME [static]       a client of the consumer protocol comes
//	wait DURATION                time passes: what clients learn, and when
//	die NAME                     its process is gone, and nobody has noticed
//	hang-up NAME                 the same, and its connection has ended
//	restart NAME                 a new process, under the instance id of one that died
//	leave NAME                   it leaves in order
//	away NAME                    a static consumer leaves, to be back within its session
//	commit NAME OFFSET           of partition 0 of the topic t
//	offset                       what is committed there
//	move                         another node leads the partition and loads its journal
//	group                        the group as an operator sees it
//	journal                      what it is to a compacted journal, key by key
//
// After each command a coordinator that has just loaded the journal describes the group
// as the one that serves it does, unless a rebalance is under way.
func TestStories(t *testing.T) {
	storytest.Run(t, "../../testdata/group/*.txt", func(t *testing.T, text string) (got string) {
		synctest.Test(t, func(t *testing.T) { got = tell(t, text) })
		return got
	})
}

// A teller plays one story.
type teller struct {
	t       *testing.T
	p       *journal
	c       *Coordinator
	topics  *shelf
	policy  string
	clients []*actor
	names   map[string]string // of member ids
	count   map[string]int    // ids by the part that is not made up
}

// An actor is a client of a story.
type actor struct {
	name   string
	rider  *rider  // of the classic protocol
	beater *beater // of the consumer protocol
	gone   bool    // it takes no steps any more
	shown  string  // what it knew when that was told last
}

func tell(t *testing.T, text string) string {
	s := &teller{t: t, p: &journal{}, topics: newShelf(map[string]int32{}), names: make(map[string]string), count: make(map[string]int)}
	s.move()
	told := storytest.Tell(text, func(command, _ []string) string {
		defer s.reload()
		return s.do(command)
	})
	for _, a := range s.clients {
		a.gone = true
	}
	s.c.Close()
	time.Sleep(2 * time.Minute) // whoever waits is answered
	return told
}

func (s *teller) do(args []string) string {
	arg := func(i int) string {
		if i >= len(args) {
			s.t.Fatalf("%v: too few arguments", args)
		}
		return args[i]
	}
	switch args[0] {
	case "topic":
		n, err := strconv.Atoi(arg(2))
		if err != nil {
			s.t.Fatalf("%v: %v", args, err)
		}
		s.topics.set(arg(1), int32(n))
	case "policy":
		s.policy = arg(1)
	case "classic", "cooperative", "consumer":
		s.come(args[0], arg(1), slices.Contains(args, "static"))
	case "wait":
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			s.t.Fatalf("%v: %v", args, err)
		}
		return s.wait(d)
	case "die":
		s.actor(arg(1)).gone = true
	case "hang-up":
		a := s.actor(arg(1))
		a.gone = true
		s.c.Disconnected("g", a.id())
	case "restart":
		s.actor(arg(1)).restart()
	case "leave":
		a := s.actor(arg(1))
		a.gone = true
		return nameOfCode(a.leave())
	case "away":
		a := s.actor(arg(1))
		a.gone, a.beater.epoch, a.beater.owned = true, epochLeaveStatic, assignment{}
		return nameOfCode(a.beater.beat())
	case "commit":
		offset, err := strconv.ParseInt(arg(2), 10, 64)
		if err != nil {
			s.t.Fatalf("%v: %v", args, err)
		}
		a := s.actor(arg(1))
		return nameOfCode(commit(s.c, "g", a.id(), nil, a.epoch(), "t", 0, offset))
	case "offset":
		return fmt.Sprint(fetched(s.t, s.c, "g", "t"))
	case "move":
		return s.move()
	case "group":
		return s.describe(s.c)
	case "journal":
		return s.journal()
	default:
		s.t.Fatalf("unknown command %v", args)
	}
	return ""
}

func (s *teller) config() Config {
	return Config{Topics: s.topics, Settings: set{Consumer: ConsumerSettings{MigrationPolicy: s.policy}}}
}

// move has another coordinator take over.
func (s *teller) move() string {
	old := s.c
	s.c = s.p.takeOver(s.t, s.config())
	if old != nil {
		old.Close()
	}
	for _, a := range s.clients {
		a.moveTo(s.c)
	}
	synctest.Wait()
	return ""
}

// reload holds the journal against what is served.
func (s *teller) reload() {
	served := s.describe(s.c)
	if strings.Contains(served, "Rebalance") {
		return
	}
	p := new(journal)
	for r := range s.p.Records() {
		p.Put(r)
	}
	c := p.takeOver(s.t, s.config())
	defer c.Close()
	if loaded := s.describe(c); loaded != served {
		s.t.Errorf("it is\n%s\nand loaded from the journal\n%s", served, loaded)
	}
}

func (s *teller) actor(name string) *actor {
	i := slices.IndexFunc(s.clients, func(a *actor) bool { return a.name == name })
	if i < 0 {
		s.t.Fatalf("there is no client %s", name)
	}
	return s.clients[i]
}

func (s *teller) come(kind, name string, static bool) {
	a := &actor{name: name}
	var instance *string
	if static {
		instance = &name
	}
	if kind == "consumer" {
		a.beater = newBeater(s.c, name, "t")
		a.beater.instance = instance
	} else {
		a.rider = newRider(s.c, kind == "cooperative", "t")
		a.rider.name, a.rider.instance = name, instance
	}
	s.clients = append(s.clients, a)
}

// wait lets clients take a step each second, and tells what they learn.
func (s *teller) wait(d time.Duration) string {
	var out []string
	for began := time.Now(); time.Since(began) < d; {
		time.Sleep(time.Second)
		synctest.Wait()
		for _, a := range s.clients {
			if a.gone {
				continue
			}
			a.step()
			if knows := a.knows(); knows != a.shown {
				a.shown = knows
				out = append(out, fmt.Sprintf("%4s %s: %s", time.Since(began).Round(time.Second), a.name, knows))
			}
		}
	}
	return strings.Join(out, "\n")
}

func (a *actor) step() {
	if a.rider != nil {
		a.rider.step()
	} else {
		a.beater.last = a.beater.beat()
	}
}

// knows is what a client knows of its place in the group.
func (a *actor) knows() string {
	if b := a.beater; b != nil {
		if b.last != protocol.None {
			return nameOfCode(b.last)
		}
		return fmt.Sprintf("epoch %d, %s", b.epoch, listed(b.owned))
	}
	r := a.rider
	switch {
	case r.call != nil:
		return "joins"
	case r.sync != nil:
		return fmt.Sprintf("generation %d, syncs", r.generation)
	case !r.joined:
		return "is in no group"
	case r.rejoin:
		return fmt.Sprintf("generation %d, %s, is to join again", r.generation, listed(r.owned))
	}
	return fmt.Sprintf("generation %d, %s", r.generation, listed(r.owned))
}

func (a *actor) id() string {
	if a.rider != nil {
		return a.rider.id
	}
	return a.beater.id
}

func (a *actor) epoch() int32 {
	if a.rider != nil {
		return a.rider.generation
	}
	return a.beater.epoch
}

func (a *actor) leave() protocol.Code {
	if a.rider != nil {
		return a.rider.leave()
	}
	return a.beater.leave()
}

func (a *actor) moveTo(c *Coordinator) {
	if a.rider != nil {
		a.rider.c = c
	} else {
		a.beater.c = c
	}
}

// restart is a new process: of the classic protocol it has no member id yet, of the
// consumer protocol it has made up another.
func (a *actor) restart() {
	a.gone, a.shown = false, ""
	if r := a.rider; r != nil {
		a.rider = newRider(r.c, r.cooperative, r.topics...)
		a.rider.name, a.rider.instance = r.name, r.instance
		return
	}
	b := a.beater
	a.beater = newBeater(b.c, b.id+"'", b.topics...)
	a.beater.instance = b.instance
}

func listed(a assignment) string {
	if a.count() == 0 {
		return "nothing"
	}
	var out []string
	for topic, parts := range a {
		out = append(out, strings.Trim(fmt.Sprint(nameOf(topic), " ", parts), "[]"))
	}
	slices.Sort(out)
	return strings.NewReplacer("[", "", "]", "").Replace(strings.Join(out, ", "))
}

func nameOfCode(code protocol.Code) string {
	if code == protocol.None {
		return ""
	}
	return kerr.TypedErrorForCode(int16(code)).Message
}

var madeUpPart = regexp.MustCompile(`-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// called is a member id without what was made up of it: "a", and "a/2" for the next of
// that client.
func (s *teller) called(id string) string {
	if s.names[id] == "" {
		name := madeUpPart.ReplaceAllString(id, "")
		if s.count[name]++; s.count[name] > 1 {
			s.names[id] = fmt.Sprint(name, "/", s.count[name])
		} else {
			s.names[id] = name
		}
	}
	return s.names[id]
}

// describe is the group as ConsumerGroupDescribe or DescribeGroups tells of it.
func (s *teller) describe(c *Coordinator) string {
	var out []string
	if d := describe(c); d.ErrorCode == int16(protocol.None) {
		for _, m := range d.Members {
			kind := "consumer"
			if m.MemberType == 0 {
				kind = "classic"
			}
			has, to := make(assignment), make(assignment)
			for _, tp := range m.Assignment.TopicPartitions {
				has[tp.TopicID] = tp.Partitions
			}
			for _, tp := range m.TargetAssignment.TopicPartitions {
				to[tp.TopicID] = tp.Partitions
			}
			line := fmt.Sprintf("  %s, %s: epoch %d, %s", s.called(m.MemberID), kind, m.MemberEpoch, listed(has))
			if !has.equal(to) {
				line += ", is to have " + listed(to)
			}
			out = append(out, line)
		}
		slices.Sort(out)
		return strings.Join(append([]string{fmt.Sprintf("consumer, %s, epoch %d, target of epoch %d", d.State, d.Epoch, d.AssignmentEpoch)}, out...), "\n")
	}
	d := stateOf(c, "g")
	if d.State == "Dead" {
		return "there is none"
	}
	sh := &shard{c: c}
	for _, m := range d.Members {
		line := "  " + s.called(m.MemberID)
		if has, ok := sh.decodeAssignment(m.MemberAssignment); ok && d.State == "Stable" {
			line += ": " + listed(has)
		}
		out = append(out, line)
	}
	return strings.Join(append([]string{"classic, " + d.State}, out...), "\n")
}

// journal is what a compacted journal says: the newest record of each key.
func (s *teller) journal() string {
	newest := make(map[string]string)
	for r := range s.p.Records() {
		k, err := parseKey(r.Key)
		if err != nil {
			s.t.Fatal(err)
		}
		subject, says := s.read(k, r.Value)
		if newest[subject] = says; r.Value == nil {
			delete(newest, subject)
		}
	}
	var out []string
	for _, subject := range slices.Sorted(maps.Keys(newest)) {
		out = append(out, strings.TrimSpace(subject+": "+newest[subject]))
	}
	return strings.Join(out, "\n")
}

// read is what a record is about, and what it says.
func (s *teller) read(k key, value []byte) (subject, says string) {
	check := func(err error) {
		if err != nil {
			s.t.Fatal(err)
		}
	}
	switch k.version {
	case 0, 1:
		subject = fmt.Sprintf("offset of %s-%d", k.topic, k.partition)
		if value != nil {
			o, err := parseOffset(value)
			check(err)
			says = fmt.Sprint(o.offset)
		}
		return subject, says
	case 2:
		subject = "classic group"
		if value != nil {
			v, err := parseClassic(value)
			check(err)
			says = fmt.Sprintf("generation %d", v.Generation)
			for _, m := range v.Members {
				has, _ := (&shard{c: s.c}).decodeAssignment(m.Assignment)
				says += fmt.Sprintf("; %s: %s", s.called(m.MemberID), listed(has))
			}
		}
		return subject, says
	}
	_, name, err := parseConsumerKey(k.version, k.rest)
	check(err)
	name = s.called(name)
	switch k.version {
	case groupEpochKey:
		subject = "group epoch"
		if value != nil {
			v, err := parseGroupEpoch(value)
			check(err)
			says = fmt.Sprint(v.epoch)
		}
	case memberKey:
		subject = "member " + name
		if value != nil {
			v, err := parseMember(value)
			check(err)
			says = "reads " + strings.Join(v.topics, " ")
			if v.classic != nil {
				says += ", by the classic protocol"
			}
		}
	case targetEpochKey:
		subject = "target epoch"
		if value != nil {
			v, err := parseTargetEpoch(value)
			check(err)
			says = fmt.Sprint(int32(v))
		}
	case targetKey:
		subject = "target of " + name
		if value != nil {
			v, err := parseTarget(value)
			check(err)
			says = listed(v)
		}
	case currentKey:
		subject = "current of " + name
		if value != nil {
			v, err := parseCurrent(value)
			check(err)
			says = fmt.Sprintf("epoch %d, %s", v.epoch, listed(v.assigned))
			if v.revoking.count() > 0 {
				says += ", gives back " + listed(v.revoking)
			}
		}
	default:
		s.t.Fatalf("a record with a key of version %d", k.version)
	}
	return subject, says
}
