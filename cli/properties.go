package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// readProperties reads the file format of Kafka's server.properties: KEY=VALUE
// lines, comments that begin with # or !, blank lines, a backslash at the end of
// a line that goes on. A key given twice is an error, unlike in Java, where the
// last one wins and nobody notices.
func readProperties(r io.Reader) (map[string]string, error) {
	all := make(map[string]string)
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		at := n
		for strings.HasSuffix(line, `\`) && lines.Scan() {
			n++
			line = strings.TrimSuffix(line, `\`) + strings.TrimSpace(lines.Text())
		}
		i := strings.IndexAny(line, "=:")
		if i < 0 {
			return nil, fmt.Errorf("line %d: %q is not KEY=VALUE", at, line)
		}
		key, value := strings.TrimSpace(line[:i]), strings.TrimSpace(line[i+1:])
		if key == "" {
			return nil, fmt.Errorf("line %d: no key before %q", at, line[i:])
		}
		if _, twice := all[key]; twice {
			return nil, fmt.Errorf("line %d: %s is given twice", at, key)
		}
		all[key] = value
	}
	return all, lines.Err()
}
