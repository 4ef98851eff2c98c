package partition

import (
	"testing"
	"time"

	"millrace/replication/metadata/settings"
)

// Who finds new settings at the moment at which they come finds that they have to wait.
func TestNewSettingsAreNeverFoundWithoutTheirDelay(t *testing.T) {
	p := &Partition{site: site{env: &Env{Now: time.Now, Host: new(testNode)}}}
	for range 5000 {
		p.deleteFrom.Store(0)
		p.settings.Store(&settings.Topic{RetentionMillis: -1, FileDeleteDelayMillis: 60_000})
		go p.Configure(settings.Topic{RetentionMillis: 1, FileDeleteDelayMillis: 60_000})
		for found := false; !found; {
			s, _, spared := p.deletable(time.Now())
			if found = s.RetentionMillis == 1; found && !spared {
				t.Fatal("new settings without a delay")
			}
		}
	}
}

// segment.jitter.ms: partitions that were made together are not rolled together.
func TestSegmentsAreClosedAtDifferentTimes(t *testing.T) {
	ages := make(map[time.Duration]bool)
	for range 20 {
		p := &Partition{site: site{env: &Env{}}}
		p.settings.Store(&settings.Topic{SegmentMillis: 1_000_000, SegmentJitterMillis: 400_000})
		age := p.logConfig().SegmentAge
		if age <= 600*time.Second || age > 1000*time.Second {
			t.Fatalf("a segment of at most 1000 s is closed after %v, with 400 s of jitter", age)
		}
		ages[age] = true
	}
	if len(ages) < 15 {
		t.Errorf("20 partitions have %d different ages", len(ages))
	}
}
