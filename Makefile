# Each target sets up what it needs: a virtual environment in .venv with the versions that passed (constraints.txt).
# PYTHON=/path/to/python chooses the interpreter; otherwise the first of these that runs and is 3.11 to 3.13.
.DEFAULT_GOAL := help
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)

# The version that the tests passed with; on a machine without a GPU an index of CPU builds saves gigabytes.
TORCH := torch==2.13.0

# A process a core; a file's tests stay together, which share their fixtures; files are begun in tests/conftest.py's order.
WORKERS := -n auto --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-slow test-torch lint bench reference wheel release-check clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY)  ## train the digits classifier, its bottleneck, and write runs/digits/report.md
	$(RUN) -m bottlefit_jax.main --config=configs/digits.py --workdir=runs/digits

test: $(READY)  ## everything but the long tail
	$(RUN) -m pytest $(WORKERS) -m "not slow and not torch"

test-slow: $(READY)  ## the long tail alone
	$(RUN) -m pytest $(WORKERS) -m "slow and not torch"

test-torch: $(READY)  ## what needs PyTorch, which this installs
	$(RUN) -m pip install -q -c constraints.txt -e '.[convert]' $(TORCH)
	$(RUN) -m pytest -m torch

lint: $(READY)  ## ruff and pyright
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

bench: $(READY)  ## side-by-side measurements; needs PyTorch and torchvision
	$(RUN) -m pip install -q -c constraints.txt -e '.[bench]'
	$(RUN) -m benchmarks.input
	$(RUN) -m benchmarks.convolution
	$(RUN) -m benchmarks.train_step
	$(RUN) -m benchmarks.head
	$(RUN) -m benchmarks.tail

reference: $(READY)  ## write the pages of docs/reference/ that are generated from the code
	$(RUN) -m tools.reference

wheel: $(READY)  ## a wheel in dist/, for machines without a clone: pip install 'dist/FILE.whl[edge]'
	rm -rf build dist
	$(RUN) -m pip wheel -q --no-deps -w dist .
	@ls dist/*.whl

release-check: $(READY)  ## sdist and wheel of the last commit in dist/, and the wheel used outside the checkout
	.ci/release_check $(RUN)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.13 found; name one with make PYTHON=/path/to/python"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q --upgrade pip
	$(RUN) -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

clean:  ## remove the virtual environment and all runs
	rm -rf $(VENV) runs
