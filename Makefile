# Every target sets up what it needs: uv (from PyPI, if it is not there), then the locked packages.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install run test test-unit test-datasets test-automation test-faults test-cluster soak bench dev down check diagram format clean
.PHONY: cluster-image cluster-up cluster-run cluster-down cluster-logs

TOOLS := .tools
UV := $(shell command -v uv 2>/dev/null || echo $(TOOLS)/bin/uv)
RUN := $(UV) run --no-sync
# Each of the many processes of a run imports the same packages: Python shall keep what it has compiled of them.
export PYTHONDONTWRITEBYTECODE :=

# The cluster in containers. Runs are launched through the engine's socket, which belongs to a group of its own.
export DOCKER_SOCKET ?= $(or $(patsubst unix://%,%,$(filter unix://%,$(DOCKER_HOST))),/var/run/docker.sock)
export DOCKER_GID ?= $(shell stat -c %g $(DOCKER_SOCKET) 2>/dev/null || echo 0)
COMPOSE = docker compose --env-file docker/.env --file docker/compose.yaml \
	--file docker/compose.$(if $(OFFICIAL),official,stores).yaml $(if $(PAGES),--file docker/compose.pages.yaml)

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

$(TOOLS)/bin/uv:
	@echo "Installing uv into $(TOOLS)/"
	@python3 -m pip --version >/dev/null 2>&1 || { echo "python3 has no pip: install your system's package (Debian: apt-get install python3-pip) or uv itself"; exit 1; }
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target $(TOOLS) uv

.venv/.installed: pyproject.toml uv.lock | $(filter $(TOOLS)/bin/uv,$(UV))
	$(UV) sync --frozen
	@touch $@

install: .venv/.installed ## Install the locked packages into .venv

run: install ## Run the pipeline from CSV to verified HBase tables at 1 % of full size; OPTS='--scale 0.1' and the like
	$(RUN) ecom run $(OPTS)

# Two workers, each with a stack of its own, and one for the tests that need none (ecom_assets_tests/conftest.py).
test: install ## Run the unit and integration tests, those on the real stack included; OPTS='-k name' and the like
	$(RUN) pytest -n 3 --no-loadscope-reorder $(OPTS)

test-unit: install ## Run the tests that need no servers
	$(RUN) pytest ecom_assets_tests/unit $(OPTS)

test-cluster: install ## Test a lake in HDFS, Kafka with TLS and passwords, and a cluster whose servers are killed during a run (takes long)
	$(RUN) pytest ecom_assets_tests/options ecom_assets_tests/cluster $(OPTS)

test-datasets: install ## Take all 24 tables of TPC-DS from unknown CSV files to verified HBase tables
	$(RUN) pytest ecom_assets_tests/datasets $(OPTS)

test-automation: install ## Leave sensors alone with Dagster's own daemon, and verify what they do; SEEDS=1,2 (takes long)
	$(if $(SEEDS),ECOM_TEST_SEEDS=$(SEEDS)) $(RUN) pytest ecom_assets_tests/automation $(OPTS)

test-faults: install ## Kill servers during runs, and verify that no row is lost; SEEDS=5,6 for other deliveries at random (takes long)
	$(if $(SEEDS),ECOM_TEST_SEEDS=$(SEEDS)) $(RUN) pytest ecom_assets_tests/faults $(OPTS)

soak: install ## Kill random parts for MINUTES=10 while data flow, then reconcile all layers; SEED=1 and the like
	$(RUN) python -m ecom_assets_tests.faults.soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(OPTS)

bench: install ## Benchmark each step against standard tools; OPTS='--rows 100000' and the like (takes long)
	$(RUN) ecom bench $(OPTS)

dev: install ## Start the stack and Dagster's UI at http://127.0.0.1:3000; Ctrl-C stops the UI
	$(RUN) ecom dev $(OPTS)

down: install ## Stop the stack; data stays
	$(RUN) ecom down $(OPTS)

docker/.env:
	@python3 -c 'import re, secrets; print(re.sub(r"(PASSWORD=)$$", lambda m: m[1] + secrets.token_hex(16), open("docker/.env.example").read(), flags=re.M), end="")' > $@.new
	@chmod 600 $@.new && mv $@.new $@ && echo "Created $@ with generated passwords."

cluster-image: ## Build the one image of the cluster; BASE=python:3.13-slim-bookworm and the like
	docker build --file docker/Dockerfile $(if $(BASE),--build-arg BASE=$(BASE)) $(BUILD) --tag $(or $(ECOM_IMAGE),ecom-assets) .

cluster-up: docker/.env ## Start the cluster in containers; OFFICIAL=1 PAGES=1, see docs/cluster.md
	@python3 docker/cluster.py look -- $(COMPOSE)
	@$(MAKE) --no-print-directory cluster-image
	@python3 docker/cluster.py up --wait $(or $(WAIT),600) -- $(COMPOSE)
	@echo "Dagster: http://$$($(COMPOSE) port dagster-webserver 3000)  Dashboard: http://$$($(COMPOSE) port dashboard 8501)"

cluster-run: docker/.env ## Run the pipeline on the cluster at 1 % and verify it; OPTS='--scale 0.1' and the like
	$(COMPOSE) run --rm --no-TTY ecom ecom run --through dagster-webserver:3000 $(OPTS)

cluster-down: docker/.env ## Stop the cluster; data stay on its volumes; VOLUMES=1 deletes them
	$(COMPOSE) --profile tools down $(if $(VOLUMES),--volumes)

cluster-logs: docker/.env ## Follow the cluster's logs; SERVICE=kafka-1 for one
	$(COMPOSE) logs --follow --tail 50 $(SERVICE)

check: install ## Lint, types, imports between rooms, definitions, compose files and lock file
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) ty check
	$(RUN) lint-imports --no-logo
	$(RUN) dg check defs
	$(RUN) check-jsonschema --builtin-schema vendor.compose-spec docker/compose*.yaml
	$(UV) lock --check

diagram: install ## Draw the asset graph into docs/architecture.md
	$(RUN) python -m ecom_assets.diagram

format: install ## Format the code
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

clean: ## Delete the environment and caches; homes (.ecom) stay
	rm -rf .venv $(TOOLS) .pytest_cache .ruff_cache
