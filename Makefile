# Zonewise. `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo v0.0.0)
KUBERNETES := v1.36.3
CONTAINERD := v2.4.2
COREDNS := v1.14.7

# One set of flags for everything, so that one build cache serves builds and tests.
export CGO_ENABLED := 0
export GOFLAGS := -trimpath

STAMP := -s -w \
	-X github.com/zonewise/zonewise/internal/version.Version=$(VERSION) \
	-X k8s.io/component-base/version.gitVersion=$(KUBERNETES) \
	-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36 \
	-X k8s.io/component-base/version.gitTreeState=clean \
	-X k8s.io/client-go/pkg/version.gitVersion=$(KUBERNETES) \
	-X k8s.io/client-go/pkg/version.gitMajor=1 -X k8s.io/client-go/pkg/version.gitMinor=36

comma := ,
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo --preserve-env=ZONEWISE_LAB_HOME$(comma)NO_COLOR)
# Tests are built as whoever builds, and run as root.
AS_ROOT := $(if $(SUDO),-exec '$(SUDO)')
TOOLS := bin/containerd bin/containerd-shim-runc-v2 bin/ctr bin/runc bin/coredns

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## install the few Debian packages that are needed
	@./hack/setup

.PHONY: build
build: setup $(TOOLS) ## build all programs and images into bin/
	go build -ldflags '$(STAMP)' -o bin/ ./cmd/zonewise ./cmd/zonewise-cni ./lab/cmd/zonewise-lab ./lab/cmd/pause ./lab/cmd/echo ./lab/cmd/load
	ln -sf zonewise-lab bin/kubectl
	ln -sf zonewise bin/kubectl-zonewise
	bin/zonewise-lab internal images --bin bin --out bin/images

# Third-party tools, each from its own module (-C must come first).
TOOL := GOWORK=off go build -C lab/tools
CONTAINERD_STAMP := -s -w -X github.com/containerd/containerd/v2/version.Version=$(CONTAINERD)

bin/containerd bin/ctr &: lab/tools/containerd/go.mod lab/tools/containerd/go.sum
	$(TOOL)/containerd -tags no_btrfs,no_devmapper,no_zfs,no_rdt,no_tracing,urfave_cli_no_docs,osusergo,netgo \
		-ldflags '$(CONTAINERD_STAMP)' -o $(CURDIR)/bin/ github.com/containerd/containerd/v2/cmd/containerd github.com/containerd/containerd/v2/cmd/ctr

# One runs for each pod: without gRPC it is half the size.
bin/containerd-shim-runc-v2: lab/tools/containerd/go.mod lab/tools/containerd/go.sum
	$(TOOL)/containerd -tags no_grpc,no_tracing,no_rdt,urfave_cli_no_docs,osusergo,netgo \
		-ldflags '$(CONTAINERD_STAMP)' -o $(CURDIR)/bin/ github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2

bin/runc: lab/tools/runc/go.mod lab/tools/runc/go.sum
	CGO_ENABLED=1 $(TOOL)/runc -tags seccomp,urfave_cli_no_docs -ldflags '-s -w' -o $(CURDIR)/bin/runc github.com/opencontainers/runc

bin/coredns: lab/tools/coredns/go.mod lab/tools/coredns/go.sum
	$(TOOL)/coredns -tags grpcnotrace -ldflags '-s -w -X github.com/coredns/coredns/coremain.GitCommit=$(COREDNS)' \
		-o $(CURDIR)/bin/coredns github.com/coredns/coredns

# A real one, for tests of what is asked of it.
bin/prometheus bin/promtool &: lab/tools/prometheus/go.mod lab/tools/prometheus/go.sum
	$(TOOL)/prometheus -tags remove_all_sd,netgo,osusergo -ldflags '-s -w' -o $(CURDIR)/bin/ \
		github.com/prometheus/prometheus/cmd/prometheus github.com/prometheus/prometheus/cmd/promtool

# AWS's own CNI, unchanged, for labs without one: its programs and those beside them in its images, its chart
# and conflist, and of all these images and a manifest (see lab/vpccni).
VPCCNI := github.com/aws/amazon-vpc-cni-k8s
VPCCNI_PROGRAMS := $(addprefix $(VPCCNI)/cmd/,aws-k8s-agent aws-vpc-cni aws-vpc-cni-init egress-cni-plugin grpc-health-probe routed-eni-cni-plugin) \
	$(addprefix github.com/containernetworking/plugins/plugins/,ipam/host-local meta/portmap)

.PHONY: build-vpccni
build-vpccni: build bin/vpccni/aws-k8s-agent ## build AWS's own CNI for a lab without one, into bin/vpccni
	bin/zonewise-lab internal vpccni --dir bin/vpccni

