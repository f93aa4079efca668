# demo and test need no setup first: both make .venv when it is missing or older than what it is made from.
#
#   make demo    train, deliver to three device processes, serve, measure; the picture lies in demo-out/
#   make test    every test, and each distribution's wheel in an environment of its own
#   make check   format, lint, types, import contracts, what must not be in the tree
#   make help    all targets

PYTHON ?= python3
# One more than the cores of a small machine: a test often waits for the processes that it started.
WORKERS ?= 3
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
DOCS_STAMP := $(VENV)/.made-docs

# Every distribution of the workspace, and the extras that run on any machine.
OTHERS := $(patsubst %/,%,$(dir $(wildcard device_runtime/pyproject.toml providers/*/pyproject.toml examples/*/pyproject.toml)))
SOURCES := $(wildcard src device_runtime/src providers/*/src examples/*/src)
PROJECTS := pyproject.toml $(OTHERS:%=%/pyproject.toml)
comma := ,
EDITABLE := -e '.[analysis,archive,classical,cli,demo,images,litert,local,loop,onnx,openvino,optimize,rules,testing]' \
	$(foreach d,$(OTHERS),-e './$(d)$(if $(filter device_runtime,$(d)),[cpu$(comma)drift$(comma)gcs$(comma)greengrass$(comma)grpc$(comma)iotedge$(comma)kubernetes$(comma)mqtt$(comma)openvino$(comma)otlp$(comma)pull$(comma)rules],$(if $(filter providers/%,$(d)),[mock],))')
# setuptools for what of others has no wheel: paho-mqtt before 2, which azure-iot-device wants.
BUILD_TOOLS := 'pip>=25.1' hatchling editables 'setuptools>=70.1,<85'
PIP_QUIET := -m pip --quiet --disable-pip-version-check

.PHONY: help setup demo test collected tests alone check bench docs wheels constraints clean python-is-new-enough
.DEFAULT_GOAL := help

help:
	@echo "make setup        make .venv: every distribution, editable, with the extras that run here"
	@echo "make demo         the whole way of a model on this machine; writes demo-out/"
	@echo "make test         make tests, then make alone"
	@echo "make tests        every test"
	@echo "make collected    find every test, run none"
	@echo "make alone        try each distribution's wheel in an environment of its own"
	@echo "make check        format, lint, types, import contracts, tree"
	@echo "make bench        every benchmark, more than an hour; into benchmarks/out/"
	@echo "make docs         the documentation, into docs/_build/html"
	@echo "make wheels       build each distribution, try each in an environment of its own; into dist/"
	@echo "make constraints  renew the pins in constraints.txt"
	@echo "make clean        remove .venv and everything built"

setup: $(STAMP)

demo: $(STAMP)
	@$(BIN)/edgefleet demo --output demo-out

test: tests alone

# Tests start thousands of processes: each would compile what it loads where the environment forbids Python to keep that.
collected tests: export PYTHONDONTWRITEBYTECODE =
tests: $(STAMP)
	@$(BIN)/python -m compileall -q -j 0 $(SOURCES)
	@$(BIN)/python -m pytest -q -n $(WORKERS) $(PYTEST_ARGS)

# Finds every test and runs none. What Python makes of what they load stays: workers that begin at the same time on
# a fresh checkout would each make all of it.
collected: $(STAMP)
	@found=$$($(BIN)/python -m pytest --collect-only -qq) || { echo "$$found" >&2; exit 1; }
	@echo "tests: collected"

alone: $(STAMP)
	@$(BIN)/python tests/wheels/smoke.py

wheels: $(STAMP)
	@$(BIN)/python tests/wheels/smoke.py --keep dist

check: $(STAMP)
	@$(BIN)/ruff format --check --quiet . || { echo "error: run $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@found=$$($(BIN)/lint-imports --no-logo --config pyproject.toml) || { echo "$$found" >&2; exit 1; }
	@$(BIN)/python tests/house/check_tree.py
	@echo "format, lint, types, import contracts, tree: ok"

bench: $(STAMP)
	@$(BIN)/python benchmarks/run.py

docs: $(DOCS_STAMP)
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# The stamp holds the place that the environment was made for: one of a moved checkout, or of a Python that is gone, or
# half made, is made anew. One that is only older than the pins is brought up to date.
ifneq ($(shell { cat $(STAMP) && $(BIN)/python -c '' || echo stale; } 2>/dev/null),$(CURDIR))
$(shell rm -f $(STAMP) $(DOCS_STAMP))
endif

$(STAMP): $(PROJECTS) constraints.txt | python-is-new-enough
	@echo "making $(VENV): the first time takes a minute or more, most of it downloads"
	@test -e $@ || $(PYTHON) -m venv --clear $(VENV) || { \
		echo "error: $(PYTHON) can't make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python $(PIP_QUIET) install -c constraints.txt $(BUILD_TOOLS)
	@# --no-compile: most of it is never loaded, and what is, Python compiles then.
	@$(BIN)/python $(PIP_QUIET) install --no-compile -c constraints.txt --no-build-isolation $(EDITABLE) --group dev
	@echo "$(CURDIR)" > $@

$(DOCS_STAMP): $(STAMP)
	@$(BIN)/python $(PIP_QUIET) install -c constraints.txt --group docs
	@touch $@

python-is-new-enough:
	@command -v $(PYTHON) >/dev/null || { \
		echo "error: no $(PYTHON) here; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
		"error: EdgeFleet needs Python 3.11 or newer and $(PYTHON) is " + sys.version.split()[0] + \
		"; install one and name it: make PYTHON=python3.12")'

# On the oldest Python we support, so that every pin exists for all of them.
constraints: | python-is-new-enough
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info[:2] == (3, 11) else \
		"error: renew the pins on Python 3.11, the oldest that EdgeFleet supports: make constraints PYTHON=python3.11")'
	@$(PYTHON) -m venv --clear $(VENV)-constraints
	@$(VENV)-constraints/bin/python $(PIP_QUIET) install --upgrade $(BUILD_TOOLS)
	@$(VENV)-constraints/bin/python $(PIP_QUIET) install --no-build-isolation $(EDITABLE) --group dev --group docs
	@{ sed -n '/^#/p' constraints.txt; \
		$(VENV)-constraints/bin/python $(PIP_QUIET) freeze --all --exclude-editable --exclude setuptools; \
	} > $(VENV)-constraints/constraints.txt
	@cp $(VENV)-constraints/constraints.txt constraints.txt
	@rm -rf $(VENV)-constraints
	@git --no-pager diff --stat -- constraints.txt

clean:
	@rm -rf $(VENV) $(VENV)-constraints benchmarks/out demo-out dist docs/_build \
		.hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
