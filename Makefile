# Targets a person runs, and CI runs the same: make demo, test, coverage, test-oldest, lint, docs, bench.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo
OLDEST := build/oldest
OLDEST_PYTHON ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python) $(shell command -v python3.10) $(PYTHON))
OLDEST_PACKAGES := click matplotlib msgspec numpy psutil 'psycopg[binary]' rich scikit-learn scipy tensorboard viztracer
OLDEST_TESTS := $(addprefix tests/,records importers storage test_units.py \
  costmodel/test_regression.py costmodel/test_features.py costmodel/test_prediction.py costmodel/test_scatter.py \
  planning/test_planner.py planning/test_cadence.py)
PYTEST := python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

unexport PYTHONDONTWRITEBYTECODE  # or each of a few hundred processes compiles the package anew

.PHONY: ready demo test coverage test-oldest lint docs bench clean

ready: $(VENV)/.docs $(OLDEST)/.ready  # what test, lint, docs and test-oldest install

demo: $(VENV)/.demo
	mkdir -p $(DEMO)
	cd $(DEMO) && $(abspath $(BIN))/epochcast probe mnist-mlp --batch-sizes 32,64,128,256 --set width=256,1024
	cd $(DEMO) && $(abspath $(BIN))/epochcast predict --epochs 90 --batch-size 192 --set width=768
	@echo
	@echo "The measurements are in $(DEMO)/.epochcast. Look at them, and at the traces, with:"
	@echo "    cd $(DEMO) && $(abspath $(BIN))/epochcast tensorboard"

test: $(VENV)/.dev
	$(BIN)/$(PYTEST)

coverage: $(VENV)/.dev  # the same suite, half as long again; fails below the floor in pyproject.toml
	$(BIN)/$(PYTEST) --cov --cov-report=term:skip-covered

test-oldest: $(OLDEST)/.ready  # what needs no torch, on the oldest versions that pyproject.toml promises
	$(OLDEST)/bin/$(PYTEST) $(OLDEST_TESTS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --allow-untyped-calls examples docs/site.py  # Tensor.backward has no annotations

docs: $(VENV)/.docs  # into build/site, to be opened from the disk
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/public_a100.py
	$(BIN)/python benchmarks/public_llm.py
	$(BIN)/python benchmarks/public_memory.py
	$(BIN)/python benchmarks/epochs.py
	$(BIN)/python benchmarks/planning.py
	$(BIN)/python benchmarks/following.py

clean:
	rm -rf $(VENV) build

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install -q -c constraints.txt -e '.[tensorboard]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.demo

$(VENV)/.docs: $(VENV)/.dev
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,docs]'
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,bench]'
	touch $@

$(OLDEST)/.ready: constraints-oldest.txt
	$(OLDEST_PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install -q -c constraints-oldest.txt $(OLDEST_PACKAGES) hypothesis pytest pytest-xdist
	touch $@
