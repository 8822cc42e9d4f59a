# `make` lists what there is to do. Every target installs what it lacks by itself.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python

# make test T=tests/test_exact.py SERVER=valkey-9.1: one file, on one server of the matrix.
T      ?=
SERVER ?=
# make bench ONLY="graph stalls": some of the benchmarks, printed and not written.
ONLY   ?=

# make torture MINUTES=60 SERVER=valkey-9.1 SEED=7 KINDS=clusters,kills
MINUTES ?= 5
SEED    ?=
KINDS   ?=
# make fuzz TARGET=filter SECONDS=600
TARGET  ?=
SECONDS ?= 60
RUNS    ?=
# make simulate SEEDS=1000000 SEED=5: schedules from that seed on.
SEEDS   ?= 1000000

# The extension of the Python client, a package of its own.
NATIVE := clients/python/native

# make run PORT=7000: on another port than 6379.
PORT   ?= 6379
# Where `make model` puts the embedding model.
MODEL  := $(CURDIR)/models/all-MiniLM-L6-v2
# make install DESTDIR=/tmp/root: below Debian's ExecPaths, where its unit lets the server map it.
MODULES ?= /usr/lib/redis/modules

.DEFAULT_GOAL := help
.PHONY: help model demo console console-test monitoring run build test bench quality mutate torture simulate fuzz planted asan miri lint fmt docs dist trydist install clean setup suites suites-lmcache client native js

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build $(VENV)/.ready ## show the module at work on real questions
	$(PY) demo/run.py

console: build $(VENV)/.ready ## open the console on the demo's data: http://127.0.0.1:8077 (PORT=8078 for another port)
	PYTHONPATH=clients/python/src $(PY) demo/console.py --port $(if $(filter command line,$(origin PORT)),$(PORT),8077)

console-test: build $(VENV)/.ready ## try the console in Chromium and draw docs/images/ anew with SHOTS=1 (needs chromium; fetches playwright)
	$(PY) -m pip install --quiet --disable-pip-version-check playwright==1.65.2 pillow==13.0.0
	cd clients/python && ENTRIES=1000000 ../../$(PY) -m pytest -q -s tests/console

monitoring: build $(VENV)/.ready ## try packaging/monitoring with Debian's redis_exporter and Prometheus (fetched, not installed)
	sh scripts/monitoring_tools.sh
	$(PY) -m pytest -q tests/monitoring

model: ## fetch the embedding model all-MiniLM-L6-v2 (84 MB) into models/
	$(PYTHON) scripts/model.py

run: build ## serve on redis.conf with the module loaded, and the model where `make model` put it (PORT=7000 for another port)
	redis-server redis.conf --port $(PORT) $(if $(wildcard $(MODEL)/tokenizer.json),--llmcache.embed-models minilm=$(MODEL) --llmcache.embed-default minilm)

build: setup ## build the module: target/release/libllmcache.so
	cargo build --release

test: build $(VENV)/.ready ## run all tests, on every server (T=file and SERVER=name narrow it down)
	$(PY) scripts/matrix.py $(if $(SERVER),--server $(SERVER)) $(T)

bench: build $(VENV)/.ready ## measure against real peers (VECTORS=folder, TRACE=file, CRANFIELD=folder for more)
	$(PY) bench/run.py $(if $(VECTORS),--vectors $(VECTORS)) $(if $(TRACE),--trace $(TRACE)) $(if $(CRANFIELD),--cranfield $(CRANFIELD)) $(if $(ONLY),--only $(ONLY))

quality: build $(VENV)/.ready ## measure guards and contexts on labelled questions (CONVERSATIONS=folder for more)
	$(PY) scripts/quality.py

suites: build $(VENV)/.ready ## run public suites, unchanged, over the Python client's adapters
	$(PY) clients/python/suites/run.py

suites-lmcache: build $(VENV)/.ready ## run LMCache's own tests over its adapter on llmcache (torch: 5 GB, once)
	$(PY) clients/python/suites/lmcache_suites.py

client: build $(VENV)/.ready ## lint, type and cover the Python client, and install its package
	$(PY) clients/python/suites/check.py

native: $(VENV)/.ready ## build the wheel of the Python client's extension, into dist/ (fetches maturin)
	$(PY) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist --config-settings=build-args="--compatibility pypi" $(NATIVE)
	ls -l dist/llmcache_native-*.whl

