# Needs Rust. The targets that need Debian packages install what is missing (as root).
SHELL := /bin/bash

PREFIX ?= /usr/local
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
LXCRUN := $(TARGET)/release/lxcrun
SHIM := $(TARGET)/release/containerd-shim-lxcrun-v2

.DEFAULT_GOAL := help
.PHONY: help build demo test test-root vm-test vm-test-all vm-smoke vm-shell lint bench bindings bindings-check man install clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

# Static and at a fixed address, because an OCI runtime is a program that starts often and ends soon: loading three
# libraries and relocating cost more than all that `lxcrun state` does. liblxc is loaded by the monitor, which
# lxcrun carries inside itself. A plain `cargo build` makes a dynamic one that works the same.
# The copies are what `make install` leaves, too: the linker's own file is in the page cache page by page, a copy in larger
# pieces that are mapped at once, which takes a tenth off the start.
STATIC := -C target-feature=+crt-static -C relocation-model=static

build: export LIBSECCOMP_LINK_TYPE := static
build: export LIBSECCOMP_LIB_PATH = $(abspath $(dir $(shell $(CC) -print-file-name=libseccomp.a)))
build: ## lxcrun and its containerd shim, in target/release
	cargo rustc --release -p lxcrun-cli --bin lxcrun -- $(STATIC)
	cargo rustc --release -p lxcrun-shim --bin containerd-shim-lxcrun-v2 -- $(STATIC)
	$(foreach program,$(LXCRUN) $(SHIM),cp $(program) $(program).copy && mv $(program).copy $(program) &&) true

demo: ## a container, seen from inside (root)
	scripts/install-deps build
	$(MAKE) --no-print-directory build
	scripts/demo $(LXCRUN)

# The suite drives the release binary, the one that users get. The tests themselves are built without
# optimisation: that takes a fraction of the time of one more link-time optimised binary per test target.
test: ## every test; ends with their number (root)
	scripts/install-deps test
	$(MAKE) --no-print-directory build
	RUNTIME=$(or $(RUNTIME),$(LXCRUN)) scripts/test --workspace

test-root: ## the black-box suite alone; RUNTIME=runc takes a peer (root)
	scripts/install-deps test
	$(if $(RUNTIME),,$(MAKE) --no-print-directory build)
	RUNTIME=$(or $(RUNTIME),$(LXCRUN)) scripts/test -p lxcrun-test --test oci

# The release binary meets there what it was not built on: a newer liblxc and libc.
vm-test: ## what differs on today's host, a virtual machine; ends with the number of tests (root)
	scripts/install-deps vm
	$(MAKE) --no-print-directory build
	VM_PROFILE=release scripts/vm/test

vm-test-all: ## the whole suites there, which takes hours (root)
	scripts/install-deps vm
	$(MAKE) --no-print-directory build
	VM_PROFILE=release scripts/vm/test --all

vm-smoke: ## the quicker part of vm-test (root)
	scripts/install-deps vm
	$(MAKE) --no-print-directory build
	VM_PROFILE=release scripts/vm/test --smoke

vm-shell: ## a shell on today's host, a virtual machine with lxcrun in it (root)
	scripts/install-deps vm
	cargo build -p lxcrun-cli
	scripts/vm/vm shell

SCRIPTS = $(shell grep -lrE "^#(!/bin/.*sh| shellcheck shell)" scripts)

# cargo-deny's advisories come from a git repository that a build machine may not reach: they are checked
# where a copy is present (`cargo deny fetch` makes one), and never a reason to fail for want of a network.
ADVISORIES := $(wildcard $(or $(CARGO_HOME),$(HOME)/.cargo)/advisory-dbs)

lint: ## format, clippy, shell scripts, licences and sources of dependencies
	scripts/install-deps lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	shellcheck -x $(SCRIPTS) .ci/run
	! grep -rn '#\[ignore' --include='*.rs' crates tests | grep -v '#\[ignore = "#[0-9]'
	cargo fetch --locked
	cargo deny --offline check $(if $(ADVISORIES),advisories) bans licenses sources

bench: ## lxcrun beside its peers; BENCH_RUNS=15 rounds; writes docs/performance.md (root)
	scripts/install-deps bench
	$(MAKE) --no-print-directory build
	cargo build --release -p lxcrun-bench
	RUNTIME=$(LXCRUN) $(TARGET)/release/lxcrun-bench --docs docs

bindings: ## crates/lxc/src/sys.rs anew, from the installed header
	scripts/install-deps bindings
	scripts/bindings >crates/lxc/src/sys.rs.new
	mv crates/lxc/src/sys.rs.new crates/lxc/src/sys.rs

bindings-check: ## crates/lxc/src/sys.rs against the installed header
	scripts/install-deps bindings
	scripts/bindings | diff -u crates/lxc/src/sys.rs -

# Made from the definition of the command line by the very binary that is installed: they can't differ from it.
man: ## manual pages and completions, in target/man and target/completions, after build
	$(LXCRUN) man $(TARGET)/man
	mkdir -p $(TARGET)/completions
	set -e; for shell in bash zsh fish; do $(LXCRUN) completion $$shell >$(TARGET)/completions/$$shell; done

install: man ## into $(DESTDIR)$(PREFIX), after build
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(LXCRUN) $(SHIM)
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 $(TARGET)/man/*.8
	install -D -m 644 $(TARGET)/completions/bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/lxcrun
	install -D -m 644 $(TARGET)/completions/zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_lxcrun
	install -D -m 644 $(TARGET)/completions/fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/lxcrun.fish

clean: ## what was built
	cargo clean
