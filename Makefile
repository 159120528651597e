# Wellspring. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

ENVOY_VERSIONS := 1.37.0 1.38.3 1.39.3 1.40.0
ENVOY_VERSION  := 1.40.0
CONSUL_VERSION := 1.20.6
LINT_VERSION   := 2.15.0
PROMTOOL_VERSION := 0.307.0
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/wellspring/tools
TAGS  := vtprotobuf
GO    := CGO_ENABLED=0 go
VERSION ?= dev
LDFLAGS := -X main.version=$(VERSION)
REAL_VERSIONS := $(if $(REQUIRE_REAL),$(ENVOY_VERSIONS),$(ENVOY_VERSION))
RUN ?= .
export ENVOY CONSUL REQUIRE_REAL

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: build
build: ## build bin/wellspring
	@$(GO) build -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/wellspring ./cmd/wellspring

.PHONY: tools
tools: $(if $(ENVOY),,envoy) $(if $(CONSUL),,consul) $(if $(REQUIRE_REAL),.tools/bin/promtool iproute) ## fetch Envoy and build Consul (once; kept in the cache)

.PHONY: iproute
iproute: # the fault lab breaks a network of its own; without, it leaves out what needs one
	@command -v ip > /dev/null || apt-get install -y --no-install-recommends iproute2 > /dev/null 2>&1 || echo "ip (iproute2) is not here: two faults of the lab are left out" >&2

.PHONY: envoy
envoy: $(if $(ENVOY),,$(REAL_VERSIONS:%=.tools/bin/envoy-%))
	@[ -n "$(ENVOY)" ] || ln -sfn envoy-$(ENVOY_VERSION) .tools/bin/envoy
	@[ -n "$(ENVOY)" ] || for v in $(REAL_VERSIONS); do ln -sfn envoy-$$v .tools/bin/envoy-$${v%.*}; done

.tools/bin/envoy-%: tools/envoy/%.txt
	@tools/envoy/install $* $(CACHE)/envoy-$*
	@mkdir -p .tools/bin && ln -sfn $(CACHE)/envoy-$*/envoy $@

.PHONY: consul
consul: .tools/bin/consul
.tools/bin/consul: tools/consul/go.mod
	@[ -x $(CACHE)/consul-$(CONSUL_VERSION)/consul ] || echo "consul $(CONSUL_VERSION): building (once, about 5 minutes)" >&2
	@[ -x $(CACHE)/consul-$(CONSUL_VERSION)/consul ] || (cd tools/consul && $(GO) build -o $(CACHE)/consul-$(CONSUL_VERSION)/consul github.com/hashicorp/consul)
	@mkdir -p .tools/bin && ln -sfn $(CACHE)/consul-$(CONSUL_VERSION)/consul $@

.tools/bin/promtool: tools/promtool/go.mod
	@[ -x $(CACHE)/promtool-$(PROMTOOL_VERSION)/promtool ] || echo "promtool $(PROMTOOL_VERSION): building (once, about 5 minutes)" >&2
	@[ -x $(CACHE)/promtool-$(PROMTOOL_VERSION)/promtool ] || (cd tools/promtool && \
		$(GO) build -o $(CACHE)/promtool-$(PROMTOOL_VERSION)/promtool github.com/prometheus/prometheus/cmd/promtool)
	@mkdir -p .tools/bin && ln -sfn $(CACHE)/promtool-$(PROMTOOL_VERSION)/promtool $@

