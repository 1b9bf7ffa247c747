# Targets a person runs, and CI runs the same: make demo, make test, make lint, make bench.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo

.PHONY: demo test lint bench clean

demo: $(VENV)/.demo
	mkdir -p $(DEMO)
	cd $(DEMO) && $(abspath $(BIN))/epochcast probe mnist-mlp --batch-sizes 32,64,128,256 --set width=256,1024
	cd $(DEMO) && $(abspath $(BIN))/epochcast predict --epochs 90 --batch-size 192 --set width=768
	@echo
	@echo "The measurements are in $(DEMO)/.epochcast. Look at them, and at the traces, with:"
	@echo "    cd $(DEMO) && $(abspath $(BIN))/epochcast tensorboard"

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/public_a100.py
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

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,bench]'
	touch $@
