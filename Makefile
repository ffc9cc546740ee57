# Two commands on a machine with Python >= 3.11 and make: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/quickstart

.PHONY: install quickstart test test-long lint format clean

install: $(VENV)/installed

# The stamp is remade when what is installed changes; `-c` pins every package, its own needs too.
$(VENV)/installed: pyproject.toml constraints.txt hatch_build.py
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ". Say which with PYTHON=...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

quickstart: install
	$(BIN)/harness run quickstart -o $(RUN)

# Two files of tests at a time: many wait for processes that they start, kill and look for. In the order of their folders, so that
# chaos, whose files have one long test each, comes early; xdist would leave files of few tests for last.
test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# By hand: storms of lost workers and nodes, drivers killed at ten moments, simulations of intervals with many repetitions.
test-long: install
	CHAOS_MOMENTS=10 SIMULATIONS=1000 $(BIN)/python -m pytest -m 'long or not long' tests/chaos tests/analysis/test_statistics.py tests/runs/test_exact_profile.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell README.md CHANGELOG.md docs harness jobs cluster datasets

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
