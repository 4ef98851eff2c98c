package load

import "math/rand/v2"

// A Distribution says how often each of a plan's keys comes.
type Distribution string

// The distributions.
const (
	Uniform    Distribution = "uniform"     // at random, each as often
	RoundRobin Distribution = "round-robin" // one after the other, each producer beginning elsewhere
	Zipf       Distribution = "zipf"        // few of them most of the time: the k-th with a weight of 1/k^1.1
)

// zipfExponent is a little above 1, which is where words, cities and customers
// lie, and above which it has to be.
const zipfExponent = 1.1

// A keyer makes one producer's keys: key-00000042.
type keyer struct {
	n        uint64 // how many there are; 0: none
	how      Distribution
	first    uint64
	generate *rand.Rand
	zipf     *rand.Zipf
}

func newKeyer(plan Plan, index int) *keyer {
	k := &keyer{n: uint64(plan.Keys), how: plan.Distribution}
	if k.n == 0 {
		return k
	}
	k.generate = rand.New(rand.NewPCG(plan.Seed, uint64(index)+1))
	k.first = k.n * uint64(index) / uint64(plan.Producers)
	if k.how == Zipf {
		k.zipf = rand.NewZipf(k.generate, zipfExponent, 1, k.n-1)
	}
	return k
}

// fill writes the key of the producer's record n over b and returns it; nil
// when records have none.
func (k *keyer) fill(b []byte, n int64) []byte {
	if k.n == 0 {
		return nil
	}
	var i uint64
	switch k.how {
	case RoundRobin:
		i = (k.first + uint64(n)) % k.n
	case Zipf:
		i = k.zipf.Uint64()
	default:
		i = k.generate.Uint64N(k.n)
	}
	if b == nil {
		b = []byte("key-00000000")
	}
	digits(b[4:12], i)
	return b
}

// digits writes the last digits of n over b.
func digits(b []byte, n uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = '0' + byte(n%10)
		n /= 10
	}
}
