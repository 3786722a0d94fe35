# `make help` lists the targets. Everything that make downloads or caches stays in .cache/ and in Go's own caches.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# What `make run` serves, one policy or several, and further flags for it, or for `make demo`:
# make run POLICY=my.yaml ARGS='--store redis://localhost:6379'
POLICY ?= examples/policies/llm.yaml examples/quickstart.yaml
ARGS ?=
# What the tests are run on and how, to narrow them: make test PKG=./limit/... TESTFLAGS='-run TestFixedWindow -v'
PKG ?= ./...
TESTFLAGS ?=
# Further flags for the benchmark: make bench BENCHFLAGS='--duration 5s'
BENCHFLAGS ?=

# Tools are pinned each in a module file of its own, so that nothing they need reaches those who import ration, and so
# that two tools may need different versions of one module. `go tool` builds them once into Go's build cache.
TOOL := go tool -modfile=tools
BUF := $(TOOL)/buf/go.mod buf
GOLANGCI_LINT := $(TOOL)/lint/go.mod golangci-lint
GOVULNCHECK := $(TOOL)/govulncheck/go.mod govulncheck

export BUF_CACHE_DIR := $(CURDIR)/.cache/buf
export GOLANGCI_LINT_CACHE := $(CURDIR)/.cache/golangci-lint

# The race detector everywhere; no cached results, since the tests depend on programs beside Go; a limit per package
# that a hang reaches before CI's own.
GOTEST := go test -race -count=1 -timeout=30m $(TESTFLAGS)

##@ Use it

.PHONY: demo
demo: build ## Show it: Envoy, ration and a fake model, called by three users in three tiers. ARGS='--for 1m'
	tools/install-test-deps.sh envoy
	go build -o bin/ ./examples/fakellm ./examples/demo
	exec bin/demo $(ARGS)

# On loopback addresses everything is open to callers on this machine; on others accounting is closed.
.PHONY: run
run: export RATION_GRPC_ADDR ?= localhost:8081
run: export RATION_HTTP_ADDR ?= localhost:8080
run: build ## Serve example policies on the embedded store; needs nothing else. POLICY=file ARGS='flags'
	exec bin/ration serve --banner $(foreach policy,$(POLICY),--policy $(policy)) $(ARGS)

.PHONY: build
build: ## Build bin/ration
	go build -o bin/ration ./cmd/ration

##@ Test it

.PHONY: test
test: test-deps ## Install what the tests need (Redis, Envoy, FastAPI, gRPC for Python, Node.js, SDKs) and run all of them. PKG=./limit/... TESTFLAGS='-v'
	$(GOTEST) $(PKG)
	go test -count=1 -run 'Allocate|Million' ./engine ./store/memory  # what the race detector distorts, or takes too long for

.PHONY: e2e
e2e: test-deps ## Run only the tests with a real Envoy, an upstream and ration, and show each case
	$(GOTEST) -v ./envoy/...

.PHONY: test-deps
test-deps: ## Install what the tests need, where it is missing: a C compiler, redis-server, Node.js; Envoy, FastAPI, gRPC for Python and SDKs in .cache
	tools/install-test-deps.sh

.PHONY: bench
bench: build test-deps ## Measure throughput, latency and CPU per decision, beside the floor. BENCHFLAGS='flags'
	go run ./bench/compare --out bench/results.md $(BENCHFLAGS)

##@ Change it

.PHONY: check
check: check-proto check-generated check-modules check-format lint ## Everything CI checks beside the tests

.PHONY: generate
generate: ## Generate gen/ from proto/, envoy/llm-*.yaml from envoy/parts, and the pictures of docs/ and of the README
	$(BUF) generate
	go run ./envoy/parts
	go run ./docs/algorithms
	go run ./examples/demo --picture examples/demo/demo.svg

.PHONY: prices
prices: ## Write the price book that ships, from the public lists that tools/prices/update.sh names; needs PyPI
	tools/prices/update.sh

.PHONY: fmt
fmt: ## Format Go and proto files in place
	gofmt -w .
	$(BUF) format -w

.PHONY: lint
lint: ## Run go vet and golangci-lint
	go vet ./...
	$(GOLANGCI_LINT) config verify
	$(GOLANGCI_LINT) run

.PHONY: vuln
vuln: ## Look for known vulnerabilities in what is used; needs vuln.go.dev, hence not part of check
	$(GOVULNCHECK) ./...

.PHONY: check-proto
check-proto: ## Check proto/: lint, format, and that no caller of ration.v1 breaks
	$(BUF) lint
	$(BUF) format --diff --exit-code
	tools/buf-breaking.sh

.PHONY: check-generated
check-generated: ## Check that gen/ and envoy/llm-*.yaml are what `make generate` writes
	@rm -rf .cache/generated && mkdir -p .cache/generated/envoy
	$(BUF) generate -o .cache/generated
	@diff -r gen .cache/generated/gen || { echo "gen/ differs from proto/: run make generate" >&2; exit 1; }
	go run ./envoy/parts --out .cache/generated/envoy
	@for file in envoy/llm-*.yaml; do \
		diff $$file .cache/generated/$$file || { echo "$$file differs from envoy/parts: run make generate" >&2; exit 1; }; done

# Tidying looks at the tests of a tool's dependencies too. For buf those need modules that the proxy does not always
# serve, so of tools/buf only what matters is checked: that its go.mod and go.sum are enough to build it.
TIDY := . tools/govulncheck tools/grpcurl tools/lint tools/protoc-gen-go-grpc

.PHONY: check-modules
check-modules: ## Check that go.mod and go.sum, here and of each tool, are tidy
	@for dir in $(TIDY); do echo "go -C $$dir mod tidy -diff"; go -C $$dir mod tidy -diff || exit 1; done
	go -C tools/buf list -mod=readonly -deps tool >/dev/null

.PHONY: check-format
check-format: ## Check that Go files are formatted
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then \
		echo "not formatted, run make fmt:" >&2; echo "$$unformatted" >&2; exit 1; fi

##@ Other

.PHONY: clean
clean: ## Remove bin/ and .cache/
	rm -rf bin .cache

.PHONY: help
help: ## Explain the targets
	@awk 'BEGIN { FS = ":.*## "; print "Usage: make TARGET" } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' Makefile
