package millrace

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadmeShowsTheProgramsOfConnect holds the section Connect of README, in both languages,
// to the programs of testdata/connect, which test/conformance runs: each block of code there
// is the whole of one.
func TestReadmeShowsTheProgramsOfConnect(t *testing.T) {
	for name, heading := range map[string]string{"README.md": "Connect", "README.zh-CN.md": "连接"} {
		readme, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, section, found := strings.Cut(string(readme), "\n## "+heading+"\n")
		if !found {
			t.Fatalf("%s has no section %s", name, heading)
		}
		section, _, _ = strings.Cut(section, "\n## ")
		shown := 0
		for i, block := range strings.Split(section, "```") {
			if i%2 == 0 {
				continue
			}
			shown++
			language, code, _ := strings.Cut(block, "\n")
			programs, err := filepath.Glob("testdata/connect/*." + language)
			if err != nil {
				t.Fatal(err)
			}
			same := false
			for _, program := range programs {
				text, err := os.ReadFile(program)
				if err != nil {
					t.Fatal(err)
				}
				same = same || string(text) == code
			}
			if !same {
				t.Errorf("%s shows a program that is none of %q:\n%s", name, programs, code)
			}
		}
		if shown != 6 {
			t.Errorf("%s shows %d programs, want one of each language: 6", name, shown)
		}
	}
}
