//go:build conformance

package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A groupView is what one tool says of a group: "COLUMN" of the group as a whole,
// "TOPIC/PARTITION COLUMN" of a partition.
type groupView map[string]string

// TestGroupDescribeAgrees holds three descriptions of a group against each other,
// column by column: kafka-consumer-groups --describe, millrace group describe and
// franz-go's admin client. While it has members, and when they are gone.
func TestGroupDescribeAgrees(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "millrace")
	if _, err := call(".", "go", "build", "-o", binary, "millrace/cli/millrace"); err != nil {
		t.Fatal(err)
	}
	tool := runJava(t, setUpJava(t, "kafka-tools", kafkaToolsRelease), "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand")
	topic, group := "described"+suffix, "describers"+suffix
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	if _, err := admin.CreateTopic(ctx, 3, replication, nil, topic); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		r := &kgo.Record{Topic: topic, Partition: int32(i % 3), Value: fmt.Append(nil, i)}
		if err := own.ProduceSync(ctx, r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	// The log begins somewhere, the group is somewhere else in each partition.
	var before kadm.Offsets
	before.AddOffset(topic, 1, 5, -1)
	if _, err := admin.DeleteRecords(ctx, before); err != nil {
		t.Fatal(err)
	}
	var committed kadm.Offsets
	for p, offset := range []int64{20, 7, 12} {
		committed.AddOffset(topic, int32(p), offset, -1)
	}
	if err := admin.CommitAllOffsets(ctx, group, committed); err != nil {
		t.Fatal(err)
	}

	var members []*kgo.Client
	for i := range 2 {
		member, err := kgo.NewClient(
			kgo.SeedBrokers(brokers...), kgo.ClientID(fmt.Sprintf("describer-%d", i)),
			kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.Balancers(kgo.RangeBalancer()),
		)
		if err != nil {
			t.Fatal(err)
		}
		defer member.Close()
		members = append(members, member)
		go member.PollFetches(ctx) // joins
	}
	compare := func(t *testing.T, state string, count string) {
		deadline := time.Now().Add(patience)
		for {
			views := map[string]groupView{
				"kafka-consumer-groups": javaView(t, tool, group),
				"millrace":              millraceView(t, binary, group),
				"franz-go":              adminView(t, ctx, group),
			}
			settled := true
			for _, v := range views {
				settled = settled && v["STATE"] == state && v["MEMBERS"] == count
			}
			if !settled && time.Now().Before(deadline) {
				time.Sleep(200 * time.Millisecond)
				continue
			}
			// They are asked one after the other, and the coordinator may move meanwhile, as
			// to the preferred replica: then all are asked again.
			want := views["franz-go"]
			cells := 0
			var differences []string
			for name, view := range views {
				for _, column := range slices.Sorted(maps.Keys(view)) {
					cells++
					if view[column] != want[column] {
						differences = append(differences, fmt.Sprintf("%s says %s is %q, franz-go says %q", name, column, view[column], want[column]))
					}
				}
			}
			if len(differences) > 0 && time.Now().Before(deadline) {
				continue
			}
			for _, d := range differences {
				t.Error(d)
			}
			if columns := 3*6 + 4; len(views["kafka-consumer-groups"]) < columns || !settled {
				t.Errorf("kafka-consumer-groups told %d things, at least %d were expected: %v", len(views["kafka-consumer-groups"]), columns, views)
			}
			if want["STATE"] != state || want["MEMBERS"] != count || want[topic+"/1 LAG"] != "13" {
				t.Errorf("the group is not as it was made: %v", want)
			}
			fmt.Printf("figure %s: %d cells of three tools agree\n", t.Name(), cells)
			return
		}
	}
	t.Run("stable", func(t *testing.T) { compare(t, "Stable", "2") })
	for _, m := range members {
		m.LeaveGroup()
	}
	t.Run("empty", func(t *testing.T) { compare(t, "Empty", "0") })
}

// beforeID is the space between a coordinator's address and its id.
var beforeID = regexp.MustCompile(`\s+\(`)

