// Package faults breaks real clusters and looks for what was lost.
//
// It holds nothing but tests, under the build tag faults. Each starts processes
// of the real binary on this machine, does to them what machines do (kill -9,
// power loss, pause, full disk, flipped bit, lost disk) while clients produce,
// and then compares what clients were told with what every reader and every
// replica's disk says:
//
//	go test -tags faults -count=1 -v -timeout 40m ./test/faults
//
// What must hold after every scenario, whatever happened:
//
//   - an acknowledged record is at its offset;
//   - an offset has one value, over all reads, nodes and restarts;
//   - records of a producer lie in a partition in the order sent, none twice;
//   - a value that is read was sent;
//   - at rest, `millrace segment verify` finds every replica whole, and the
//     committed entries of replicas are the same.
//
// A ledger records what was sent and acknowledged; the checkers are in
// ledger_test.go and replicas_test.go. Times are printed, and decide nothing.
//
// As root the tests run in a network namespace of their own, and those of networks
// give each node another (lab_test.go), with nftables(8) between them.
//
// Power loss, mounted folders, full disks and networks need root and skip with a
// sentence where they cannot be had. A failed test prints the end of every node's log
// and leaves its folder behind.
package faults
