# make check and make race are what every commit must pass, besides `go test ./...`.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: check format vet modules systems rules race build test dist bench compare compare-quick security curves

build:
	go build -o bin/millrace ./cli/millrace

test:
	go test ./...

# Archives, packages and the container image, into dist: packaging/README.md.
dist:
	cd packaging && go run .

# `make -k check` goes on after the first part that fails.
check: format vet modules systems rules

format:
	@files=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$files" ]; then echo "gofmt would change:"; echo "$$files"; exit 1; fi

vet:
	go vet -tags faults,conformance ./...
	go run $(STATICCHECK) -tags faults,conformance ./...

modules:
	cd test/conformance/clients && go vet ./... && go run $(STATICCHECK) ./...
	cd test/peers && go vet ./... && go run $(STATICCHECK) ./... && go test ./...
	cd packaging && go vet -tags packaging ./... && go run $(STATICCHECK) -tags packaging ./...

systems:
	GOOS=darwin GOARCH=arm64 go vet ./...
	GOOS=windows go vet ./...

rules:
	go test -run 'TestImports|TestWords|TestShapes|TestTheNode|TestSwitches|TestErrors' .

# Every package with the race detector, without what takes long.
race:
	go test -race -short ./...

bench:
	go test -run '^$$' -bench . -benchtime 2s ./index ./segment/... ./log ./replication/... ./server/... ./cli/load

# Beside Apache Kafka and NATS JetStream: three quarters of an hour on a machine
# that does nothing else, with Java and Maven.
compare:
	cd test/peers && go run . compare -o ../../BENCHMARKS.md

# What it costs to be safe: ten minutes, as root.
security:
	cd test/peers && go run . security -o ../../BENCHMARKS.md

# Whether that works, in two minutes or less, to standard output.
compare-quick:
	@cd test/peers && go run . compare -quick

# How Millrace scales: a quarter of an hour. Drawings go beside the tool.
curves:
	cd test/peers && go run . curves -o ../../BENCHMARKS.md
