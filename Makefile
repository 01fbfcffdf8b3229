# make install | demo | test | airgap | check | bench | soak | base-model | wheelhouse.  VENV=DIR: the place,
# PROFILE=edge installs what serving needs and no more (docs/serve-edge.md).
VENV ?= .venv
PROFILE ?= site
PYTHON ?= python3
BIN = $(abspath $(VENV))/bin

.PHONY: install demo test airgap check bench soak base-model wheelhouse
.DEFAULT_GOAL := install

INSTALLER = pyproject.toml packaging/install.py packaging/edge.py packaging/offline.py packaging/steps.py packaging/llama/server.cmake
SOURCES = $(shell find appliance federated quantize tui -type f -not -name '*.pyc')

install: $(VENV)/.installed-$(PROFILE)
$(VENV)/.installed-site: $(INSTALLER)
	@$(PYTHON) packaging/install.py $(VENV) site
$(VENV)/.installed-edge: $(INSTALLER) $(SOURCES)
	@$(PYTHON) packaging/install.py $(VENV) edge
$(VENV)/.installed-dev: $(INSTALLER)
	@$(PYTHON) packaging/install.py $(VENV) dev

demo: $(VENV)/.installed-site
	@$(BIN)/cloister demo

test: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -m "not soak"

# The stories (AIRGAP=tests: everything) in a network that has nothing but a loopback.
AIRGAP ?= tests/story
airgap: $(VENV)/.installed-dev
	@$(BIN)/python -c "import sys; from appliance.security.airgap.kernel import empty_network as leave; \
	leave(); import pytest; sys.exit(pytest.main([*sys.argv[1:], '-m', 'not soak']))" $(AIRGAP)

soak: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -m soak

check: $(VENV)/.installed-dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	@$(BIN)/python -m bench

# Rebuilds the base model from openly licensed text, laid out as packaging/base_model/sources.py says.
base-model: $(VENV)/.installed-site
	@test -d "$(CORPUS)" || { echo "error: no corpus folder given"; echo "try: make base-model CORPUS=DIR"; exit 2; }
	@PYTHONPATH=packaging $(BIN)/python -m base_model "$(CORPUS)" appliance/models/base --work build/base-model

# What `PROFILE` needs, to install without a network (docs/supply.md).
WHEELHOUSE ?= build/wheelhouse-$(PROFILE)
wheelhouse:
	@$(PYTHON) packaging/wheelhouse.py $(WHEELHOUSE) $(PROFILE)
