package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// What is read last of a report says which tests failed, and why.
func TestReasonsComeLast(t *testing.T) {
	var in strings.Builder
	events := json.NewEncoder(&in)
	say := func(action, test, output string) { events.Encode(event{action, "p", test, output}) }
	say("output", "TestA", "=== RUN   TestA\n")
	say("output", "TestA", "    a_test.go:40: millrace produce t printed \"\", \"topic t was not there\"\n")
	say("output", "TestA", "    clitest.go:107: node 1, 127.0.0.1:1, log:\n")
	say("output", "TestA", "        level=INFO msg=serving source=a.go:5\n")
	say("output", "TestA", "--- FAIL: TestA (0.1s)\n")
	say("fail", "TestA", "")
	say("output", "TestB", "panic: a bug\n")
	say("fail", "TestB", "")
	say("pass", "TestC", "")
	say("fail", "", "")
	var out strings.Builder
	r := &report{w: &out}
	r.read(strings.NewReader(in.String()))
	r.end()
	want := `because p TestA
    a_test.go:40: millrace produce t printed "", "topic t was not there"
FAIL p TestB
panic: a bug
because p TestB
panic: a bug
FAIL p 
1 passed, 2 failed, 0 skipped so far in this suite
FAILED p TestA: a_test.go:40: millrace produce t printed "", "topic t was not there"
FAILED p TestB: panic: a bug
`
	if got := out.String(); !strings.HasSuffix(got, want) || !strings.Contains(got, "msg=serving") {
		t.Errorf("got\n%s\nwant at its end\n%s", got, want)
	}
}
