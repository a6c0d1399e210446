# Everything runs in .venv, which the first target that needs it creates. `make` alone lists the targets.
SHELL := /bin/bash
BIN := .venv/bin
STAMP := .venv/.installed
export OMP_NUM_THREADS ?= 1
# which tests `make test-all` runs; those on a GPU are for `make gpu`
MARKS ?= not gpu and not smoke and not crash
# compiled modules are kept, which every process of the tests would compile again
unexport PYTHONDONTWRITEBYTECODE
# the package with Python.h, which compiled steps include, where this Python came without
HEADERS = $$($(BIN)/python -c 'import os, sys, sysconfig; \
	found = os.path.exists(sysconfig.get_path("include") + "/Python.h"); \
	print("" if found else "python%d.%d-dev" % sys.version_info[:2])')

.PHONY: help install demo check test test-all smoke crash soak fuzz atheris mutants gpu lint types docs format wheel \
	bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

install: $(STAMP)  ## create .venv and install the package with its development tools

$(STAMP): pyproject.toml constraints.txt scripts/create_venv.sh
	scripts/create_venv.sh .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## sweep DR3's coefficient on the data set in the package and write a report
	$(BIN)/dr3-ray demo

check: lint types  ## check what changed: lint, types, and the tests nearest to it
	$(BIN)/python scripts/check.py $(PYTEST_ARGS)

test: $(STAMP)  ## run the fast tests in three processes; PYTEST_ARGS="-k name" selects some
	scripts/debian_packages.sh g++:g++ $(HEADERS)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(PYTEST_ARGS)

test-all: $(STAMP)  ## run the slow tests as well: clusters, ended processes, a browser, learning, whole tables of options
	scripts/debian_packages.sh chromium:chromium openssh-server rsync iproute2 postgresql g++:g++ $(HEADERS)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 -m "$(MARKS)" $(PYTEST_ARGS)

smoke: $(STAMP)  ## run the benchmarks and studies at their smallest
	scripts/debian_packages.sh g++:g++ $(HEADERS)
	$(BIN)/python -m pytest -n 2 -m smoke tests/benchmarks tests/runs tests/studies $(PYTEST_ARGS)

crash: $(STAMP)  ## end sweeps in 200 sequences of kills, signals, full disks, power cuts and damaged files
	scripts/debian_packages.sh gcc:gcc
	$(BIN)/python -m pytest -n 2 -m crash tests/crash $(PYTEST_ARGS)

soak: $(STAMP)  ## the same in 5,000 other sequences, for a night; CRASHES=1000 for fewer
	scripts/debian_packages.sh gcc:gcc
	DR3_RAY_CRASHES=$${CRASHES:-5000} $(BIN)/python -m pytest -n 2 -m crash tests/crash $(PYTEST_ARGS)

fuzz: $(STAMP)  ## read thousands of damaged files, an hour on two cores; FUZZ=100 for fewer of each kind
	DR3_RAY_FUZZ=$${FUZZ:-1500} $(BIN)/python -m pytest -n 2 tests/fuzz $(PYTEST_ARGS)

atheris: $(STAMP)  ## let libFuzzer look for damaged data sets that do harm; SECONDS_EACH=60 to stop sooner
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python scripts/fuzz_data.py $${SECONDS_EACH:-1800}

mutants: $(STAMP)  ## change the code in 25 places of each room, one at a time; MUTANTS=60 ROOMS="stats index" for others
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[mutation]'
	$(BIN)/python scripts/mutate.py $${MUTANTS:-25} $(ROOMS)

gpu: $(STAMP)  ## run the tests that need a GPU, on a machine that has one and a torch for it
	$(BIN)/python -m pytest -m gpu tests/gpu $(PYTEST_ARGS)

lint: $(STAMP)  ## ruff: rules and formatting; import-linter: the layers; docstrings; the pages that scripts make
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_prose.py
	$(BIN)/python scripts/draw_rooms.py --check
	$(BIN)/python scripts/list_quantities.py --check
	$(BIN)/python scripts/list_options.py --check
	$(BIN)/python scripts/draw_concepts.py --check

types: $(STAMP)  ## mypy: strict on what does not import ray
	$(BIN)/mypy

docs: $(STAMP)  ## build the site of the documents into build/site; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

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
