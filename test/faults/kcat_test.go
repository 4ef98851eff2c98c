//go:build faults

package faults

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// kcat runs kcat against the cluster.
func (c *cluster) kcat(stdin string, args ...string) (out, errs string, status int) {
	c.t.Helper()
	return c.exec(bytes.NewBufferString(stdin), "kcat", append([]string{"-b", strings.Join(c.Addresses(), ",")}, args...)...)
}

// kcat, which is librdkafka, is a client as others are: what it sends comes back.
func TestKcatReadsWhatItWrote(t *testing.T) {
	if _, err := exec.LookPath("kcat"); err != nil {
		t.Skip("kcat is not installed (apt-get install kcat): not run")
	}
	c := startCluster(t, 3, nil)
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			topic := "kcat-" + codec
			c.createTopic(topic, 3)
			var lines, want []string
			for i := range 1000 {
				k, v := fmt.Sprintf("k%d", i%37), fmt.Sprintf("value %d %s", i, strings.Repeat("x", i%50))
				lines = append(lines, k+"|"+v)
				want = append(want, fmt.Sprintf("%s|%s|%d|%d|color=blue,n=1", k, v, len(k), len(v)))
			}
			args := []string{"-P", "-t", topic, "-K", "|", "-H", "color=blue", "-H", "n=1"}
			if codec != "none" {
				args = append(args, "-z", codec)
			}
			if out, errs, status := c.kcat(strings.Join(lines, "\n")+"\n", args...); status != 0 {
				t.Fatalf("produce: status %d: %s%s", status, out, errs)
			}
			// Nulls: an empty key and an empty value are null with -Z.
			if out, errs, status := c.kcat("nokey|\n|novalue\n", "-P", "-t", topic, "-K", "|", "-Z"); status != 0 {
				t.Fatalf("produce nulls: status %d: %s%s", status, out, errs)
			}
			want = append(want, "nokey||5|-1|", "|novalue|-1|7|")
			out, errs, status := c.kcat("", "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", `%k|%s|%K|%S|%h\n`)
			if status != 0 {
				t.Fatalf("consume: status %d: %s", status, errs)
			}
			got := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%d records consumed, %d produced; first difference: %s", len(got), len(want), firstDifference(got, want))
			}
		})
	}

	t.Run("list", func(t *testing.T) {
		out, errs, status := c.kcat("", "-L")
		if status != 0 {
			t.Fatalf("status %d: %s", status, errs)
		}
		for _, want := range []string{"3 brokers:", `topic "kcat-none" with 3 partitions:`, c.nodes[0].Address, c.nodes[1].Address, c.nodes[2].Address} {
			if !strings.Contains(out, want) {
				t.Errorf("kcat -L does not say %q:\n%s", want, out)
			}
		}
	})

	t.Run("offsets by time", func(t *testing.T) {
		c.createTopic("kcat-time", 1)
		l := newLedger(c, "kcat-time", 1)
		l.grow(300)
		records := l.readAll()[0]
		for _, i := range []int{0, 1, 150, len(records) - 1} {
			at := records[i].Timestamp.UnixMilli()
			out, errs, status := c.kcat("", "-Q", "-t", fmt.Sprintf("kcat-time:0:%d", at))
			if want := fmt.Sprintf("kcat-time [0] offset %d", i); status != 0 || !strings.Contains(out, want) {
				t.Errorf("-Q at record %d: status %d, %s%s, want %q", i, status, out, errs, want)
			}
		}
		out, _, _ := c.kcat("", "-Q", "-t", fmt.Sprintf("kcat-time:0:%d", records[len(records)-1].Timestamp.UnixMilli()+1000))
		if !strings.Contains(out, "offset -1") {
			t.Errorf("-Q after the last record: %s, want offset -1", oneLine(out))
		}
	})

	t.Run("features", func(t *testing.T) {
		// MsgVer1 and ThrottleTime are what Kafka 4 has no more. Groups and SASL come
		// later; librdkafka infers Sasl and LZ4 from the APIs of groups.
		allowed := []string{"MsgVer1", "ThrottleTime", "BrokerBalancedConsumer", "BrokerGroupCoordinator", "LZ4", "Sasl", "SaslHandshake", "SaslAuthReq"}
		_, errs, _ := c.kcat("", "-L", "-X", "debug=feature")
		missing := regexp.MustCompile(`Feature (\S+): .*NOT supported by broker`).FindAllStringSubmatch(errs, -1)
		disabled := regexp.MustCompile(`(?i)(?:disabling|missing) feature (\S+)`).FindAllStringSubmatch(errs, -1)
		if !strings.Contains(errs, "Feature") {
			t.Fatalf("kcat says nothing of features:\n%s", errs)
		}
		found := make(map[string]bool)
		for _, m := range append(missing, disabled...) {
			found[m[1]] = true
			if !slices.Contains(allowed, m[1]) {
				t.Errorf("kcat misses feature %s: %s", m[1], m[0])
			}
		}
		figure(t, "features kcat misses: %v", found)
	})
}

func firstDifference(got, want []string) string {
	for i := range max(len(got), len(want)) {
		g, w := "(nothing)", "(nothing)"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			return fmt.Sprintf("got %q, want %q", g, w)
		}
	}
	return "none"
}
