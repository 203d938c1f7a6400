# Every task of the repository. The virtual environment .venv is made on first use.
PYTHON ?= python3
BIN := .venv/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet install --no-build-isolation
HOT := $(wildcard _fastseq/*.pyx _fastseq/*.pxd _fastseq/*.h)
RUNTIME := .venv/.runtime
BUILT := .venv/.built
DEV := .venv/.dev
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*/\1/p' $(lastword $(MAKEFILE_LIST)))
help:  ## print these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(BUILT)  ## three brokers and a ledger kept exact through faults (ARGS="--records N")
	@$(BIN)/oncelog demo $(ARGS)

test: $(DEV)  ## every test but the wheel build (ARGS="-k name")
	$(PY) -m pytest -m "not slow" $(ARGS)

lint: $(DEV)  ## ruff, cython-lint, codespell
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint _fastseq
	$(BIN)/codespell
format: $(DEV)  ## rewrite Python and Cython sources in the one style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/double-quote-cython-strings $(wildcard _fastseq/*.pyx _fastseq/*.pxd)

types: $(DEV)  ## mypy --strict, and the stubs against the compiled modules
	$(PY) -m mypy
	$(PY) -m mypy.stubtest _fastseq --allowlist tests/tidy/stubtest-allowlist.txt
contracts: $(DEV)  ## imports point one way, the core is sans-IO
	$(BIN)/lint-imports --no-logo --no-cache

ci: lint types contracts test bench-smoke packaging  ## everything that a push must pass

bench: $(DEV)  ## every benchmark at full size (ARGS="cluster" or any part of a name)
	$(PY) -m benchmarks $(ARGS)
bench-smoke: $(DEV)  ## every benchmark on tiny inputs, so that none rots
	$(PY) -m benchmarks --smoke
bench-kafka: $(DEV)  ## Apache Kafka and ours side by side (needs Java and Maven)
	$(PY) -m benchmarks.kafka $(ARGS)
bench-log: $(DEV)  ## the log next to the raw loop: append, sync, read, recovery (TMPDIR=...)
	$(PY) -m benchmarks.micro.log $(ARGS)
bench-fastseq: $(DEV)  ## the hot path alone
	$(PY) -m benchmarks.micro.fastseq $(ARGS)
sim: $(DEV)  ## simulate a cluster (ARGS="--seed N")
	$(PY) -m tests.sim $(ARGS)
soak: $(BUILT)  ## the demo RUNS times in a row (20), ends at the first that is not exact
	@for n in $$(seq $(or $(RUNS),20)); do echo "run $$n"; $(BIN)/oncelog demo $(ARGS) || exit 1; done
crash: $(DEV)  ## a writer on a real disk killed 200 times: every acknowledged record is there
	ONCELOG_CRASHES=200 $(PY) -m pytest tests/integration/test_crash_writer.py $(ARGS)
mutants: $(DEV)  ## break each rule in turn: the model and the simulator must notice
	$(PY) -m tests.model --all && $(PY) -m tests.mutants $(ARGS)
fuzz: $(DEV)  ## changed conversations of real clients against a broker for SECONDS (600)
	$(PY) -m tests.fuzz_listener $(or $(SECONDS),600) $(ARGS)
sanitize: $(DEV)  ## the extension under ASan and UBSan: its tests, then SECONDS (600) of fuzzing
	$(PY) tests/sanitize.py $(SECONDS)
packaging: $(DEV)  ## build the wheel and import it where the sources are not
	$(PY) -m pytest -m slow tests/tidy/test_packaging.py
clean:  ## remove what was built; .venv stays, without the stamp of its extension
	rm -rf build dist *.egg-info _fastseq/*.so _fastseq/*.c .*_cache .coverage htmlcov $(BUILT)
# What is needed to run; the extension is compiled once, in place, by the next rule.
$(RUNTIME): pyproject.toml
	@.ci/preflight $(PYTHON)
	@echo "preparing .venv, once: dependencies, then the compiled extension"
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@sed -n 's/^requires = \[\(.*\)\]/\1/p' pyproject.toml | sed 's/"//g; s/, / /g' | xargs $(PIP)
	@FASTSEQ_PROFILE=none $(PIP) --editable .
	@touch $@

$(BUILT): $(RUNTIME) setup.py $(HOT)
	@$(PY) setup.py --quiet build_ext --inplace --parallel 2
	@touch $@

$(DEV): $(RUNTIME) | $(BUILT)
	@echo "installing the development tools into .venv, once"
	@FASTSEQ_PROFILE=none $(PIP) --editable '.[dev]'
	@touch $@
