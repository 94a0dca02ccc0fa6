# make demo, make test: each does all it needs, from a fresh clone. Needs make and Python >= 3.11.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
CONSTRAINTS := -c constraints.txt
BIN := $(VENV)/bin
# Python compiles a module when it is first imported, and keeps that. Most modules of these packages never
# are; to compile all of them takes pip a minute and a half.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(CONSTRAINTS)
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-latest slow axe package-test docs bench lint format clean

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

# sdist and wheel, built, installed and used without the source tree; downloads nothing.
package-test: $(VENV)/.installed-dev
	$(BIN)/python packaging/check.py

# Minutes; what stands in the README is from a machine on which nothing else ran.
bench: $(VENV)/.installed-dev
	$(PIP) -e ".[bench]"
	$(BIN)/python benchmarks/bench.py

# The site, in site/: pictures, tutorials that are run, then the pages, where a link that leads nowhere
# ends the build. What has not changed is not made again.
docs: $(VENV)/.installed-docs
	$(BIN)/python docs/make/gallery.py build/docs/gallery
	$(BIN)/python docs/make/tutorials.py docs/tutorials build/docs/tutorials
	$(BIN)/python docs/make/pages.py build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

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

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) -e ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) .venv-latest demo build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
