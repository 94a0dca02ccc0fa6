# make demo, make test: each does all it needs, from a fresh clone. Needs make and Python >= 3.11.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
CONSTRAINTS := -c constraints.txt
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS)

.PHONY: demo test test-latest slow axe bench lint format clean

demo: $(VENV)/.installed
	$(BIN)/vitaepp demo --out demo

# One thread a worker: tests are many and small.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal -m "not slow"

# With the newest releases of all dependencies, in an environment of its own; no part of CI.
test-latest:
	rm -rf .venv-latest
	@$(MAKE) --no-print-directory test VENV=.venv-latest CONSTRAINTS=

slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow

# The report by the rules of axe, in Chromium; needs both Chromium and npm.
axe: $(VENV)/.installed-dev
	npm install --no-save --silent --prefix build/axe axe-core@4
	VITAEPP_AXE=build/axe/node_modules/axe-core/axe.min.js $(BIN)/pytest tests/reporting/test_axe.py

# Minutes; what stands in the README is from a machine on which nothing else ran.
bench: $(VENV)/.installed-dev
	$(PIP) -e ".[bench]"
	$(BIN)/python benchmarks/bench.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.installed: EXTRAS := report,xlsx
$(VENV)/.installed-dev: EXTRAS := dev
$(VENV)/.installed $(VENV)/.installed-dev: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found; name one with make PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf $(VENV) .venv-latest demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
