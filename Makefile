# Everything a newcomer needs: `make quickstart`, `make test`. Everything a contributor needs: `make verify`.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
MODEL := .cache/models/SmolLM2-135M-Instruct
# uv from PATH, else a private copy.
UV := $(or $(shell command -v uv),.cache/uv/bin/uv)
# Threads that spin while they wait make everything several times slower where cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE

# What builds images: the first of these that is installed.
BUILDER := $(firstword $(foreach tool,docker podman buildah,$(if $(shell command -v $(tool)),$(tool))))
VERSION := 0.1.0

.PHONY: setup quickstart test e2e bench images verify lint generate lock model clean

quickstart: setup model ## Fine-tune a small real model on this machine, and show that it got better
	$(BIN)/finetune run manifests/examples/quickstart.yaml

test: setup model ## Run all tests
	$(BIN)/python -m pytest

e2e: setup model ## From kubectl apply to an adapter in S3: on the cluster of KUBECONFIG, else on a node of its own (root)
	$(if $(KUBECONFIG),,$(BIN)/python tests/cluster install && $(BIN)/python tests/cluster build)
	$(BIN)/python -m pytest --override-ini=timeout=3600 tests/monitoring tests/cluster tests/e2e

bench: setup ## Measure the operator beside plain Jobs
	$(BIN)/python benchmarks/operator_throughput.py
	$(BIN)/python benchmarks/operator_memory.py

images: ## Build both images with docker, podman or buildah
	$(BUILDER) build -f operator/Dockerfile -t finetune-operator:$(VERSION) .
	$(BUILDER) build -f trainer_image/Dockerfile -t finetune-trainer:$(VERSION) .

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

COMPILE := $(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11

lock: | $(UV) ## Resolve the dependencies anew, for development and for both images
	$(COMPILE) --all-extras --group dev --group quickstart --upgrade pyproject.toml --output-file requirements/lock.txt
	for image in operator trainer; do $(COMPILE) --extra $$image --constraint requirements/lock.txt pyproject.toml \
		--output-file requirements/$$image.txt; done
	printf 'setuptools\nuv\n' | $(COMPILE) --constraint requirements/lock.txt - --output-file requirements/build.txt

clean: ## Remove what was built, not what was downloaded
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache
