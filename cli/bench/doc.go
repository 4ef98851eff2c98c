// Package bench is `millrace bench`: it measures a cluster as its clients see it, this one or
// any other Kafka's. Package load makes the load and counts; here it is given clients to carry
// it, a topic to carry it to, and the flags that say how much: a file a subcommand, and bench.go
// for what they share.
//
// All that is measured goes through franz-go, as users' programs do, save for
// `bench consume --raw`, which sends fetch requests of its own (fetch.go).
package bench
