# `make help` lists the commands. Everything is made inside this directory: .venv, .demo, .dagster, data.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

# The first of these that really runs and is new enough (a version manager's stub may exist and fail).
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	  $$name -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
READY := .venv/.ready
READERS := .venv/.readers
COMPILE := $(BIN)/python -W ignore -m compileall -qq -j 0 -x '/tests/' .venv/lib || true # some files are templates
unexport PYTHONDONTWRITEBYTECODE # it doubles every start of Dagster

.PHONY: help
help: ## List the commands
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

$(READY): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ]; then
	  echo "No Python 3.11 to 3.13 with venv found: install one, or run make PYTHON=/path/to/python" >&2
	  exit 1
	fi
	echo "Setting up .venv with $$($(PYTHON) --version)"
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -qq --disable-pip-version-check --no-compile --require-hashes --no-deps -r requirements.lock
	$(COMPILE) # pip would do so on one core: it took a third of the set-up
	$(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

.PHONY: setup
setup: $(READY) ## Make .venv from the lock file

$(READERS): $(READY) requirements-readers.lock
	@$(BIN)/pip install -qq --disable-pip-version-check --no-compile --require-hashes --no-deps -r requirements-readers.lock
	$(COMPILE)
	touch $@

.PHONY: lint
lint: setup ## Lint, formatting, import rules, types
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

.PHONY: test
test: lint $(READERS) ## Lint, types and all tests with coverage
	@$(BIN)/python -m pytest --numprocesses 4 --dist worksteal --cov --cov-report=
	$(BIN)/coverage report --skip-covered
	echo "The core, by branches:"
	$(BIN)/coverage report --fail-under=95 --format=total \
	  --include='calls_assets/api/*,calls_assets/ingest/*,calls_assets/lake/*,calls_assets/derive/*'

.PHONY: torture
torture: $(READERS) ## The long runs: thirty days of 2,000 calls against the oracle, every fault harness and reader at full length
	@CALLS_TORTURE=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal \
	  calls_assets_tests/e2e/test_backfill.py calls_assets_tests/faults calls_assets_tests/distributed calls_assets_tests/readers

.PHONY: demo
demo: setup ## Seven days from a simulated vendor into .demo, and a look at the tables
	@PATH="$$PWD/$(BIN):$$PATH" bash docs/demo.sh

.PHONY: dev
dev: setup ## The Dagster UI: on the API that .env names, else on the simulator
	@PATH="$$PWD/$(BIN):$$PATH" bash docs/dev.sh

.PHONY: bench
bench: setup ## Measure side by side with peers and floors: docs/performance.md (ONLY="sweep latency" for some)
	@$(BIN)/python benchmarks/bench.py $(ONLY)

.PHONY: docs
docs: setup ## Write the generated pages again
	@$(BIN)/python -m calls_assets.lake.dictionary docs/data-dictionary.md
	$(BIN)/python -m calls_assets.lake.contract docs/schema.json

.PHONY: lock
lock: ## Write the lock files again (needs uv)
	@uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --extra dev pyproject.toml --output-file requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --extra readers --constraint requirements.lock pyproject.toml --output-file requirements-readers.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --extra image --constraint requirements.lock pyproject.toml --output-file deploy/requirements.lock

.PHONY: clean
clean: ## Remove everything made here but data
	@rm -rf .venv .demo .dagster build ./*.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
