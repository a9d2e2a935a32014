PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test lint docs clean

## Compare three methods on scikit-learn's digits, with three seeds each.
demo: $(VENV)/.lab
	$(BIN)/maxsup compare digits-convnet --methods cross-entropy label-smoothing max-sup --seeds 0 1 2 --out runs/demo

## Every check: style, types, import contract, documentation, doctests and tests.
test: lint docs
	$(BIN)/pytest --numprocesses 2 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

## The documentation as pages, in build/docs; a warning is an error.
docs: $(VENV)/.dev
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs build/docs
	@echo "written: build/docs/index.html"

clean:
	rm -rf $(VENV) build dist runs/demo .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "maxsup needs Python 3.11 or newer; set PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.lab: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[lab]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[dev]'
	touch $(VENV)/.lab $@
