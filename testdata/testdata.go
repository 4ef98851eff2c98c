// Package testdata compiles the real data sets of this folder into the programs
// that need them: the demo, which must run from one binary, and tests.
//
// README.md says where each comes from. A data set nothing refers to is left out
// of the binary by the linker.
package testdata

import _ "embed"

// Flights holds flights.jsonl: 20,000 lines, each a JSON object with the string
// fields date ("2001/01/01 00:47"), origin and destination and the numbers delay
// (minutes) and distance (miles), oldest first, each line ended by "\n".
//
//go:embed flights.jsonl
var Flights string

// Earthquakes holds earthquakes.jsonl: 1,707 lines, each a JSON object whose
// field time is in milliseconds since 1970, oldest first, each ended by "\n".
//
//go:embed earthquakes.jsonl
var Earthquakes string
