# Everything runs in .venv, which each target makes by itself when it is missing.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# := and not ?=: some shells export HOST, and the pages are for this machine unless `make` is told.
HOST := 127.0.0.1
PORT := 5000

# NAME=value behind `make TARGET` is --name value of the command of `fer`, in small letters too;
# `fer` refuses what it does not know, and so do the targets that start something else.
typed := $(filter-out PYTHON VENV BIN PYTEST,$(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $v)),$v)))
JOBS := demo train finetune evaluate compare register
takes_ui := HOST PORT
takes_test := ARGS
takes_test-fast := ARGS
takes_faults := ARGS
takes_mutants := ARGS
check_typed = $(if $(filter-out $(takes_$1),$(typed)),$(error `make $1` takes $(or $(takes_$1),no \
  variables). Received: $(filter-out $(takes_$1),$(typed))))
$(foreach goal,$(filter-out $(JOBS),$(or $(MAKECMDGOALS),help)),$(call check_typed,$(goal)))

small = $(subst _,-,$(shell printf %s '$1' | tr A-Z a-z))
quoted = '$(subst ','\'',$(value $1))'
# $1: the names that are taken from the environment as well.
from_environment = $(foreach v,$1,$(if $(filter environment,$(origin $v)),$v))
options = $(foreach v,$(filter-out ARGS $(if $(filter ui,$(MAKECMDGOALS)),HOST PORT),$(typed)) \
  $(call from_environment,$1),--$(call small,$v) $(call quoted,$v)) $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check security format docs train finetune evaluate compare register bench bench-quick faults mutants ui clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable '.[dev]'
	@touch $@

# The optional parts too: faces, export.
$(VENV)/.installed-all: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable '.[dev,export,faces]'
	@touch $@

demo: $(VENV)/.installed  ## the main job on synthetic faces, both backbones, ending with a champion
	$(BIN)/fer main --recipe demo $(call options)
	@echo "Look at it: make ui"

# Two processes; a file stays in one of them, so that what it trains once is trained once. In their
# own order: by the number of their tests the longest files, which have two, would come last.
PYTEST = pytest -n 2 --dist loadfile --no-loadscope-reorder

# The share of lines is that of the quick tests: measuring takes a third more time or so, and the
# slow ones take long enough.
test: $(VENV)/.installed-all  ## all tests, and the share of lines that the quick ones reach; with ARGS=… tests alone
ifeq ($(strip $(ARGS)),)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m $(PYTEST) -m "not slow"
	$(BIN)/python -m $(PYTEST) -m slow
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
else
	$(BIN)/python -m $(PYTEST) $(ARGS)
endif

test-fast: $(VENV)/.installed-dev  ## the tests that are not slow
	$(BIN)/python -m $(PYTEST) -m "not slow" $(ARGS)

check: $(VENV)/.installed-dev  ## formatting, lint, imports, types, unsafe code; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive fer_experiments

security: $(VENV)/.installed-dev  ## known holes in the pinned packages; needs internet
	$(BIN)/pip-audit --requirement requirements.txt --disable-pip --no-deps

format: $(VENV)/.installed-dev  ## formats and mends what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-dev  ## the reference from the code, then all pages as a site: site/index.html
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict --quiet

train: $(VENV)/.installed  ## BACKBONE=… DATASET=… RECIPE=… WEIGHTS=… SEED=… EPOCHS=3 …, as fer train --help has them
	$(BIN)/fer train $(call options,BACKBONE RECIPE DATASET WEIGHTS SEED)

finetune: $(VENV)/.installed  ## RUN_ID=…, or BACKBONE=…
	$(BIN)/fer finetune $(call options,RUN_ID BACKBONE)

evaluate: $(VENV)/.installed  ## RUN_ID=…, BACKBONE=… or MODEL=…; by itself: the champion
	$(BIN)/fer evaluate $(call options,RUN_ID BACKBONE MODEL DATASET)

compare: $(VENV)/.installed  ## all evaluated models on the same data
	$(BIN)/fer compare $(call options,DATASET)

register: $(VENV)/.installed  ## the best one becomes a version, and champion if it earns it
	$(BIN)/fer register $(call options,DATASET)

bench: $(VENV)/.installed-dev  ## the notebook's way against ours, about 100 minutes on 2 cores
	$(BIN)/python -m benchmarks

bench-quick: $(VENV)/.installed-dev  ## ResNet50's rows in small, about 6 minutes
	$(BIN)/python -m benchmarks --quick

faults: $(VENV)/.installed-dev  ## kills, outages, full disks: what survives, over an hour on 2 cores; ARGS=--quick
	$(BIN)/python -m tests.faults $(ARGS)

mutants: $(VENV)/.installed-dev  ## careless changes: how many the tests notice; goes on where it stopped
	$(BIN)/python -m benchmarks.mutants $(ARGS)

ui: $(VENV)/.installed  ## MLflow's pages, for this machine only, and links to them; PORT=5001
	$(BIN)/fer ui --host $(HOST) --port $(PORT)

clean:  ## removes the environment and caches; keeps mlflow.db and mlruns
	rm -rf $(VENV) build *.egg-info .coverage* .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
