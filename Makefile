# make demo — set everything up, run the whole chain on a rendered dataset, say where to look.
# make test — set everything up, run linters, types and tests.
# `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A CPU build of torch is taken where pip is told of one (PIP_FIND_LINKS); uv must be told as well.
FIND_LINKS := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)")
UV := $(BIN)/uv pip

export DAGSTER_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1
# Waiting threads that spin cost tenfold on a busy machine.
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow faults lint format audit lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## make the environment in .venv from requirements.lock

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(UV) install --quiet --python $(BIN)/python --compile-bytecode $(FIND_LINKS) -r requirements.lock
	$(UV) install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

demo: install ## render a dataset, run the chain through Dagster, register a model
	$(BIN)/tevad demo

lint: install ## linter, formatter, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# As many processes as cores: a second thread in each would only wait for the others'.
test: export OMP_NUM_THREADS := 1
test: lint ## everything that must hold, in about a quarter of an hour
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-slow: install ## the long tests
	$(BIN)/python -m pytest -m slow

faults: install ## kill `tevad run` fifty times at moments of every phase; nothing may be lost
	$(BIN)/python -m pytest -m slow tests/faults/test_kills.py

format: install ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

audit: install ## look the pinned packages up in a database of advisories (AUDIT=--strict)
	$(BIN)/python .ci/audit.py $(AUDIT)

# torch is locked without its local part and without CUDA's packages: which build it is, and with it
# what it needs, is chosen where it is installed. Where a step fails, the lock file stays as it was.
lock: ## choose versions anew from pyproject.toml
	sed '/^torch==/d' requirements.lock > $(VENV)/requirements.lock
	$(UV) compile --quiet --python-version 3.11 --group dev --extra postgres \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(FIND_LINKS) \
		pyproject.toml --output-file $(VENV)/requirements.lock
	sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' $(VENV)/requirements.lock
	mv $(VENV)/requirements.lock requirements.lock

clean: ## remove the environment (never data)
	rm -rf $(VENV)
