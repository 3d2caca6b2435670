# SPDX-License-Identifier: Apache-2.0
# Each target works alone on a fresh clone: it sets itself up in .venv first, and never touches the system's Python.

BIN := .venv/bin
export PYTHONPATH :=

.PHONY: help demo test test-vm soak matrix lint format docs bench lock clean

help: ## Say what there is
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Sign and verify a real EXE with a software token: the whole way, in a temporary folder
	@tools/setup.sh runtime
	@$(BIN)/privyseal demo

test: ## Run every test (ARGS="-k name" narrows it)
	@tools/system_packages.sh
	@tools/setup.sh dev
	@$(BIN)/python tools/fetch_inputs.py
	@rm -f .pytest_cache/v/cache/lastfailed
	@$(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS) || $(BIN)/python tools/second_attempt.py $$?

test-vm: ## Run the tests that need a kernel of their own, in QEMU: USB recovery and sharing, of devices that nobody here wrote
	@tools/system_packages.sh
	@tools/system_packages.sh requirements/vm.txt
	@tools/setup.sh dev
	@$(BIN)/python -m pytest tests/vm $(ARGS)

soak: ## Sign 10,000 times among faults and 100,000 times without, break a cell of hubs everywhere, run 100,000 simulated schedules
	@tools/system_packages.sh
	@tools/setup.sh dev
	@PYTHONPATH=tests $(BIN)/python -m lab --signatures 10000 --percent 1
	@PYTHONPATH=tests $(BIN)/python -m lab --signatures 100000 --percent 0
	@PYTHONPATH=tests $(BIN)/python -m several
	@PYTHONPATH=tests $(BIN)/python -m simulated --first 1000000 --count 100000 $(ARGS)

matrix: ## Sign every PE input in every way and ask every judge (ARGS=--all: with every key)
	@tools/system_packages.sh
	@tools/setup.sh dev
	@$(BIN)/python tools/fetch_inputs.py
	@$(BIN)/python tools/matrix.py $(ARGS)

lint: ## Check style, types, floors and changelog fragments
	@tools/setup.sh dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/towncrier build --draft --version 0 > /dev/null

format: ## Let ruff put the code into its form
	@tools/setup.sh dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: ## Renew what docs/ has from src/: errors, entries of the log
	@tools/setup.sh dev
	$(BIN)/python tools/error_pages.py
	$(BIN)/python tools/entry_schema.py

bench: ## Run the measurements in bench/
	@tools/setup.sh dev
	@set -e; for program in bench/[a-z]*.py; do echo "== $$program"; $(BIN)/python "$$program" $(ARGS); done

lock: ## Renew requirements/*.txt (UPGRADE=--upgrade takes the newest versions)
	@tools/setup.sh dev
	@tools/lock.sh $(UPGRADE)

clean: ## Remove everything that make has made
	rm -rf .venv build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
