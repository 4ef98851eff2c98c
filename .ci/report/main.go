// Command report reads what `go test -json` wrote. It prints the output of
// tests that failed, the reasons of those that were skipped, and every line that
// begins with "figure ", which is how tests say what they measured; with -count
// only the line "N passed, N failed, N skipped" over all files.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
}

func main() {
	count := flag.Bool("count", false, "print only the totals")
	flag.Parse()
	passed, failed, skipped := 0, 0, 0
	for _, path := range flag.Args() {
		f, err := os.Open(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		output := make(map[string][]string)
		failedTests := make(map[string]bool)
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			var e event
			if json.Unmarshal(lines.Bytes(), &e) != nil {
				continue
			}
			key := e.Package + " " + e.Test
			switch e.Action {
			case "output", "build-output":
				output[key] = append(output[key], e.Output)
				if strings.HasPrefix(e.Output, "figure ") && !*count {
					fmt.Print(e.Output)
				}
			case "pass":
				if e.Test != "" {
					passed++
				}
				delete(output, key)
			case "fail":
				if e.Test != "" {
					failed++
					failedTests[e.Package] = true
				} else if !failedTests[e.Package] {
					failed++ // the package did not build, or ended early
				}
				if !*count {
					fmt.Printf("FAIL %s\n%s", key, strings.Join(output[key], ""))
				}
			case "build-fail":
				if !*count {
					for _, lines := range output {
						fmt.Print(strings.Join(lines, ""))
					}
				}
			case "skip":
				if e.Test == "" {
					continue // a package without tests
				}
				skipped++
				if !*count {
					fmt.Printf("skip %s\n%s", key, strings.Join(output[key], ""))
				}
			}
		}
		f.Close()
	}
	if *count {
		fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	} else {
		fmt.Printf("%d passed, %d failed, %d skipped so far in this suite\n", passed, failed, skipped)
	}
}
