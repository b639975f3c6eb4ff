# The two commands of the README: `make demo` and `make test`. They need Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed

.PHONY: demo test parity pictures check format notebook

# A crawl of the bundled demo site on two workers of this machine.
demo: $(INSTALLED)
	$(BIN)/vscrapy demo

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(DEVELOPED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

# All checks, then all tests; one that fails is run again, and its first failure is shown (R).
test: check
	$(BIN)/python -m pytest -n 2 --reruns 2 -m "not soak and not matrix and not load"

# Every feature of Scrapy on 1, 2 and 4 workers, as in plain Scrapy; writes docs/parity.md.
parity: $(DEVELOPED)
	$(BIN)/python -m tests.parity

# The pictures of the README's section on debugging, of a real JupyterLab; needs a Chromium.
pictures: $(DEVELOPED)
	$(BIN)/python -m tests.pictures

check: $(DEVELOPED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEVELOPED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The notebooks in a browser.
notebook: $(DEVELOPED)
	cd notebooks && ../$(BIN)/jupyter lab
