# Development commands. `make run` and `make test` do all of their own set-up.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	  "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	  && command -v "$$name" && break; done)
HEADERS := $(shell find shm workers pipeline -name '*.h')

.PHONY: help
help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(VENV)/.stamp  ## make the virtual environment .venv with ringline installed from here

# Made again when the dependencies change; the C is made by `build`.
$(VENV)/.stamp: pyproject.toml setup.py
	@[ -n "$(PYTHON)" ] || { echo "make: no Python 3.11 to 3.13 found; install one or set PYTHON=/path/to/python3" >&2; exit 3; }
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[compiled,top,dev]'
	touch $@

# One module at a time, so that one which does not compile does not hold back the others
# (`make -k build`). The lock is for two builds at once in one checkout.
.PHONY: build
build: $(foreach module,shm workers pipeline,$(module)/_$(module).abi3.so)  ## compile the C in place

define module
$(1)/_$(1).abi3.so: shm/_build.py $(1)/_build.py $$(HEADERS) $$(shell find $(1) -name '*.c') | venv
	RINGLINE_WERROR=1 RINGLINE_MODULE=$(1) flock $(VENV)/.build-lock \
	  $(BIN)/python setup.py --quiet build_ext --inplace --force
	touch $$@
endef
$(foreach name,shm workers pipeline,$(eval $(call module,$(name))))
