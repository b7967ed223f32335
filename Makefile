# Development commands. `make help` lists every target that has a comment with ##.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PACKAGES := shm workers pipeline
# Folders with a C module, in build order: each comes after the folders whose declarations it includes.
COMPILED := $(PACKAGES) pipeline/bench
MODULES := $(foreach folder,$(COMPILED),$(folder)/_$(notdir $(folder)).abi3.so)
C_FILES = $(shell find $(PACKAGES) tests deploy -name types -prune -o -name '*.[ch]' -print)
HEADERS := $(shell find $(PACKAGES) -name '*.h')
# Another file with the hints to the caches and without them (shm/cache.h): all is compiled again.
HINTS := $(VENV)/.hints-$(if $(filter 1,$(RINGLINE_NO_HINTS)),off,on)
ARGS ?=
CARD ?=
IOMMU ?=
export CMD ?=
REV ?=

# Tests find the command `ringline` here, and the tools that tools/debian-packages unpacked.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help:  ## list the targets (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: $(MODULES)  ## run ringline with a simulated card and synthetic traffic; Ctrl-C ends it (ARGS="edge.toml --for 10")
	@$(BIN)/ringline run $(ARGS)

.PHONY: test
test: tools-for-tests $(MODULES)  ## run all tests: about 35 minutes (ARGS="-k ring -x")
	$(BIN)/python -m pytest $(ARGS)

.PHONY: check
check: venv $(MODULES)  ## check style and types, and run the fast tests: less than a minute
	@$(MAKE) --jobs=2 --output-sync=target lint types fast-first fast-others

# The fast tests in two halves, one for each core.
FIRST_HALF := $(addprefix tests/pipeline/,ports driver bench commands supervisor)
.PHONY: fast-first fast-others
fast-first:
	@$(MAKE) fast ARGS="$(FIRST_HALF)"
fast-others:
	@$(MAKE) fast ARGS="$(addprefix --ignore=,$(FIRST_HALF))"

.PHONY: fast
fast: venv $(MODULES)  ## run the fast tests (ARGS=tests/shm)
	RINGLINE_FAST=1 $(BIN)/python -m pytest -q -m 'not slow and not alone' $(ARGS)

.PHONY: lint
lint: venv  ## check the style of the Python and C files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if command -v clang-format >/dev/null; then \
	  echo clang-format --dry-run -Werror; clang-format --dry-run -Werror $(C_FILES); \
	else echo "skipped: the format of the C files, because clang-format is missing" >&2; \
	  [ "$${RINGLINE_FORBID_SKIPS:-}" != 1 ]; fi

.PHONY: format
format: venv  ## format the Python and C files
	$(BIN)/ruff format .
	clang-format -i $(C_FILES)

.PHONY: types
types: venv  ## check the types with mypy in strict mode
	$(BIN)/mypy
	$(BIN)/mypy tools
	$(BIN)/mypy tests/types/public_surface.py

.PHONY: venv
venv: $(VENV)/.stamp-all  ## make the virtual environment .venv, with an editable install of ringline and all that tests need

# Both are made again when the dependencies change. To run ringline needs few packages, so that the
# first `make run` does not wait for those of the tests.
# RINGLINE_MODULE is empty, because `build` compiles the C.
define install
	@tools/debian-packages run
	@[ -x $(BIN)/python ] || { python=$$(tools/find-python) && echo "Making $(VENV) with $$python" && "$$python" -m venv $(VENV); }
	@echo "Installing what $(2) into $(VENV)"
	@RINGLINE_MODULE= $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(1)]' 'setuptools>=77'
	@touch $(VENV)/.stamp $@
endef
RUNS := compiled,top,captures
TESTED := $(RUNS),urls,parquet,dask,ray,dev
$(VENV)/.stamp: pyproject.toml setup.py
	$(call install,$(RUNS),ringline needs)
$(VENV)/.stamp-all: pyproject.toml setup.py
	$(call install,$(TESTED),ringline and its tests need)

