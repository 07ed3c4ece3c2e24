# Every target is one verb of `python -m nutclf`; `make` alone lists them.

PYTHON ?= python3
STUDY ?= mobilenetv2
NAME ?=
BACKBONE ?=
TRIALS ?=
TIMEOUT ?=
DATA ?= auto
CORRECTIONS ?=
STORE ?= mlruns
WEIGHTS ?= pretrained
MODEL ?=
OBJECTIVE ?= auto
WORKERS ?=
RAY ?=
CPUS_PER_FIT ?= 1
FORCE ?=
FIX ?=
PORT ?=
TO ?= litert
OUT ?= exports

# A value as one word of the shell, whatever its characters mean to make or to it; and as an option, if it is given.
quoted = '$(subst ','\'',$(value $(1)))'
option = $(if $(value $(2)),--$(1) $(call quoted,$(2)))

BIN := .venv/bin
ON_DATA = --data $(call quoted,DATA) --corrections $(call quoted,CORRECTIONS)
OF_STUDY = --study $(call quoted,STUDY) --name $(call quoted,NAME) $(ON_DATA) --objective $(call quoted,OBJECTIVE) --backbone $(call quoted,BACKBONE) --model $(call quoted,MODEL)
NUTCLF = NUTCLF_STORE=$(call quoted,STORE) $(BIN)/python -m nutclf
# Several processes of one thread each; the tests of a file stay together, as they share what they made once.
PYTEST = TF_NUM_INTRAOP_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
# TensorFlow finds a GPU only beside NVIDIA's own libraries, 3 GB: installed where there is one.
GPU := $(if $(shell command -v nvidia-smi 2>/dev/null),tensorflow[and-cuda])

# uv does not read pip's settings: a company's mirror is told to both.
PIP_SETTING = $$(for of in :env: global install; do $(BIN)/python -m pip config get $$of.$(1) 2>/dev/null && break; done)
UV = export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX-$(call PIP_SETTING,index-url)}"; $(BIN)/uv pip install -q --compile-bytecode -p $(BIN)/python
# What only a sweep on many machines needs.
MANY := $(if $(RAY)$(filter postgresql%,$(NUTCLF_OPTUNA_STORAGE)),.venv/.many-machines)

.DEFAULT_GOAL := help
.PHONY: help sweep promote predict ui serve export audit report ladder doctor bench test test-all test-cluster check format clean lock

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

sweep: .venv $(MANY) ## Search the recipe, record every trial, promote the best [STUDY TRIALS TIMEOUT DATA WORKERS RAY STORE]
	@$(NUTCLF) sweep $(OF_STUDY) $(call option,trials,TRIALS) --timeout $(call quoted,TIMEOUT) --weights $(call quoted,WEIGHTS) $(call option,workers,WORKERS) --ray $(call quoted,RAY) --cpus-per-fit $(call quoted,CPUS_PER_FIT)

promote: .venv ## Promote a study's best model again, by hand [STUDY DATA FORCE STORE]
	@$(NUTCLF) promote $(OF_STUDY) --force $(call quoted,FORCE)

predict: .venv ## What the champion sees: IMAGE=photo.jpg, several, or folders [MODEL STORE]
	@test -n $(call quoted,IMAGE) || { echo 'Name a photograph: make predict IMAGE=photo.jpg' >&2; exit 2; }
	@if test -e $(call quoted,IMAGE); then set -- $(call quoted,IMAGE); else eval set -- $(call quoted,IMAGE); fi; \
	$(NUTCLF) predict $(call option,model,MODEL) -- "$$@"

ui: .venv ## Open the MLflow UI on the records [PORT=5000 STORE]
	@$(NUTCLF) ui $(call option,port,PORT)

serve: .venv ## A page to hold a photograph up to, and an API for programs [PORT=8000 MODEL STORE]
	@$(NUTCLF) serve $(call option,port,PORT) $(call option,model,MODEL)

export: .venv ## The champion for a phone, TO=litert (float and int8) or onnx [MODEL OUT DATA STORE]
	@$(NUTCLF) export --to $(call quoted,TO) $(call option,model,MODEL) --out $(call quoted,OUT) $(ON_DATA)

audit: .venv ## What is wrong with the images: broken files, copies, leaks, doubtful labels [DATA STUDY STORE]
	@$(NUTCLF) audit $(OF_STUDY)

report: .venv ## One page on a study, to be read without network: ranking, curves, mistakes [STUDY DATA STORE]
	@$(NUTCLF) report $(OF_STUDY)

ladder: .venv ## The published ladder, rung by rung, beside what was published [BACKBONE DATA STORE]
	@$(NUTCLF) ladder $(call option,backbone,BACKBONE) $(ON_DATA)

doctor: .venv ## What kills, moves and damages left behind, found; repaired with FIX=1 [STORE]
	@$(NUTCLF) doctor $(if $(value FIX),--fix)

test: .venv ## The quick tests
	$(PYTEST) -m 'not slow'

test-all: .venv ## All tests but the cluster's
	$(PYTEST)

test-cluster: .venv .venv/.many-machines ## Faults of many machines: a Ray cluster, PostgreSQL, an MLflow server
	$(BIN)/python -m pytest -m cluster

check: .venv ## Lint, format and all tests but the cluster's; CI runs both
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST)

format: .venv ## Put the code into the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv ## Speed, side by side with the usual way: DATA=folder, two hours on an idle machine
	@test -d $(call quoted,DATA) || { echo 'Name a folder of photographs: make bench DATA=folder' >&2; exit 2; }
	@for part in speed growth where precision; do $(BIN)/python -m benchmarks.$$part $(call quoted,DATA) || exit; done
	@$(BIN)/python -m benchmarks.protocol $(call quoted,DATA) "$$(mktemp -d)/sweep"

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
	@# What a person tells pip, for other projects, about where packages go is set aside.
	@PIP_USER=0 PIP_TARGET= PIP_PREFIX= $(BIN)/python -m pip install -q --disable-pip-version-check uv==0.13.9
	@# Bytecode now: importing TensorFlow without it takes 9 s instead of 4, each time.
	@$(UV) -r requirements.txt $(GPU)
	@touch $@

.venv/.many-machines: .venv/.installed pyproject.toml
	@$(UV) -c requirements.txt -r pyproject.toml --extra ray --extra postgresql
	@touch $@
