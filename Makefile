# Each of these is enough on its own on a machine with Python 3.11 or newer, pip and make.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c requirements.lock
CODE := carcls sweeps tests $(wildcard benchmarks)

.PHONY: help run test test-slow test-gpu bench lint clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.installed ## Install, then sweep over the embedded demo cars (ARGS="…" adds options)
	$(BIN)/carsweep run transfer $(ARGS)

test: $(VENV)/.installed-test ## Install with the test extras, then run the suite
	$(BIN)/python -m pytest $(ARGS)

test-slow: $(VENV)/.installed-test ## Run the tests that take minutes or need real data
	$(BIN)/python -m pytest -m slow $(ARGS)

test-gpu: $(VENV)/.installed-test ## Run the tests of what trials do on a GPU, where there is one
	$(BIN)/python -m pytest tests/gpu $(ARGS)

bench: $(VENV)/.installed ## Measure the short set of benchmarks against a hand-written sweep (ARGS="--full …")
	$(BIN)/python benchmarks/run.py $(ARGS)

lint: $(VENV)/.installed-test ## Check style and types
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

clean: ## Remove the virtual environment and what the tools cache
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

# The stamps say that this virtual environment has what the two files ask for; the code itself is linked, not copied.
$(VENV)/.installed: pyproject.toml requirements.lock | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml requirements.lock | $(BIN)/python
	$(PIP) -e '.[test]'
	@touch $(VENV)/.installed $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "carsweep needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
