# `make` lists what there is to do. Every target installs what it lacks by itself.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python

# make test T=tests/test_exact.py SERVER=valkey-9.1: one file, on one server of the matrix.
T      ?=
SERVER ?=
# make bench ONLY="graph stalls": some of the benchmarks, printed and not written.
ONLY   ?=

.DEFAULT_GOAL := help
.PHONY: help demo run build test bench lint fmt docs clean setup

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build $(VENV)/.ready ## show the module at work on real questions
	$(PY) demo/run.py

run: build ## serve on redis.conf with the module loaded
	redis-server redis.conf

build: setup ## build the module: target/release/libllmcache.so
	cargo build --release

test: build $(VENV)/.ready ## run all tests, on every server (T=file and SERVER=name narrow it down)
	$(PY) scripts/matrix.py $(if $(SERVER),--server $(SERVER)) $(T)

bench: build $(VENV)/.ready ## measure against real peers (VECTORS=folder, TRACE=file for more)
	$(PY) bench/run.py $(if $(VECTORS),--vectors $(VECTORS)) $(if $(TRACE),--trace $(TRACE)) $(if $(ONLY),--only $(ONLY))

lint: setup ## check the format, the arrows between rooms and the licences; clippy, warnings denied
	$(PYTHON) scripts/check_arrows.py
	$(PYTHON) scripts/check_licences.py
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt: ## format the source
	cargo fmt --all

docs: ## write docs/commands/ from the command table
	LLMCACHE_WRITE_DOCS=1 cargo test --test command_docs

clean: ## remove what was built, fetched and installed here
	cargo clean
	rm -rf bench/hnsw-reference/target
	rm -rf $(VENV) .servers .pytest_cache

setup: ## install what building and testing need
	@PYTHON=$(PYTHON) sh scripts/setup.sh

$(VENV)/.ready: tests/requirements.txt | setup
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@
