# Everything a person or a machine does here, by name. `make demo` and `make test` come first.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
PORT ?= 3000
DEMO_HOME := var/demo

# Imports are three times slower without bytecode, so it is compiled at install and never refused.
unexport PYTHONDONTWRITEBYTECODE
export BENTOML_DO_NOT_TRACK = True
# LightGBM's idle threads sleep instead of spinning: tests and services share the cores.
export OMP_WAIT_POLICY = PASSIVE

.PHONY: help env demo demo-stop test lint types unit fuzz bench docs sample lock clean

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

env: .venv/.ready ## Make the environment from the hashed lock file

.venv/.ready: requirements/dev.lock requirements/uv.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes requirements/dev.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --editable .
	touch $@

demo: env demo-stop ## Train on the sample, serve, and print three decisions; the service stays up
	@$(BIN)/python -m training.demo --home $(DEMO_HOME) --port $(PORT)

demo-stop: ## End the demo's service
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m training.demo --home $(DEMO_HOME) --stop; fi

test: lint ## Everything: lint, types, import contract, tests
	@# Side by side: mypy takes one core for half a minute, and the tests wait now and then.
	@$(MAKE) --no-print-directory -j 2 types unit

lint: env ## Style and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: env ## mypy --strict
	$(BIN)/mypy

unit: env ## All tests, with what they need of the system
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

fuzz: env ## The property tests on examples that were never tried; what fails is kept and tried again
	$(BIN)/python -m pytest -n 2 -m hypothesis --hypothesis-profile fuzz tests

bench: env ## Every benchmark that needs no data from outside; JSON on standard output
	$(BIN)/python -m benchmarks.explain
	$(BIN)/python -m benchmarks.faithfulness
	$(BIN)/python -m benchmarks.rules
	$(BIN)/python -m benchmarks.recompute --decisions 2000
	$(BIN)/python -m benchmarks.backtest --decisions 100000
	$(BIN)/python -m benchmarks.features
	$(BIN)/python -m benchmarks.decision
	$(BIN)/python -m benchmarks.console
	$(BIN)/python -m benchmarks.fuzz
	$(BIN)/python -m benchmarks.conformance --examples 60
	$(BIN)/python -m benchmarks.faults --kills 20 --store both
	$(BIN)/python -m benchmarks.soak --seconds 60
	$(BIN)/python -m benchmarks.censoring
	$(BIN)/python -m benchmarks.world
	$(BIN)/python -m benchmarks.training

docs: env ## Make docs/ and the catalogue of texts again from the catalog and the schema
	$(BIN)/python -m training.feature_table > docs/features.md
	$(BIN)/python -m training.folder_page > docs/data-folder.md
	$(BIN)/recourse policy schema --out docs/policy.schema.json
	$(BIN)/python -m training.policy_page
	$(BIN)/python -m training.texts

sample: env ## Make data/sample again
	sed -n 's/^    recourse /recourse /p' data/sample/README.md | head -1 | sed 's#^#$(BIN)/#' | bash

lock: ## Resolve the dependencies again
	uv pip compile -q pyproject.toml --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements/serving.lock
	uv pip compile -q pyproject.toml --extra dev --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements/dev.lock
	echo uv | uv pip compile -q - --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements/uv.lock

clean: ## Remove the environment and all state
	rm -rf .venv var build dist
