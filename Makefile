# make check is what every commit must pass, besides `go test ./...`.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: check build test dist bench compare compare-quick curves

build:
	go build -o bin/millrace ./cli/millrace

test:
	go test ./...

# Archives, packages and the container image, into dist: packaging/README.md.
dist:
	cd packaging && go run .

check:
	@files=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$files" ]; then echo "gofmt would change:"; echo "$$files"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...
	go run $(STATICCHECK) -tags faults ./test/faults
	go run $(STATICCHECK) -tags conformance ./test/conformance
	cd test/conformance/clients && go vet ./... && go run $(STATICCHECK) ./...
	cd test/peers && go vet ./... && go run $(STATICCHECK) ./... && go test ./...
	cd packaging && go vet -tags packaging ./... && go run $(STATICCHECK) -tags packaging ./...
	GOOS=darwin GOARCH=arm64 go vet ./...
	GOOS=windows go vet ./...
	go test -run 'TestImports|TestWords|TestShapes|TestSwitches|TestErrors' .
	go test -race -short ./index ./internal/... ./segment/... ./log ./replication/admission ./replication/bulletin ./replication/controller ./replication/failover ./replication/folder ./replication/metadata/... ./replication/partition ./replication/raftgroup ./replication/roster ./replication/transport ./replication/vote ./server/coordinator/... ./server/group ./server/journal ./server/mux ./server/protocol ./cli/bench ./cli/kafka ./cli/load ./cli/term

bench:
	go test -run '^$$' -bench . -benchtime 2s ./index ./segment/... ./log ./replication/... ./server/... ./cli/load

# Beside Apache Kafka and NATS JetStream: three quarters of an hour on a machine
# that does nothing else, with Java and Maven.
compare:
	cd test/peers && go run . compare -o ../../BENCHMARKS.md

# Whether that works, in two minutes or less, to standard output.
compare-quick:
	@cd test/peers && go run . compare -quick

# How Millrace scales: a quarter of an hour. Drawings go beside the tool.
curves:
	cd test/peers && go run . curves -o ../../BENCHMARKS.md
