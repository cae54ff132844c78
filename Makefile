# zfstpl: a containerd snapshotter for ZFS. 'make help' lists the targets.
# Begin with: make demo, make test.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The releases in the demo's machine: ZFS=2.3 or 2.4, CONTAINERD=1.7 or 2.4.
export ZFS ?= 2.4
export CONTAINERD ?= 2.4

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/zfstpl
BIN := bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LINT_VERSION := v2.15.0
LINT := $(CACHE)/tools/golangci-lint-$(LINT_VERSION)/golangci-lint

# No cgo, so that the programs run on any Linux of their architecture.
GO_BUILD := CGO_ENABLED=0 go build -trimpath -ldflags '-X github.com/zfstpl/zfstpl/plugin.version=$(VERSION)'
# On a host with ZFS the tests use the containerd, BuildKit, Docker and kubelet that the testbed builds.
ON_HOST = if [ "$${ZFSTPL_TEST_HOST:-}" = 1 ]; then PATH=$$($(BIN)/testbed path containerd):$$($(BIN)/testbed path buildkit):$$($(BIN)/testbed path docker):$$($(BIN)/testbed path kubernetes):$$PATH; fi;
PATH := $(CACHE)/tools/bin:$(PATH):/usr/lib/go/bin:/usr/local/go/bin
export PATH

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: ZFS=2.4|2.3  CONTAINERD=2.4|1.7  ZFSTPL_TEST_HOST=1 (tests: use this host's ZFS)  TESTBED_ACCEL=auto|kvm|tcg"

.PHONY: demo
demo: build testbed ## a guided tour: real containers on real ZFS
	@integration/tools/demo.sh

.PHONY: test
test: build integration-test testbed-test lint-tool ## all checks, with one summary
	@$(ON_HOST) $(BIN)/suite -bin $(BIN) -lint $(LINT)

.PHONY: test-long
test-long: build integration-test testbed-test lint-tool ## make test, and the checks that take too long for it
	@CGO_ENABLED=0 go test -c -trimpath -o $(BIN)/ioctl.test ./snapshotter/zfs/ioctl
	@CGO_ENABLED=1 go build -race -tags failpoint -o $(BIN)/containerd-zfstpl-grpc-failpoint-race ./cmd/containerd-zfstpl-grpc
	@$(ON_HOST) $(BIN)/suite -bin $(BIN) -lint $(LINT) -long

.PHONY: unit
unit: tools ## only the unit tests, with the race detector
	@$(MAKE) --no-print-directory build
	@$(BIN)/suite -bin $(BIN) -only unit

.PHONY: integration
integration: build integration-test testbed-test ## only the integration tests; RUN=regexp selects some
	@$(ON_HOST) $(BIN)/suite -bin $(BIN) -only integration -run '$(RUN)'

.PHONY: lint
lint: lint-tool ## only the linters
	@$(LINT) run ./...

.PHONY: bench
bench: build testbed ## benchmarks beside other snapshotters (hours without KVM; HALF=… one part of it; BENCH=quick tries it)
	@$(GO_BUILD) -o $(BIN)/ ./integration/tools/bench
	@integration/tools/bench/run.sh

.PHONY: build
build: tools ## build the programs into bin/
	@mkdir -p $(BIN)
	@echo "building the programs"
	@$(GO_BUILD) -o $(BIN)/ ./cmd/... ./integration/tools/suite ./integration/tools/testbed ./integration/tools/demo ./integration/tools/image ./integration/powercut ./integration/testimage/app ./integration/testimage/web

.PHONY: install
install: build ## install the daemon, the command and the systemd units; PREFIX=/usr/local
	install -D -m 0755 -t $(DESTDIR)$(or $(PREFIX),/usr/local)/bin $(BIN)/containerd-zfstpl-grpc $(BIN)/zfstpl
	install -D -m 0644 -t $(DESTDIR)/usr/lib/systemd/system contrib/systemd/zfstpl.service contrib/systemd/zfstpl-cleanup.service contrib/systemd/zfstpl-cleanup.timer
	sed -i 's|/usr/local/bin/|$(or $(PREFIX),/usr/local)/bin/|' $(DESTDIR)/usr/lib/systemd/system/zfstpl.service $(DESTDIR)/usr/lib/systemd/system/zfstpl-cleanup.service

.PHONY: shell
shell: build testbed ## a shell in the machine with ZFS, with everything installed
	@$(BIN)/testbed shell --put $(BIN):/put/bin

.PHONY: testbed
testbed: build
	@if [ "$${ZFSTPL_TEST_HOST:-}" != 1 ]; then $(BIN)/testbed build --zfs $(ZFS); fi

.PHONY: testbed-test
testbed-test: build
	@if [ "$${ZFSTPL_TEST_HOST:-}" != 1 ]; then $(BIN)/testbed build --zfs 2.4 && $(BIN)/testbed build --zfs 2.3; fi

.PHONY: integration-test
integration-test: tools
	@mkdir -p $(BIN)
	@CGO_ENABLED=0 go test -c -trimpath -o $(BIN)/integration.test ./integration
	@CGO_ENABLED=0 go test -c -trimpath -o $(BIN)/diff.test ./snapshotter/diff
	@$(GO_BUILD) -tags failpoint -o $(BIN)/containerd-zfstpl-grpc-failpoint ./cmd/containerd-zfstpl-grpc
	@CGO_ENABLED=0 go test -c -trimpath -o $(BIN)/powercut.test ./integration/powercut

.PHONY: lint-tool
lint-tool: $(LINT)
$(LINT): | tools
	@echo "installing golangci-lint $(LINT_VERSION) (once, a few minutes)"
	@GOBIN=$(dir $(LINT)) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

.PHONY: tools
tools:
	@integration/setup.sh

.PHONY: clean
clean: ## remove the build's results; the caches stay
	rm -rf $(BIN) out

.PHONY: distclean
distclean: clean ## remove the caches too
	rm -rf $(CACHE)