.tools/bin/golangci-lint: tools/golangci-lint/go.mod
	@[ -x $(CACHE)/golangci-lint-$(LINT_VERSION)/golangci-lint ] || echo "golangci-lint $(LINT_VERSION): building (once, about 5 minutes)" >&2
	@[ -x $(CACHE)/golangci-lint-$(LINT_VERSION)/golangci-lint ] || (cd tools/golangci-lint && \
		$(GO) build -o $(CACHE)/golangci-lint-$(LINT_VERSION)/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
	@mkdir -p .tools/bin && ln -sfn $(CACHE)/golangci-lint-$(LINT_VERSION)/golangci-lint $@

.PHONY: test
test: tools build ## run every test: with the race detector, then with the real programs
	CGO_ENABLED=1 go test -race $(TESTFLAGS) -tags $(TAGS) -timeout 10m -skip '^TestReal' ./...
	$(GO) test $(TESTFLAGS) -tags $(TAGS) -timeout 40m -p 1 -run '^TestReal' ./...

.PHONY: real
real: tools build ## run the tests with real programs; RUN=name narrows them
	$(GO) test -tags $(TAGS) -timeout 20m -p 1 -run '^TestReal.*$(RUN)' -v ./...

.PHONY: vet
vet: ## go vet
	@$(GO) vet -tags $(TAGS) ./...

.PHONY: lint
lint: .tools/bin/golangci-lint ## golangci-lint
	@CGO_ENABLED=0 .tools/bin/golangci-lint run ./...

.PHONY: fmt
fmt: .tools/bin/golangci-lint ## format the code
	@.tools/bin/golangci-lint fmt ./...

.PHONY: check
check: fmt vet lint test ## format, vet, lint, test

.PHONY: golden
golden: ## rewrite the wanted parts of testdata; read the difference
	$(GO) test -tags $(TAGS) ./pkg/spec ./xds/translate -update

.PHONY: demo
demo: $(if $(ENVOY),,envoy) build ## an outage and back in a minute, with a real Envoy (KEEP=1 leaves it running)
	@$(GO) run -tags $(TAGS) ./examples/demo

.PHONY: demo-consul
demo-consul: tools build ## the same with services registered in a real Consul
	@$(GO) run -tags $(TAGS) ./examples/demo --consul

.PHONY: faultlab
faultlab: tools build ## make the causes of docs/causes.md happen, ask explain (SEED=N LONG=1)
	@sums=$$(mktemp) && trap 'rm -f $$sums' EXIT && \
		REQUIRE_REAL=1 $(GO) test -tags $(TAGS) -count=1 -timeout 40m -run '^TestRealFaultlab$$' -v ./cmd/wellspring -lab.over $(if $(LONG),-lab.long) -lab.seed $(or $(SEED),0) -lab.json $$sums | \
			sed -nE 's/^ +(faultlab|bed)_test.go:[0-9]+: (seed|CODE|[A-Z][0-9]+| {8}|.*: certain, and false|.*, (before|after)[,:]|.*is answered with|.*the server did not find)/\2/p; /^(---|FAIL|ok)/p'; \
		status=$${PIPESTATUS[0]}; cat $$sums; exit $$status

.PHONY: docs
docs: build ## write what is generated: reference, JSON Schema, edge.yaml
	@mkdir -p docs
	@bin/wellspring reference > docs/reference.md
	@bin/wellspring reference --schema > docs/schema.json
	@bin/wellspring bootstrap --node-id edge-1 --group edge --report-key of-this-example > envoy-bootstrap/edge.yaml

.PHONY: bench
bench: build ## what a change costs, beside other servers (QUICK=1: four minutes)
	@$(GO) build -tags $(TAGS) -o bin/deliverybench ./xds/deliverybench
	@bin/deliverybench $(if $(QUICK),-quick) -wellspring bin/wellspring -out bin/bench.json -profile bin/bench.pprof

.PHONY: bench-go
bench-go: ## Go's benchmarks of applying, translating, publishing and comparing
	$(GO) test -tags $(TAGS) -run XXX -bench . -benchmem ./xds ./xds/delivery ./xds/telemetry ./pkg/fleet
	$(if $(wildcard /dev/shm),TMPDIR=/dev/shm) $(GO) test -tags $(TAGS) -run XXX -bench . -benchmem ./pkg/store

.PHONY: fuzz
fuzz: ## run every fuzz target for TIME (default 1m)
	@grep -rnoE '^func Fuzz\w+' --include=*_test.go . | sed -E 's|^\./(.*)/[^/]+:[0-9]+:func (.*)|\1 \2|' | while read -r p f; do \
		echo "$$p $$f"; $(GO) test -tags $(TAGS) -run XXX -fuzz "^$$f$$" -fuzztime $(or $(TIME),1m) -fuzzminimizetime 100x "./$$p" || exit 1; done
