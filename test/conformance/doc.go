//go:build conformance

// Package conformance runs real Kafka clients, each in its own words, against a
// real cluster of three nodes.
//
// It holds nothing but tests, under the build tag conformance. Every cell of
// the matrix clients × abilities is a test, TestClients/CLIENT/ABILITY:
//
//	go test -tags conformance -count=1 ./test/conformance
//	go test -tags conformance -count=1 -run 'TestClients/sarama/codec' -v ./test/conformance
//
// A client is a program under test/conformance/clients, started once for each of its
// cells. What an ability asks of it is written in test/conformance/clients/README.md
// and, for the half that this package checks with a client of its own, at the
// abilities in abilities_test.go: what a program writes is read here, what it
// reads was written here. The matrix is printed at the end, with the reason for
// every cell that a client has no way to do.
//
// Cells that log in run against a second cluster of three nodes, which has users.
//
// TestConnect runs what README shows to newcomers, the programs of testdata/connect.
package conformance
