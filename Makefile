# Everything a newcomer needs: `make quickstart`, `make test`. Everything a contributor needs: `make verify`.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
MODEL := .cache/models/SmolLM2-135M-Instruct
# uv from PATH, else a private copy.
UV := $(or $(shell command -v uv),.cache/uv/bin/uv)
# Threads that spin while they wait make everything several times slower where cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup quickstart test verify lint generate lock model clean

quickstart: setup model ## Fine-tune a small real model on this machine, and show that it got better
	$(BIN)/finetune run manifests/examples/quickstart.yaml

test: setup model ## Run all tests
	$(BIN)/python -m pytest

setup: $(VENV)/.installed ## Install everything into .venv, exactly as locked

$(VENV)/.installed: requirements/lock.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing $(VENV)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/lock.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

.cache/uv/bin/uv:
	python3 -m venv .cache/uv
	.cache/uv/bin/python -m pip install --quiet uv

model: $(MODEL)/config.json ## Unpack the small real model of the quickstart and the tests

$(MODEL)/config.json: | setup
	$(BIN)/python scripts/small_model.py $(MODEL)

verify: lint ## Generated files, lint, types, import contracts
	$(BIN)/python scripts/generate.py --check
	$(BIN)/mypy
	$(BIN)/lint-imports

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

generate: setup ## Write what is generated from the models: CRD, reference
	$(BIN)/python scripts/generate.py

lock: | $(UV) ## Resolve the dependencies anew
	$(UV) pip compile --quiet --universal --generate-hashes --all-extras --group dev --group quickstart \
		--python-version 3.11 --upgrade pyproject.toml --output-file requirements/lock.txt

clean: ## Remove what was built, not what was downloaded
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache
