# Every target is one verb of `python -m nutclf`; `make` alone lists them.
# What a person sets: STUDY, NAME, TRIALS, DATA, OBJECTIVE, STORE, WEIGHTS, IMAGE, MODEL, FORCE, PORT.

PYTHON ?= python3
STUDY ?= mobilenetv2
NAME ?=
TRIALS ?= 20
DATA ?= auto
STORE ?= mlruns
WEIGHTS ?= pretrained
MODEL ?= nutclf
OBJECTIVE ?= auto
FORCE ?=
PORT ?= 5000

BIN := .venv/bin
NUTCLF = NUTCLF_STORE='$(STORE)' $(BIN)/python -m nutclf
# TensorFlow finds a GPU only beside NVIDIA's own libraries, 3 GB: installed where there is one.
GPU := $(if $(shell command -v nvidia-smi 2>/dev/null),tensorflow[and-cuda])


.DEFAULT_GOAL := help
.PHONY: help sweep promote predict ui test test-all check format clean lock

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

sweep: .venv ## Search the recipe, record every trial, promote the best [STUDY TRIALS DATA STORE]
	@$(NUTCLF) sweep --study '$(STUDY)' --name '$(NAME)' --trials '$(TRIALS)' --data '$(DATA)' --objective '$(OBJECTIVE)' --weights '$(WEIGHTS)'

promote: .venv ## Promote a study's best model again, by hand [STUDY DATA FORCE STORE]
	@$(NUTCLF) promote --study '$(STUDY)' --name '$(NAME)' --data '$(DATA)' --objective '$(OBJECTIVE)' --force '$(FORCE)'

predict: .venv ## What the champion sees: IMAGE=photo.jpg, several, or folders [MODEL STORE]
	@test -n "$(IMAGE)" || { echo 'Name a photograph: make predict IMAGE=photo.jpg' >&2; exit 2; }
	@$(NUTCLF) predict --model '$(MODEL)' -- $(IMAGE)

ui: .venv ## Open the MLflow UI on the records [PORT STORE]
	@$(NUTCLF) ui --port '$(PORT)'

test: .venv ## The quick tests
	$(BIN)/python -m pytest -m 'not slow'

test-all: .venv ## All tests
	$(BIN)/python -m pytest

check: .venv ## Lint, format and all tests: what CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

format: .venv ## Put the code into the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Empty the feature store and the caches; records and data stay
	rm -rf .cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

lock: .venv ## Pin every package again, from pyproject.toml
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --no-emit-index-url --group pyproject.toml:dev pyproject.toml -o requirements.txt

.venv: .venv/.installed
.venv/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python {v[0]}.{v[1]} found; 3.11, 3.12 or 3.13 needed: make PYTHON=python3.11")'
	@echo 'Installing the pinned packages into .venv, once: about 600 MB.'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==0.13.9
	@# Bytecode now: importing TensorFlow without it takes 9 s instead of 4, each time.
	@$(BIN)/uv pip install -q --compile-bytecode -p $(BIN)/python -r requirements.txt $(GPU)
	@touch $@