// javaView runs kafka-consumer-groups twice: for the state, and then for
// partitions, which are those of that state if it is one that stays.
func javaView(t *testing.T, tool []string, group string) groupView {
	t.Helper()
	v := groupView{}
	table := func(args ...string) (rows []map[string]string) {
		cmd := exec.Command(tool[0], slices.Concat(tool[1:], []string{"--bootstrap-server", brokers[0], "--describe", "--group", group}, args)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
		var header []string
		for line := range strings.Lines(string(out)) {
			// A coordinator is "HOST:PORT (ID)": one cell.
			cells := strings.Fields(beforeID.ReplaceAllString(line, "("))
			switch {
			case len(cells) > 0 && cells[0] == "GROUP":
				// "COORDINATOR (ID)", written as one by the same rule.
				header = cells
			case len(cells) == len(header) && len(cells) > 0:
				row := map[string]string{}
				for i, h := range header {
					row[h] = cells[i]
				}
				rows = append(rows, row)
			}
		}
		return rows
	}
	for _, row := range table("--state") {
		v["GROUP"], v["STATE"], v["MEMBERS"] = row["GROUP"], row["STATE"], row["#MEMBERS"]
		_, id, _ := strings.Cut(row["COORDINATOR(ID)"], "(")
		v["COORDINATOR"] = strings.TrimSuffix(id, ")")
		if row["ASSIGNMENT-STRATEGY"] != "-" && row["STATE"] == "Stable" {
			v["BALANCER"] = row["ASSIGNMENT-STRATEGY"]
		}
	}
	for _, row := range table() {
		at := row["TOPIC"] + "/" + row["PARTITION"]
		for theirs, ours := range map[string]string{
			"CURRENT-OFFSET": "CURRENT-OFFSET", "LOG-END-OFFSET": "LOG-END-OFFSET", "LAG": "LAG",
			"CONSUMER-ID": "MEMBER-ID", "HOST": "HOST", "CLIENT-ID": "CLIENT-ID",
		} {
			v[at+" "+ours] = row[theirs]
		}
	}
	return v
}

func millraceView(t *testing.T, binary, group string) groupView {
	t.Helper()
	cmd := exec.Command(binary, "group", "describe", group, "-o", "json", "--brokers", strings.Join(brokers, ","))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	var d struct {
		Name, State, Balancer string
		Coordinator, Members  int
		TotalLag              int64 `json:"total_lag"`
		Partitions            []struct {
			Topic          string
			Partition      int
			CurrentOffset  int64  `json:"current_offset"`
			LogStartOffset int64  `json:"log_start_offset"`
			LogEndOffset   int64  `json:"log_end_offset"`
			Lag            int64  `json:"lag"`
			MemberID       string `json:"member_id"`
			ClientID       string `json:"client_id"`
			Host           string `json:"host"`
		}
	}
	if err := json.Unmarshal(out, &d); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	v := groupView{"GROUP": d.Name, "STATE": d.State, "MEMBERS": fmt.Sprint(d.Members), "COORDINATOR": fmt.Sprint(d.Coordinator), "TOTAL-LAG": fmt.Sprint(d.TotalLag)}
	if d.State == "Stable" {
		v["BALANCER"] = d.Balancer
	}
	for _, p := range d.Partitions {
		v.add(p.Topic, p.Partition, p.CurrentOffset, p.LogEndOffset, p.Lag, p.MemberID, p.Host, p.ClientID)
		v[fmt.Sprintf("%s/%d LOG-START-OFFSET", p.Topic, p.Partition)] = fmt.Sprint(p.LogStartOffset)
	}
	return v
}

func adminView(t *testing.T, ctx context.Context, group string) groupView {
	t.Helper()
	lags, err := admin.Lag(ctx, group)
	if err != nil {
		t.Fatal(err)
	}
	l := lags[group]
	if err := l.Error(); err != nil {
		t.Fatal(err)
	}
	v := groupView{"GROUP": l.Group, "STATE": l.State, "MEMBERS": fmt.Sprint(len(l.Members)), "COORDINATOR": fmt.Sprint(l.Coordinator.NodeID), "TOTAL-LAG": fmt.Sprint(l.Lag.Total())}
	if l.State == "Stable" {
		v["BALANCER"] = l.Protocol
	}
	for _, p := range l.Lag.Sorted() {
		member, host, client := "", "", ""
		if p.Member != nil {
			member, host, client = p.Member.MemberID, p.Member.ClientHost, p.Member.ClientID
		}
		v.add(p.Topic, int(p.Partition), p.Commit.At, p.End.Offset, p.Lag, member, host, client)
		v[fmt.Sprintf("%s/%d LOG-START-OFFSET", p.Topic, p.Partition)] = fmt.Sprint(p.Start.Offset)
	}
	return v
}

// add notes what all three tools say of a partition.
func (v groupView) add(topic string, partition int, current, end, lag int64, member, host, client string) {
	at := fmt.Sprintf("%s/%d ", topic, partition)
	v[at+"CURRENT-OFFSET"], v[at+"LOG-END-OFFSET"], v[at+"LAG"] = fmt.Sprint(current), fmt.Sprint(end), fmt.Sprint(lag)
	for column, cell := range map[string]string{"MEMBER-ID": member, "HOST": host, "CLIENT-ID": client} {
		if cell == "" {
			cell = "-"
		}
		v[at+column] = cell
	}
}
