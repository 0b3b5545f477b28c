# Every target sets up what it needs: uv (from PyPI, if it is not there), then the locked packages.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install run test test-unit test-faults soak bench dev down check format clean

TOOLS := .tools
UV := $(shell command -v uv 2>/dev/null || echo $(TOOLS)/bin/uv)
RUN := $(UV) run --no-sync
# Each of the many processes of a run imports the same packages: Python shall keep what it has compiled of them.
export PYTHONDONTWRITEBYTECODE :=

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(TOOLS)/bin/uv:
	@echo "Installing uv into $(TOOLS)/"
	@python3 -m pip --version >/dev/null 2>&1 || { echo "python3 has no pip: install your system's package (Debian: apt-get install python3-pip) or uv itself"; exit 1; }
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target $(TOOLS) uv

.venv/.installed: pyproject.toml uv.lock | $(filter $(TOOLS)/bin/uv,$(UV))
	$(UV) sync --frozen
	@touch $@

install: .venv/.installed ## Install the locked packages into .venv

run: install ## From CSV to proven HBase tables on 1 % of full size; OPTS='--scale 0.1' and the like
	$(RUN) ecom run $(OPTS)

test: install ## Run every test, those on the real stack included; OPTS='-k name' and the like
	$(RUN) pytest -n 2 --dist loadgroup $(OPTS)

test-unit: install ## Run the tests that need no servers
	$(RUN) pytest ecom_assets_tests/unit $(OPTS)

test-faults: install ## Kill servers in the middle of runs, and see that no row is lost (takes long)
	$(RUN) pytest ecom_assets_tests/faults $(OPTS)

soak: install ## Kill random parts for MINUTES=10 while data flow, and prove the sheet; SEED=1 and the like
	$(RUN) python -m ecom_assets_tests.faults.soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(OPTS)

bench: install ## Measure each step beside what others would use; OPTS='--rows 100000' and the like (takes long)
	$(RUN) ecom bench $(OPTS)

dev: install ## Start the stack and Dagster's UI at http://127.0.0.1:3000; Ctrl-C stops the UI
	$(RUN) ecom dev $(OPTS)

down: install ## Stop the stack; data stays
	$(RUN) ecom down $(OPTS)

check: install ## Lint, types, definitions and lock file
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) ty check
	$(RUN) dg check defs
	$(UV) lock --check

format: install ## Format the code
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

clean: ## Delete the environment and caches; homes (.ecom) stay
	rm -rf .venv $(TOOLS) .pytest_cache .ruff_cache
