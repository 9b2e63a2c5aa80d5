# make demo: the main job on the embedded data; make demo-zh MODEL=<a Chinese model>: in Chinese.  make check test: what CI runs.  VENV= names another environment.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: demo demo-zh install test test-slow soak mutants bench check docs clean

demo: $(VENV)/.installed
	@VENV=$(VENV) sh examples/demo.sh

demo-zh:
	@test -n "$(MODEL)" || { echo "error: MODEL: is not given; type make demo-zh MODEL=<folder of a Chinese model, or a name such as e5_small>" >&2; exit 2; }
	@$(MAKE) --no-print-directory $(VENV)/.installed
	@VENV=$(VENV) sh examples/demo.sh zh "$(MODEL)"

install: $(VENV)/.installed-dev

# two processes of one thread each: tiny models gain nothing from a second thread
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs -n 2 --dist loadfile --durations=20

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -rs -m slow

# three quarters of an hour: kills, damage and hostile input at their full counts, as one table
soak: $(VENV)/.installed-dev
	@PYTHONPATH=$(CURDIR) $(BIN)/python tests/soak.py

# half an hour: small wrong changes to the code, each of which some test must find
mutants: $(VENV)/.installed-dev
	@PYTHONPATH=$(CURDIR) $(BIN)/python tests/mutants.py

# three quarters of an hour on two idle cores; writes bench/results
bench: $(VENV)/.installed-dev
	@$(BIN)/python -m bench.all

check: $(VENV)/.installed-dev docs
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_house.py

# the site of docs/, into build/docs; `mkdocs serve` shows it while you write
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/docs

$(VENV)/.installed: pyproject.toml constraints.txt
	@VENV=$(VENV) PYTHON=$(PYTHON) sh .ci/install minilm,onnx,xlsx,serve
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	@VENV=$(VENV) PYTHON=$(PYTHON) sh .ci/install dev
	@touch $@ $(VENV)/.installed

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
