# What one does in this repository. `make run` and `make test` need nothing installed by hand.

CLANG ?= $(shell ./setup.sh find-clang)
CLANG_FORMAT ?= $(shell ./setup.sh find-format)
export CLANG

# Where rustup puts cargo, for a shell that was open before `make setup` installed it.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Recording needs privileges; building does not, and must not leave root's files in target/.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo -E env PATH="$(PATH)")

BINARY := target/release/spanflame
LISTEN ?= 127.0.0.1:19090
DATA_DIR ?= target/data
PICTURE ?= spanflame.svg
DURATION ?= 10s
FUZZ_SECONDS ?= 30

# Our C. vmlinux.h is an extract of the kernel's own types and keeps their form.
C_FILES := $(shell git ls-files 'benches/*.c' 'bpf/*.c' 'bpf/*.h' 'fixtures/*.c' 'fixtures/*.h' 'fixtures/*.cc' 'fixtures/*.cpp' 'tests/*.c' | grep -v vmlinux.h)

.PHONY: setup setup-test setup-fuzz page binary run record test bench oracle lint fmt fuzz help

help:
	@echo 'make setup       get what building needs (clang, libelf, zlib, ...); nothing when it is there'
	@echo 'make run         build everything and serve this host on http://$(LISTEN)/, windows in $(DATA_DIR)'
	@echo 'make record      record this whole host for $(DURATION) into $(PICTURE)'
	@echo 'make page        build the page that the server shows, into web/dist'
	@echo 'make test        everything that is tested, with what that needs'
	@echo 'make bench       what is measured, beside its budget; BENCH="--quick" and others: benches/run'
	@echo 'make oracle      our spans against those of OpenTelemetry SDKs; ORACLE="--stack go" and others: benches/oracle/run'
	@echo 'make lint        formatting and lints, as CI has them;  make fmt  puts formatting right'
	@echo 'make fuzz        each fuzz target for FUZZ_SECONDS=$(FUZZ_SECONDS)'

setup:
	@./setup.sh build

setup-test:
	@./setup.sh test

setup-fuzz:
	@./setup.sh fuzz

# The page is embedded in the binary, so it is built first. cargo alone builds without it: the server then
# answers with a page that says how to get it.
PAGE_SOURCES := $(shell git ls-files -co --exclude-standard web/src web/public web/index.html 'web/*.ts' 'web/*.js' 'web/*.json')

page: web/dist/index.html

web/dist/index.html: web/node_modules/.package-lock.json $(PAGE_SOURCES)
	cd web && npm run --silent build

# The page's tools, in the versions of its lock file.
web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	@cd web && npm ci --no-audit --no-fund || { \
	    echo "make: npm could not get the page's tools from $$(npm config get registry), or could not start:" >&2; \
	    echo 'make: see its message above. A proxy or a mirror is set by: npm config set proxy|registry URL' >&2; \
	    exit 1; }
	@touch $@

binary: setup
	@$(MAKE) --no-print-directory page
	cargo build --release

run: binary
	$(AS_ROOT) $(BINARY) serve --listen $(LISTEN) --data-dir $(DATA_DIR)

record: binary
	$(AS_ROOT) $(BINARY) record --duration $(DURATION) -o $(PICTURE)
	@echo "flame graph: file://$(abspath $(PICTURE))"

test: setup-test
	@$(MAKE) --no-print-directory page
	cd web && npm test --silent
	$(MAKE) -C fixtures
	@.ci/tests

bench: setup-test
	@$(MAKE) --no-print-directory page
	benches/run $(BENCH)

# The SDKs, frameworks and servers are fetched the first time; they are no part of setup-test.
oracle:
	cargo build
	$(AS_ROOT) benches/oracle/run $(ORACLE)

lint: setup-test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo check --quiet --manifest-path fuzz/Cargo.toml
	$(if $(C_FILES),$(CLANG_FORMAT) --dry-run --Werror $(C_FILES))
	@$(MAKE) --no-print-directory web/node_modules/.package-lock.json
	cd web && npm run --silent lint

fmt: setup-test
	cargo fmt --all
	$(if $(C_FILES),$(CLANG_FORMAT) -i $(C_FILES))

# What cannot be had here is no reason to fail: fuzz/run says what it does without.
fuzz:
	@./setup.sh fuzz || true
	fuzz/run $(FUZZ_SECONDS)
