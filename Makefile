# `make help` lists the targets. Each sets up .venv first if it is not there yet.
PYTHON ?= python3
VENV := .venv
# As many tests at a time, each in one thread.
WORKERS ?= 2
PARALLEL := --numprocesses $(WORKERS) --dist worksteal
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help iris bench fuzz test test-oldest docs lint format clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

$(STAMP): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

iris: $(STAMP)  ## fit iris, compare with other classifiers, write a table and a picture
	$(BIN)/python benchmarks/iris.py

test: $(STAMP)  ## run the test suite; WORKERS=2 tests at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL)

test-oldest:  ## run the test suite with the oldest versions of setup.cfg, in .venv-oldest
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --constraint tests/oldest.txt --editable '.[test,bench]'
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest $(PARALLEL)

docs: $(STAMP)  ## build the documentation in docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going --quiet docs docs/_build/html

bench: $(STAMP)  ## measure time to equal accuracy beside the peers (hours); DATA=folder of local data
	$(BIN)/python -m benchmarks run $(if $(DATA),--data-dir $(DATA))
	$(BIN)/python -m benchmarks report
	$(BIN)/python -m benchmarks descent
	$(BIN)/python -m benchmarks l1 $(if $(DATA),--data-dir $(DATA))
	$(BIN)/python -m benchmarks sweep $(if $(DATA),--data-dir $(DATA))
	$(BIN)/python -m benchmarks predict $(if $(DATA),--data-dir $(DATA))
	$(BIN)/python -m benchmarks probe
	$(BIN)/python -m benchmarks dask

fuzz: $(STAMP)  ## 10,000 hostile problems beside scikit-learn (hours)
	$(BIN)/python -m tests.fuzz

lint: $(STAMP)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv and caches
	rm -rf $(VENV) .venv-oldest .pytest_cache .ruff_cache build *.egg-info docs/_build docs/api docs/gallery docs/sg_execution_times.rst