js: build $(VENV)/.ready ## type, test, weigh and pack the JavaScript client (needs node 20)
	LLMCACHE_JS=required $(PY) clients/js/check.py $(if $(SERVER),--server $(wildcard .servers/$(SERVER)/*-server))

mutate: setup ## load 100,000 changed folders of models: refused or working (the tests try 1,500; SEED=8 for others)
	LLMCACHE_MUTATIONS=100000 $(if $(SEED),LLMCACHE_MUTATIONS_SEED=$(SEED)) cargo test --release -p llmcache-core --test embed changed_bytes -- --nocapture

torture: build $(VENV)/.ready ## attack servers in every kind of round (MINUTES=60 SERVER=valkey-9.1 SEED=7 KINDS=clusters)
	$(PY) tests/torture/run.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(KINDS),--only $(KINDS)) $(if $(SERVER),--server $(wildcard .servers/$(SERVER)/*-server))

simulate: setup ## play schedules of leases, deadlines, failovers and slots that move, in process (SEEDS=1000000 SEED=1)
	LLMCACHE_SIMULATE_SEEDS=$(SEEDS) $(if $(SEED),LLMCACHE_SIMULATE_SEED=$(SEED)) cargo test --release --quiet -p llmcache-core --test simulation -- --nocapture

fuzz: $(VENV)/.ready ## attack the core's decoders, guided by coverage (TARGET=filter SECONDS=600 SEED=7; needs a C++ compiler) or not (RUNS=1000000)
	$(PY) tests/torture/fuzz.py $(if $(RUNS),--runs $(RUNS),--seconds $(SECONDS)) $(if $(TARGET),--target $(TARGET)) $(if $(SEED),--seed $(SEED))

asan: $(VENV)/.ready ## run core's tests and torture under AddressSanitizer (MINUTES=5 SERVER=valkey-9.1 SEED=7; needs gcc's libasan)
	$(PY) tests/torture/asan.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(SERVER),--server $(wildcard .servers/$(SERVER)/*-server))

miri: ## run the core's unsafe code under Miri (needs `rustup toolchain install nightly --component miri`)
	sh tests/torture/miri.sh

planted: $(VENV)/.ready ## plant known faults in a copy of the sources, one by one: does the harness find them? (hours)
	$(PY) tests/torture/planted.py $(if $(SEED),--seed $(SEED)) $(if $(SERVER),--server $(wildcard .servers/$(SERVER)/*-server))

lint: setup ## check format, arrows, lengths, licences and packaging; clippy and rustdoc, warnings denied
	$(PYTHON) scripts/check_arrows.py
	$(PYTHON) scripts/check_lengths.py
	$(PYTHON) scripts/check_licences.py
	$(PYTHON) scripts/check_packaging.py
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo fmt --manifest-path $(NATIVE)/Cargo.toml --check
	cargo clippy --release --locked --manifest-path $(NATIVE)/Cargo.toml -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

fmt: ## format the source
	cargo fmt --all
	cargo fmt --manifest-path $(NATIVE)/Cargo.toml

docs: ## write docs/commands/ from the command table
	LLMCACHE_WRITE_DOCS=1 cargo test --test command_docs

dist: setup ## build what a release attaches: stripped modules, Debian packages, wheels, checksums, in dist/
	scripts/dist.sh

trydist: ## try what dist built: install by dpkg, run the image's steps, load the aarch64 module under emulation
	$(PYTHON) scripts/try_packaging.py --image
	scripts/aarch64_smoke.sh

install: build ## install the module into /usr/lib/redis/modules (DESTDIR and MODULES for elsewhere)
	install -D -m 755 target/release/libllmcache.so $(DESTDIR)$(MODULES)/libllmcache.so
	@echo "add to redis.conf: loadmodule $(MODULES)/libllmcache.so"

clean: ## remove what was built, fetched and installed here
	cargo clean
	rm -rf bench/hnsw-reference/target $(NATIVE)/target dist
	rm -rf $(VENV) .servers .pytest_cache clients/js/node_modules clients/js/dist

setup: ## install what building and testing need
	@PYTHON=$(PYTHON) sh scripts/setup.sh

$(VENV)/.ready: tests/requirements.txt | setup
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@
