# Two targets do everything: `make run` starts a server that is ready to use,
# `make test` installs what the tests need and runs all of them.

GO     ?= go
TOOL    = $(GO) tool -modfile=tools/go.mod
BIN     = bin/sluice
VERSION = $(shell git describe --always --dirty 2>/dev/null || echo unknown)
BUILD   = $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)"

# Pebble's zstd in Go, not in C: a first build takes a quarter less, and no table here is of zstd.
export GOFLAGS += -tags=pebblegozstd

.PHONY: run build test quick soak fuzz mutants check formatted format needs demo bench growth clean

run: build
	./$(BIN) serve

build:
	$(BUILD) -o $(BIN) ./cmd/sluice

# Everything that must hold before a change lands.
test: needs check
	@mkdir -p bin
	$(TOOL) gotestsum --format standard-quiet --hide-summary skipped --jsonfile bin/test.json -- -race -timeout 8m ./...
	$(GO) test -v -count=1 ./internal/test/crashtest ./internal/test/soak ./internal/test/realdisk ./internal/test/attack
	$(GO) test -v -count=1 -run 'OpenSessions|Trickling|WhatIsLeftOfTheMetadata' ./cmd/sluice
	$(GO) test -count=1 -run 'RuinedMetadata$$|StoppedAnywhere|PlantedBugs' ./keeper ./store/folder ./internal/test/mutants
	@echo "The ten slowest tests:"; $(TOOL) gotestsum tool slowest --num 10 --threshold 0s --jsonfile bin/test.json

# The inner loop, in under a minute: formatting, vet, the rules of structure, and all packages' tests without the race detector, without the
# sweeps of crashes and the runs of the whole program.
quick: formatted
	$(GO) vet ./...
	$(GO) test -p 4 -short $$($(GO) list ./... | grep -v /internal/test/)

# More crashes and failures of every step, the real program through one mishap after the other, and
# among hostile clients, with the speed of a good one. SEEDS=n takes n times as long. The log of the
# mishaps is soak.log.
SEEDS ?= 20
soak:
	$(GO) test -v -timeout 0 ./internal/test/crashtest -crash.seeds $(SEEDS)
	$(GO) test -v -timeout 0 ./internal/test/soak -soak.series $(SEEDS) -soak.rounds 50 -soak.log $(CURDIR)/soak.log
	$(GO) test -v -timeout 0 ./internal/test/attack -attack.times $$(( ($(SEEDS) + 3) / 4 ))
	$(GO) test -v -timeout 0 ./internal/test/attack -attack.speed 7
	$(GO) test -v -timeout 0 ./internal/test/realdisk -realdisk.images $$((20 * $(SEEDS))) -realdisk.rounds $(SEEDS)

# Each fuzz target for FUZZTIME, one after the other. `make test` runs the inputs under
# testdata/fuzz.
FUZZTIME ?= 30s
fuzz:
	@FUZZTIME=$(FUZZTIME) ./scripts/fuzz

# Plants each of the bugs, and fails if a test that should find one does not. A run that was stopped
# goes on, and a bug that was found is tried again only if its code has changed. rm
# bin/mutants.jsonl tries all. That takes two hours.
mutants:
	@mkdir -p bin
	$(GO) run ./internal/test/mutants -record bin/mutants.jsonl -write docs/mutants.md

# Formatting, vet, staticcheck. The layer rules are the tests of internal/arch.
check: formatted
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(GO) test -count=1 ./internal/arch

formatted:
	@bad=$$($(TOOL) gofumpt -l $$(git ls-files '*.go')); \
	if [ -n "$$bad" ]; then echo "not formatted (make format):"; echo "$$bad"; exit 1; fi

format:
	$(TOOL) gofumpt -w $$(git ls-files '*.go')

# The tests need these programs beside Go: a C compiler for the race detector, and curl for the
# README's first upload. Root can also mount file systems on a disk that fails. If their tools can't
# be installed, those tests say so and are skipped.
needs:
	@./scripts/needs gcc curl
	@[ "$$(id -u)" != 0 ] || ./scripts/needs mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs || true

# A real upload, with the server killed in the middle: ten lines to read.
demo: build
	./scripts/demo ./$(BIN)

# The figures of docs/benchmarks.md: memory and the client's rates; then the standard scenarios
# beside the peers (built at the first run) and the floors, in the short form. Tables and chart are
# written there. BENCH has more flags for it (-before PROGRAM puts another build beside this one):
# see `cd bench && go run . -help`.
BENCH ?=
bench: build
	./scripts/memory ./$(BIN)
	cd bench && $(GO) run . -sluice ../$(BIN) -docs ../docs $(BENCH)

# The section of docs/benchmarks.md and the chart on growth: up to a million open sessions and
# memories. It takes some minutes and 2 GB of the disk.
growth: build
	cd bench && $(GO) run . -scenarios growth -systems sluice -grow 1000000 -rounds 7 -sluice ../$(BIN) -docs ../docs $(BENCH)

clean:
	rm -rf bin
