# `make help` lists the targets. Everything runs from .venv; no other state is kept outside git but the caches
# named in `clean` and the data folder of `millstream dev`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
PEERS := .venv/bench/.installed
FAST := not (kafka or postgres or slow or faults)
REAL := (kafka or postgres or slow) and not faults
COMPILE := uv pip compile --quiet --python-version 3.11 --universal --generate-hashes --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help setup demo dev test test-fast test-integration faults soak bench lint types imports fmt lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv with the locked dependencies (again only when they change)

# The locked setuptools builds the editable install, so nothing unpinned is fetched.
$(STAMP): requirements/dev.txt pyproject.toml
	@echo "setup: installing the locked dependencies into .venv (about a minute)"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## Export 336,776 flights through real Kafka and PostgreSQL and check every byte
	@$(BIN)/python -m examples.demo

dev: setup ## Start the whole system on this machine; Ctrl-C stops it
	@$(BIN)/millstream dev

test: lint types imports test-fast test-integration ## Everything CI runs

test-fast: setup ## Tests without a broker or a database
	$(BIN)/pytest -n 2 -m "$(FAST)"

test-integration: setup ## Tests on the real broker and database, which the test session starts itself
	$(BIN)/pytest -n 2 --dist loadfile -m "$(REAL)"

faults: setup ## The long fault run: kill every process at random instants, many times
	$(BIN)/pytest -m faults tests --timeout 21600 -o faulthandler_timeout=21660

soak: setup ## Ten minutes of load; no process keeps more than 128 MB beyond what it holds idle
	@$(BIN)/python -m tests.soak $(SOAK)

bench: setup $(PEERS) ## Measure the published figures beside their peers (needs redis-server, psql and wrk)
	@$(BIN)/python -m tests.bench $(BENCH)

$(PEERS): requirements/bench.txt
	@echo "bench: installing the locked peers into .venv/bench"
	@test -x .venv/bench/bin/python || "$(PYTHON)" -m venv .venv/bench
	@.venv/bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

lint: setup ## Check format and lint rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup ## Check types (mypy strict)
	$(BIN)/mypy

imports: setup ## Check who imports whom
	$(BIN)/lint-imports

fmt: setup ## Format the code and mend what the linter can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lock: ## Compile requirements/*.in to hash-pinned *.txt (needs uv on PATH)
	$(COMPILE) requirements/runtime.in -o requirements/runtime.txt
	$(COMPILE) --constraints requirements/runtime.txt requirements/dev.in -o requirements/dev.txt
	$(COMPILE) requirements/bench.in -o requirements/bench.txt

clean: ## Remove .venv, caches and build output; the data of `millstream dev` stays
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
