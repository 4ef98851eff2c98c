package bulletin

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/replication/metadata"
)

// said returns a logger and what has been said to it since the last call: lines without
// a time.
func said() (logger *slog.Logger, lines func() []string) {
	var to bytes.Buffer
	logger = slog.New(slog.NewTextHandler(&to, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	return logger, func() []string {
		defer to.Reset()
		return strings.Split(strings.TrimSuffix(to.String(), "\n"), "\n")
	}
}

// What happens to many groups is said once it has been quiet for a second, in a line for
// all; of one that has no name any more nothing is said.
func TestNewsOfManyGroupsAreOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, lines := said()
		var groups Groups
		name := func(group uint64) string {
			if group > 5 {
				return ""
			}
			return fmt.Sprint("flights/", group)
		}
		for group := range uint64(9) {
			groups.Add(Headline{Text: "this node leads more partitions"}, group)
			time.Sleep(newsQuiet / 2)
			groups.Log(logger, time.Now(), name)
		}
		groups.Add(Headline{Text: "membership changed", What: "added", Who: "2.ab"}, 1)
		groups.Add(Headline{Text: "membership changed", What: "added", Who: "3.cd"}, 8)
		if got := lines(); len(got) != 1 || got[0] != "" {
			t.Errorf("it is said while it goes on: %q", got)
		}
		time.Sleep(newsQuiet)
		for range 2 {
			groups.Log(logger, time.Now(), name)
		}
		got := strings.Join(lines(), "\n")
		for _, want := range []string{
			`level=INFO msg="this node leads more partitions" count=6 partitions="[flights/0 flights/1 flights/2 …]"`,
			`level=INFO msg="membership changed" added=2.ab count=1 partitions=[flights/1]`,
		} {
			if strings.Count(got, want) != 1 {
				t.Errorf("said:\n%s\nwant once: %s", got, want)
			}
		}
		if strings.Contains(got, "3.cd") {
			t.Errorf("of a partition that is gone it is said:\n%s", got)
		}
		// What does not end is said all the same.
		began := time.Now()
		for got = ""; got == "" && time.Since(began) < 2*newsLate; {
			groups.Add(Headline{Text: "again"}, 1)
			time.Sleep(newsQuiet / 2)
			groups.Log(logger, time.Now(), name)
			got = strings.Join(lines(), "\n")
		}
		if after := time.Since(began); after != newsLate {
			t.Errorf("what goes on is said after %v, want %v", after, newsLate)
		}
	})
}

// A peer that comes and goes many times a second does not fill the log, and how that
// ended is said.
func TestAPeerThatComesAndGoesIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, lines := said()
		var peers Peers
		for range 100 {
			peers.Say(logger, 9, true, false)
			peers.Say(logger, 9, false, false)
			time.Sleep(100 * time.Millisecond)
			peers.Log(logger, time.Now())
		}
		for range 120 {
			time.Sleep(time.Second)
			peers.Log(logger, time.Now())
		}
		peers.Say(logger, 9, true, false)
		got := lines()
		want := fmt.Sprintf(`level=WARN msg="peer comes and goes" node=9 times=%d up=false`, 200-comingsSaid)
		if len(got) != comingsSaid+2 || got[comingsSaid] != want || got[comingsSaid+1] != `level=INFO msg="peer is up" node=9` {
			t.Errorf("%s", strings.Join(got, "\n"))
		}
		// Of a node that stops itself the others are perhaps all stopped, too.
		peers.Say(logger, 8, false, true)
		peers.Say(logger, 7, false, false)
		if got := lines(); len(got) != 2 || got[0] != `level=INFO msg="peer is down" node=8` || got[1] != `level=WARN msg="peer is down" node=7` {
			t.Errorf("%q", got)
		}
	})
}

// The log says how a long setting begins; what is set stays as it is.
func TestALongSettingIsCut(t *testing.T) {
	logger, lines := said()
	set := map[string]string{"short": strings.Repeat("v", settingSaid), "long": strings.Repeat("v", settingSaid+1)}
	Change(logger, &metadata.Image{}, &metadata.Image{}, metadata.SetBrokerConfig{Set: set})
	want := fmt.Sprintf(`level=INFO msg="settings of brokers changed" broker=all set="map[long:%[1]s… short:%[1]s]"`, set["short"])
	if got := lines(); len(got) != 1 || got[0] != want {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	if len(set["long"]) != settingSaid+1 {
		t.Error("the setting is cut")
	}
}
