# Everything runs in .venv, which the first target that needs it creates. `make` alone lists the targets.
SHELL := /bin/bash
BIN := .venv/bin
STAMP := .venv/.installed
export OMP_NUM_THREADS ?= 1
# the package with Python.h, which compiled steps include, where this Python came without
HEADERS = $$($(BIN)/python -c 'import os, sys, sysconfig; \
	found = os.path.exists(sysconfig.get_path("include") + "/Python.h"); \
	print("" if found else "python%d.%d-dev" % sys.version_info[:2])')

.PHONY: help install demo test smoke gpu lint types format wheel bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

install: $(STAMP)  ## create .venv and install the package with its development tools

$(STAMP): pyproject.toml constraints.txt scripts/create_venv.sh
	scripts/create_venv.sh .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## sweep DR3's coefficient on the data set in the package and write a report
	$(BIN)/dr3-ray demo

test: $(STAMP)  ## run the tests in three processes; PYTEST_ARGS="-k name" selects some
	scripts/debian_packages.sh chromium:chromium openssh-server rsync iproute2 postgresql g++:g++ $(HEADERS)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

smoke: $(STAMP)  ## run the benchmarks and studies at their smallest
	scripts/debian_packages.sh g++:g++ $(HEADERS)
	$(BIN)/python -m pytest -n 2 -m smoke $(PYTEST_ARGS)

gpu: $(STAMP)  ## run the tests that need a GPU, on a machine that has one and a torch for it
	$(BIN)/python -m pytest -m gpu tests/gpu $(PYTEST_ARGS)

lint: $(STAMP)  ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy: strict on what does not import ray
	$(BIN)/mypy

format: $(STAMP)  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(STAMP)  ## build the wheel into dist/
	rm -rf build dist
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

bench: $(STAMP)  ## run every benchmark in turn
	set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

clean:  ## remove what was built, installed and cached
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
