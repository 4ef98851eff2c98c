package failover

import "testing"

func TestGossipSurvivesItsEncoding(t *testing.T) {
	g := gossip{first: true, open: []uint64{0, 7}, leads: []groupTerm{{7, 3}}}
	p := g.encode()
	got, err := decodeGossip(p)
	if err != nil || !got.first || len(got.open) != 2 || got.open[1] != 7 || len(got.leads) != 1 || got.leads[0] != g.leads[0] {
		t.Fatalf("got %+v, %v", got, err)
	}
	g.number = 9
	numbered := g.encode()
	if got, err := decodeGossip(numbered); err != nil || !got.first || got.number != 9 || len(got.leads) != 1 {
		t.Fatalf("got %+v, %v", got, err)
	}
	g.about = "what a node says about itself"
	old := g.encode()
	if got, err := decodeGossip(old); err != nil || got.number != 9 || got.about != g.about {
		t.Fatalf("got %+v, %v", got, err)
	}
	for _, p := range [][]byte{p, numbered, old[:len(old)-len(g.about)+1]} { // about is the rest
		for n := range p {
			if _, err := decodeGossip(p[:n]); err == nil {
				t.Fatalf("the first %d of %d bytes were taken for whole", n, len(p))
			}
		}
	}
}

func FuzzGossip(f *testing.F) {
	f.Add(gossip{open: []uint64{1}, leads: []groupTerm{{1, 2}}}.encode())
	f.Add(gossip{first: true, number: 3, about: "what a node says about itself"}.encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		g, err := decodeGossip(p)
		if err == nil && len(g.encode()) != len(p) {
			t.Fatal("gossip that was read has another length when written")
		}
	})
}
