# Two commands matter: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# A profile that the compiler optimizes for: see docs/bench.md.
PGO ?= off
LDFLAGS := -s -w -X github.com/weftmesh/weft/internal/version.version=$(VERSION)
export CGO_ENABLED ?= 0
# SA1019 is left out of staticcheck: fields that Envoy and Istio have deprecated are still read, because users still write them.
STATICCHECK := v0.8.2

.PHONY: help
help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: need-go
need-go:
	@command -v go >/dev/null || { echo "weft needs Go 1.26 or newer: https://go.dev/dl/ (or: apt-get install golang)"; exit 1; }

.PHONY: build
build: need-go ## build bin/weft, bin/weft-proxy and bin/bookinfo
	@mkdir -p bin
	go build -trimpath -pgo='$(PGO)' -ldflags '$(LDFLAGS)' -o bin/ ./cmd/weft ./cmd/weft-proxy ./examples/bookinfo/cmd/bookinfo

.PHONY: demo
demo: build ## start the Bookinfo mesh on this machine (Ctrl-C stops it)
	@exec bin/weft up examples/bookinfo

.PHONY: test
test: need-go ## run all tests
	go test -timeout 20m ./...

.PHONY: check
check: need-go ## linters, formatting, import rules, link checks, race detector
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt needed: $$unformatted"; exit 1; }
	go vet -copylocks=false ./...
	cd test/gatewayapi && go vet ./...
	@# copylocks also complains of generated code in the module cache, which is not ours to mend.
	@! go vet -copylocks ./... 2>&1 | grep -v '/pkg/mod/' | grep '\.go:'
	go run honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK) -checks inherit,-SA1019 ./...
	go test -count=1 ./internal/arch/
	CGO_ENABLED=1 go test -race -timeout 30m ./internal/...

.PHONY: gateway-api
gateway-api: need-go ## run the Gateway API's own conformance tests against compiler and statuses
	cd test/gatewayapi && go test -count=1 ./...

.PHONY: test-kube
test-kube: need-go bin/kube/kube-apiserver ## run the tests that need Kubernetes against a real API server (builds it: minutes at first)
	WEFT_TEST_KUBEBIN=$(CURDIR)/bin/kube go test -count=1 -timeout 20m ./internal/control/source/kube/ ./test/replica/

bin/kube/kube-apiserver: test/kubebin/go.mod
	@mkdir -p bin/kube
	cd test/kubebin && go build -trimpath -ldflags '-s -w' -o $(CURDIR)/bin/kube/etcd go.etcd.io/etcd/server/v3
	cd test/kubebin && go build -trimpath -ldflags '-s -w' -o $(CURDIR)/$@.new k8s.io/kubernetes/cmd/kube-apiserver
	@mv $@.new $@

.PHONY: test-consul
test-consul: need-go bin/consul/consul ## run the tests that need Consul against a real one (builds it: minutes at first)
	PATH="$(CURDIR)/bin/consul:$$PATH" go test -count=1 -timeout 5m ./internal/control/source/consul/

bin/consul/consul: test/consulbin/go.mod
	@mkdir -p bin/consul
	cd test/consulbin && go build -trimpath -ldflags '-s -w' -o $(CURDIR)/$@.new github.com/hashicorp/consul
	@mv $@.new $@

.PHONY: fuzz
fuzz: need-go ## run every fuzz target for FUZZTIME (default 1m each)
	@for f in $$(grep -rl --include='*_test.go' '^func Fuzz' internal); do \
	  for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$f); do \
	    echo "== $$(dirname $$f) $$t"; go test -run '^$$' -fuzz "^$$t$$" -fuzztime $${FUZZTIME:-1m} -fuzzminimizetime 1s ./$$(dirname $$f) || exit 1; done; done

.PHONY: soak
soak: need-go ## send 10 million requests (SOAK_REQUESTS) and look for leaks, a million through changes of everything (STEADY_REQUESTS), and all protocols through live upgrades (UPGRADE_TIME)
	SOAK_REQUESTS=$${SOAK_REQUESTS:-10000000} go test -count=1 -v -timeout 24h -run '^TestSoak$$' ./test/fault
	STEADY_REQUESTS=$${STEADY_REQUESTS:-1000000} go test -count=1 -v -timeout 24h -run '^TestNothingFailsWhileEverythingChanges$$' ./test/steady
	UPGRADE_TIME=$${UPGRADE_TIME:-5m} go test -count=1 -v -timeout 24h -run '^TestEverythingForLong$$' ./test/upgrade

.PHONY: bench
bench: need-go ## measure the proxy side by side with nginx and HAProxy (BENCH="-rounds 1 -d 1s" for a short run)
	go run ./bench $(BENCH)

.PHONY: bench-control
bench-control: need-go ## measure the control plane with 10,000 services and 10,000 proxies (BENCH="-clients 1000 -interested 200" for a short run)
	@mkdir -p bin
	go build -o bin/bench-control ./bench/control
	bin/bench-control $(BENCH)

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
