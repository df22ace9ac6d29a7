# make demo   everything from raw logs to a served winner
# make test   lint, types, and every test that a change can break, in minutes
# make test-all  the same, with kills, soak-like and browser tests
# make docs   the documentation, in site/
# make soak   half an hour of overload, replacement, kills and endurance of a service
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Development data sets, where a checkout has them beside it; nothing else knows of that folder.
SHARED_DATA := $(wildcard ../shared/data)
ifneq ($(SHARED_DATA),)
export ITEMESE_DATA ?= $(abspath $(SHARED_DATA))
endif

# Two workers; the tests that share a local Ray cluster stay together on one of them.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup --durations=25

.PHONY: demo test test-failed test-slow test-all soak docs lint format clean

demo: $(STAMP)
	$(BIN)/python jobs/demo.py

test: $(STAMP) lint
	$(PYTEST) -m 'not slow and not browser'

# What failed in the last run, once more and on one worker.
test-failed: $(STAMP)
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures none

test-slow: $(STAMP)
	$(PYTEST) -m 'slow or browser'

test-all: test test-slow

soak: $(STAMP)
	$(BIN)/python jobs/soak.py

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[demo,dev,docs]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
