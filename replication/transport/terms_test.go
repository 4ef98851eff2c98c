package transport

import "testing"

// What a group may be told of: terms that elections can have made since it last heard of
// one. One that has none yet is told of any but the absurd.
func TestTermsThatElectionsReach(t *testing.T) {
	for _, test := range []struct {
		have, term   uint64
		jumps, wrong bool
	}{
		{5, 5, false, false},
		{5, 5 + closeJump, false, false},
		{5, 6 + closeJump, true, false},
		{5, 5 + maxJump, true, false},
		{5, 6 + maxJump, false, true},
		{0, closeJump, false, false},
		{0, firstTerms, false, false},
		{0, firstTerms + 1, false, true},
		{1, firstTerms, false, true},
	} {
		var p Port
		p.StartAt(test.have)
		jumps, err := p.reachable(test.term)
		if jumps != test.jumps || (err != nil) != test.wrong {
			t.Errorf("term %d in term %d: a jump %v, error %v; want %v, an error %v", test.term, test.have, jumps, err, test.jumps, test.wrong)
		}
	}
}
