# All commands of the project. `make` lists them.
#
# PYTHON   the Python that runs the tools (3.8 or later); not the one goslings is built for
# PYTHONS  restricts to some interpreters, e.g. `make test PYTHONS=3.14t,3.13`
# ARGS     passed on to the program that a target runs
# GOSLINGS_PYTHONS in the environment names the interpreters to use instead of searching for them.
# bench/run.py gets the environments as GOSLINGS_BENCH_PYTHONS=3.14t=/path/python:3.13=/path/python:

PYTHON ?= python3
PYTHONS ?=
ARGS ?=

DEV := $(PYTHON) tools/dev.py $(if $(strip $(PYTHONS)),--only "$(PYTHONS)")
FREE_THREADED := $(DEV) --best free-threaded
# The linters are installed beside a GIL build: mypy cannot be had for every free-threaded one.
GIL := $(DEV) --best gil
# Their own folder: models are compiled with other flags, and would rebuild everything each time.
LOOM := RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p goslings -p goslings-shm --release --lib
LOOM_TESTS ?= loom
STRESS_SECONDS ?= 60
SECONDS ?= 60
SEED ?=

.DEFAULT_GOAL := help
.PHONY: help dev demo test test-rust test-python model model-quick miri stress fuzz fuzz-http suites lint bench docs interpreters clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

dev: ## set up an environment in .venvs for each interpreter and build goslings into it
	@$(DEV) --group test

demo: ## build for the best free-threaded interpreter and run the feed reader
	@$(FREE_THREADED) --group demo -- -m goslings demo feeds $(ARGS)

test: ## all bounded tests, on every interpreter found; a GIL and a free-threaded one always take part
	@$(PYTHON) tools/test.py $(if $(strip $(PYTHONS)),--only "$(PYTHONS)")

test-rust: ## only the tests of the crates without Python
	cargo test -p goslings -p goslings-shm $(ARGS)

test-python: ## only the Python tests; ARGS go to pytest
	@$(PYTHON) tools/test.py $(if $(strip $(PYTHONS)),--only "$(PYTHONS)") --python $(if $(ARGS),-- $(ARGS))

model: ## check the concurrent protocols with loom, three preemptions deep (long)
	LOOM_MAX_PREEMPTIONS=3 $(LOOM) $(LOOM_TESTS) $(ARGS)

model-quick: ## the same, two preemptions deep: seconds
	LOOM_MAX_PREEMPTIONS=2 $(LOOM) $(LOOM_TESTS) $(ARGS)

# Tree Borrows: the lists of crossbeam-epoch, on which transactions stand, do not keep to Stacked Borrows.
miri: ## run the tests of the crates without Python under Miri
	@cargo +nightly miri --version >/dev/null 2>&1 || \
	  { echo "Miri is not installed: rustup toolchain install nightly --component miri --component rust-src" >&2; exit 1; }
	MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows $(MIRIFLAGS)" CARGO_TARGET_DIR=target/miri cargo +nightly miri test -p goslings -p goslings-shm --lib --tests $(ARGS)

stress: ## a minute of stress with exact accounting, free-threaded (STRESS_SECONDS)
	GOSLINGS_STRESS_SECONDS=10 cargo test -p goslings --release --test stress -- --ignored --nocapture --test-threads 1
	@GOSLINGS_STRESS_SECONDS=$(STRESS_SECONDS) $(FREE_THREADED) --group test -- -X faulthandler -m pytest tests/stress -q $(ARGS)

fuzz: ## random programs, every value accounted for, on each interpreter (SECONDS in all; SEED repeats one)
	@$(PYTHON) tools/fuzz.py $(if $(strip $(PYTHONS)),--only "$(PYTHONS)") --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

suites: ## CPython's own test suites under goslings.patch(); writes docs/patch-suites.md (ARGS="test_queue -v")
	@$(PYTHON) tools/suites.py $(if $(strip $(PYTHONS)),--only "$(PYTHONS)") $(ARGS)

fuzz-http: ## 100,000 garbage requests at the WSGI server, on the best free-threaded interpreter (ARGS)
	@cd tests && PYTHONPATH=. $(PYTHON) ../tools/dev.py $(if $(strip $(PYTHONS)),--only "$(PYTHONS)") --best free-threaded --group test -- -X faulthandler -m fuzz.garbage $(ARGS)

lint: ## formatting, lints and types of the Rust and the Python code
	@py="$$($(GIL) --group lint | cut -f2)" && test -n "$$py" && set -ex && \
	cargo fmt --all --check && \
	PYO3_PYTHON="$$py" cargo clippy --workspace --all-targets -- -D warnings && \
	$(PYTHON) tools/check_ordering.py && \
	"$$py" -m ruff check . && \
	"$$py" -m ruff format --check . && \
	"$$py" -m mypy --strict python/goslings && \
	MYPYPATH=tools "$$py" -m mypy --strict tools

bench: ## measure goslings beside its rivals, all interpreters in one run; writes docs/benchmarks.md
	@venvs="$$($(DEV) --group bench)" && test -n "$$venvs" && \
	GOSLINGS_BENCH_PYTHONS="$$(echo "$$venvs" | tr '\t\n' '=:')" \
	"$$(echo "$$venvs" | head -n 1 | cut -f 2)" bench/run.py $(ARGS)

docs: ## docs/semantics.md, and the runtime crate's documentation, into target/doc
	$(PYTHON) tools/semantics.py
	cargo doc -p goslings --no-deps --document-private-items

interpreters: ## show which interpreters are found
	@$(PYTHON) tools/interpreters.py list >/dev/null

clean: ## remove what was built; built interpreters stay in the user's cache
	rm -rf target .venvs .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find python tests bench tools -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	rm -f python/goslings/_goslings*.so python/goslings/_goslings*.dylib