.PHONY: build
build: export RINGLINE_WERROR := 1
build: $(MODULES)  ## compile the C in place; a warning is an error

# One module at a time: if one does not compile, `make -k build` still builds the others. The lock
# keeps two builds in one checkout apart.
define module
$(1)/_$(notdir $(1)).abi3.so: shm/_build.py pipeline/_build.py $(1)/_build.py $$(HEADERS) $$(HINTS) $$(call sources,$(1)) | $(VENV)/.stamp
	@echo "Compiling $$@"
	@RINGLINE_MODULE=$(1) flock $(VENV)/.build-lock \
	  $(BIN)/python -W ignore setup.py --quiet build_ext --inplace --force
	@touch $$@
	@$(BIN)/python -c 'import ringline.$(subst /,.,$(1))._$(notdir $(1))'
endef
sources = $(shell find $(1) -path $(1)/bench -prune -o -name '*.c' -print)
$(foreach folder,$(COMPILED),$(eval $(call module,$(folder))))
pipeline/bench/_bench.abi3.so: | pipeline/_pipeline.abi3.so

$(HINTS): | $(VENV)/.stamp
	@rm -f $(VENV)/.hints-*
	@touch $@

.PHONY: tools-for-tests
tools-for-tests: venv
	@tools/debian-packages test

.PHONY: guest
guest: tools-for-tests $(MODULES)  ## run a command in a guest with Debian's kernel (CARD="virtio-net-mapped e1000e" IOMMU=1 CMD='ringline devices')
	@[ -n "$$CMD" ] || { echo "make guest: say which command, as in CMD='ringline interfaces'" >&2; exit 2; }
	@$(BIN)/python -m tests.guest $(foreach card,$(CARD),--card $(card)) $(if $(filter 1,$(IOMMU)),--iommu) $(ARGS) -- "$$CMD"

.PHONY: coverage
coverage: venv $(MODULES)  ## run all tests and show the lines that no test reached
	$(BIN)/coverage run -m pytest -q $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

.PHONY: size
size: venv  ## check the packet path in C, ports and drivers of cards against their limits of lines
	@$(BIN)/python tools/size.py

.PHONY: mutants
mutants: venv $(MODULES)  ## put faults into the packet path, one by one: does a test fail? (ARGS="--count 5 --file shm/ring.h")
	@$(BIN)/python tools/mutants.py $(ARGS)

.PHONY: proof
proof: tools-for-proof $(MODULES)  ## run all tests with full counts, and skip no card: more than an hour, as root
	@echo "Real captures: $${RINGLINE_CAPTURES:-none; name a folder of your own with RINGLINE_CAPTURES}"
	RINGLINE_PROOF=1 RINGLINE_FORBID_SKIPS=1 $(BIN)/python -m pytest --timeout=3600 $(ARGS)

# What cannot be had ends `make proof` here, not an hour later.
.PHONY: tools-for-proof
tools-for-proof: tools-for-served
	@$(BIN)/python -m tests.guest --prepare --newer-kernel

.PHONY: tools-for-served
tools-for-served: tools-for-tests
	@tools/debian-packages proof
	@$(BIN)/python -m tests.guest --prepare-qemu

.PHONY: bench
bench: $(MODULES)  ## measure speed, and the machine's limits beside it (ARGS="handoff --json")
	@$(BIN)/ringline bench $(ARGS)

.PHONY: bench-compare
bench-compare: revision-given $(MODULES)  ## measure this checkout in turn with another revision (REV=v0.1 ARGS="--runs 5")
	@old=$$(tools/build-revision "$(REV)") && $(BIN)/ringline bench compare "$$old" $(ARGS)

.PHONY: revision-given
revision-given:
	@[ -n "$(REV)" ] || { echo "make bench-compare: say which revision, as in REV=v0.1" >&2; exit 2; }

.PHONY: dist
dist: venv  ## build the source archive and the wheel into dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

.PHONY: clean
clean:  ## remove everything that was built, and the virtual environment
	rm -rf $(VENV) .bench-cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* $(MODULES)
	find $(PACKAGES) tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
