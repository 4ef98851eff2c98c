package millrace

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"millrace/replication/metadata/settings"
)

// TestSettingsAreDocumented holds docs/settings.md to the definitions in the code. go
// test -run TestSettings . -rewrite writes it.
func TestSettingsAreDocumented(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Settings

Written from the code by ` + "`go test -run TestSettings . -rewrite`" + `; what a cluster has in force is shown by
` + "`millrace cluster config list`" + ` and ` + "`millrace topic config TOPIC`" + `.

A broker's settings come from ` + "`serve --config FILE`" + `, from ` + "`KAFKA_LOG_RETENTION_HOURS`" + ` or
` + "`MILLRACE_CFG_LOG_RETENTION_HOURS`" + ` in the environment (each wins over what stands before it), and while the cluster
runs from ` + "`kafka-configs --alter`" + ` or any other client, save for those marked *fixed*. Those marked *cluster* can be
changed for all brokers only, the others for one as well. Units work at the start: ` + "`7d`, `10MB`" + `.
`)
	section := func(title string, all []*settings.Definition, broker bool) {
		fmt.Fprintf(&b, "\n## %s\n\n", title)
		for _, d := range all {
			value := "`" + d.Default + "`"
			switch {
			case d.Null:
				value = "none"
			case d.Default == "":
				value = "empty"
			}
			mark := ""
			switch {
			case d.ReadOnly:
				mark = "; *fixed*"
			case broker && !d.PerNode:
				mark = "; *cluster*"
			}
			from := ""
			for i, s := range d.Synonyms {
				from += map[bool]string{true: " Where not set: the broker's ", false: ", "}[i == 0] + "`" + s.Name + "`"
			}
			if from != "" {
				from += "."
			}
			fmt.Fprintf(&b, "- **`%s`** (%s; %s%s). %s%s\n", d.Name, value, d.Allowed(), mark, d.Doc, from)
		}
	}
	section("Brokers", settings.BrokerDefinitions(), true)
	section("Topics", settings.TopicDefinitions(), false)
	section("Groups", settings.ResourceDefinitions(settings.Group), false)
	section("Clients' metrics", settings.ResourceDefinitions(settings.ClientMetrics), false)
	const name = "docs/settings.md"
	if *rewrite {
		if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	doc, err := os.ReadFile(name)
	if err != nil || string(doc) != b.String() {
		t.Errorf("%s does not say what the code says (%v); run go test -run TestSettings . -rewrite", name, err)
	}
}
