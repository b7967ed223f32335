# Development commands. `make run` and `make test` do all of their own set-up.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PACKAGES := shm workers pipeline
# Folders with a C module; each after those whose declarations it includes.
COMPILED := $(PACKAGES) pipeline/bench
MODULES := $(foreach folder,$(COMPILED),$(folder)/_$(notdir $(folder)).abi3.so)
C_FILES = $(shell find $(PACKAGES) tests deploy -name types -prune -o -name '*.[ch]' -print)
HEADERS := $(shell find $(PACKAGES) -name '*.h')
ARGS ?=

# Tests find the command `ringline`, and tools that were unpacked for them, here.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help:  ## list these commands (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: $(MODULES)  ## forward synthetic traffic through a simulated card; Ctrl-C ends it (ARGS="edge.toml --for 10")
	@$(BIN)/ringline run $(ARGS)

.PHONY: test
test: tools-for-tests $(MODULES)  ## run all tests (ARGS="-k ring -x")
	$(BIN)/python -m pytest $(ARGS)

.PHONY: check
check: lint types fast  ## lint, types and the fast tests: less than a minute

.PHONY: fast
fast: $(MODULES)
	RINGLINE_FAST=1 $(BIN)/python -m pytest -q -m 'not slow' $(ARGS)

.PHONY: lint
lint: venv  ## check the style of Python and C
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if command -v clang-format >/dev/null; then \
	  echo clang-format --dry-run -Werror; clang-format --dry-run -Werror $(C_FILES); \
	else echo "skipped: the format of the C files, for want of clang-format" >&2; \
	  [ "$${RINGLINE_FORBID_SKIPS:-}" != 1 ]; fi

.PHONY: format
format: venv  ## bring Python and C into their format
	$(BIN)/ruff format .
	clang-format -i $(C_FILES)

.PHONY: types
types: venv  ## check the types (mypy, strict)
	$(BIN)/mypy
	$(BIN)/mypy tools

.PHONY: venv
venv: $(VENV)/.stamp  ## make the virtual environment .venv, with ringline installed from here

# Made again when the dependencies change. The C is left to `build`, hence no module here.
$(VENV)/.stamp: pyproject.toml setup.py
	@tools/debian-packages run
	@[ -x $(BIN)/python ] || { python=$$(tools/find-python) && echo "Making $(VENV) with $$python" && "$$python" -m venv $(VENV); }
	@echo "Installing what ringline needs into $(VENV)"
	@RINGLINE_MODULE= $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[compiled,top,dev]'
	@touch $@

.PHONY: build
build: export RINGLINE_WERROR := 1
build: $(MODULES)  ## compile the C in place; any warning is an error

# One module at a time, so that one which does not compile does not hold back the others
# (`make -k build`). The lock is for two builds at once in one checkout.
define module
$(1)/_$(notdir $(1)).abi3.so: shm/_build.py pipeline/_build.py $(1)/_build.py $$(HEADERS) $$(call sources,$(1)) | venv
	@echo "Compiling $$@"
	@RINGLINE_MODULE=$(1) flock $(VENV)/.build-lock \
	  $(BIN)/python -W ignore setup.py --quiet build_ext --inplace --force
	@touch $$@
	@$(BIN)/python -c 'import ringline.$(subst /,.,$(1))._$(notdir $(1))'
endef
sources = $(shell find $(1) -path $(1)/bench -prune -o -name '*.c' -print)
$(foreach folder,$(COMPILED),$(eval $(call module,$(folder))))
pipeline/bench/_bench.abi3.so: | pipeline/_pipeline.abi3.so

.PHONY: tools-for-tests
tools-for-tests: venv
	@tools/debian-packages test

.PHONY: coverage
coverage: $(MODULES)  ## run all tests and show which lines none of them reached
	$(BIN)/coverage run -m pytest -q $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

.PHONY: size
size: venv  ## count the lines of the packet path and of ixgbe against their limits
	@$(BIN)/python tools/size.py

.PHONY: proof
proof: tools-for-tests $(MODULES)  ## run the tests with full counts: long
	RINGLINE_PROOF=1 $(BIN)/python -m pytest --timeout=3600 $(ARGS)

.PHONY: bench
bench: $(MODULES)  ## measure speed, each figure beside the machine's limit (ARGS="handoff --json")
	@$(BIN)/ringline bench $(ARGS)

.PHONY: dist
dist: venv  ## build the source archive and the wheel into dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

.PHONY: clean
clean:  ## remove everything that was built, the virtual environment too
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* $(MODULES)
	find $(PACKAGES) tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