bin/vpccni/aws-k8s-agent: lab/tools/vpccni/go.mod lab/tools/vpccni/go.sum
	rm -rf bin/vpccni
	mkdir -p bin/vpccni/files
	from=$$(GOWORK=off go list -C lab/tools/vpccni -m -f '{{.Dir}}' $(VPCCNI)) && \
		cp -r --no-preserve=mode $$from/charts/aws-vpc-cni bin/vpccni/chart && \
		cp --no-preserve=mode $$from/misc/10-aws.conflist $$from/misc/eni-max-pods.txt bin/vpccni/files
	$(TOOL)/vpccni -ldflags '-s -w' -o $(CURDIR)/bin/vpccni/ $(VPCCNI_PROGRAMS)

.PHONY: test
test: test-fast test-kernel test-story ## run every test: fast ones, those against the kernel, stories in a lab

.PHONY: test-fast
test-fast: ## run the tests that need neither root nor a kernel, in seconds
	go test ./... ./lab/...
	AWS_VPC_K8S_CNI_LOG_FILE=stderr AWS_VPC_K8S_CNI_LOGLEVEL=fatal GOWORK=off go test -C lab/tools/vpccni ./...

# An agent that lays out and names its tables otherwise: what an upgrade is tried with.
OTHER := -X github.com/zonewise/zonewise/internal/service/nft.layoutChain=layout-other \
	-X github.com/zonewise/zonewise/internal/service/bpf.currentLayout=v-other

.PHONY: build-other
build-other:
	go build -ldflags '$(STAMP) $(OTHER)' -o bin/other/ ./cmd/zonewise

.PHONY: test-kernel
test-kernel: build build-other bin/prometheus ## run the tests against the real kernel, as root, in namespaces of their own
	go test $(AS_ROOT) -tags kernel ./internal/... ./lab/region/... ./lab/machine ./lab/images ./lab/rig/... ./lab/bench/... ./lab/conformance ./lab/unbroken ./lab/unleaked

.PHONY: test-story
test-story: build build-other build-vpccni ## run the stories: what a user types in a lab, and what must come back
	go test $(AS_ROOT) -count=1 -tags story -timeout 50m -v ./test

# BENCHFLAGS=--resume goes on with what was interrupted.
BENCH := go build -ldflags '$(STAMP)' -o bin/bench ./lab/cmd/bench && $(SUDO) bin/bench

.PHONY: bench
bench: build bin/vpccni/aws-k8s-agent ## measure beside kube-proxy and AWS's CNI, and write docs/performance.md and docs/addresses.md: an hour, on a quiet machine
	$(BENCH) --page docs/performance.md $(BENCHFLAGS)
	$(SUDO) bin/bench pods --page docs/addresses.md

.PHONY: bench-short
bench-short: build bin/vpccni/aws-k8s-agent ## a little of every benchmark, in less than six minutes: do all rows come?
	$(BENCH) --short
	$(SUDO) bin/bench pods --short

.PHONY: bench-lab
bench-lab: build ## measure a lab: its start, start of pods, programming by number of Services
	go test $(AS_ROOT) -tags bench -run '^$$' -bench . -benchtime 1x -timeout 30m ./lab/bench/cluster

.PHONY: bench-cni
bench-cni: build build-vpccni ## run the same pods through AWS's own CNI and ours, and print what each did: fifteen minutes
	go test $(AS_ROOT) -count=1 -tags bench -run TestTrace -timeout 1h -v ./lab/bench/cluster

.PHONY: bench-plan
bench-plan: ## measure planning: 10,000 Services, one again, 500 nodes, a controller that starts anew
	go test -run '^$$' -bench . -benchmem -timeout 30m ./internal/route/... ./internal/hints ./internal/outlook ./internal/controller/routes

.PHONY: lint
lint: bin/staticcheck ## run the linters
	test -z "$$(gofmt -l $$(git ls-files '*.go') | tee /dev/stderr)"
	go mod tidy -diff
	go -C lab mod tidy -diff
	go vet ./... ./lab/...
	bin/staticcheck -tags kernel,story,bench ./... ./lab/...

bin/staticcheck: lab/tools/lint/go.mod lab/tools/lint/go.sum
	$(TOOL)/lint -ldflags '-s -w' -o $(CURDIR)/bin/staticcheck honnef.co/go/tools/cmd/staticcheck

.PHONY: generate
generate: bin/controller-gen bin/protoc ## make generated files again
	./hack/setup generate
	go generate ./... ./lab/...

bin/controller-gen: lab/tools/controller-gen/go.mod lab/tools/controller-gen/go.sum
	$(TOOL)/controller-gen -ldflags '-s -w' -o $(CURDIR)/bin/controller-gen sigs.k8s.io/controller-tools/cmd/controller-gen

bin/protoc: lab/tools/protoc/go.mod lab/tools/protoc/go.sum lab/tools/protoc/main.go
	$(TOOL)/protoc -ldflags '-s -w' -o $(CURDIR)/bin/ . google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc

.PHONY: demo
demo: build ## boot a lab, drive traffic, show what crossed zones and what it cost
	$(SUDO) bin/zonewise lab demo

.PHONY: clean
clean: ## remove what was built, and the labs' cache of unpacked images
	rm -rf bin
	$(SUDO) rm -rf /var/cache/zonewise
