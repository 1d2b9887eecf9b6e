# The two that matter: `make demo` and `make test`. Each prepares what it needs, once.
#
# PYTHON=... names the interpreter; COPYCAT_BUILD=skip asks for no compiled core.

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/ready
SOURCES := pyproject.toml setup.py $(wildcard copycat/_core/*.pyx copycat/_core/*.pxd copycat/_core/*.h)
PYTEST := $(BIN)/python -m pytest -q --no-header -p no:cacheprovider
CORE_TESTS := tests/core tests/raft tests/server tests/client

export COPYCAT_BUILD ?= auto
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH PYTHONHOME

.SILENT:
.DELETE_ON_ERROR:
.PHONY: demo test test-whole test-pure bench lint wheels clean
.NOTPARALLEL:

# Three server processes, clients at work, the leader killed; proves that nothing was lost.
demo: $(STAMP)
	$(BIN)/copycat demo

# The whole suite as built, and beside it the core once more in the pure mode.
test: $(STAMP)
	printf '%s\n' whole pure | xargs -P 2 -I '{}' $(MAKE) --no-print-directory 'test-{}'

test-whole: $(STAMP)
	expect=$$($(say_expected)); \
	echo "make: the whole suite, $$expect"; \
	COPYCAT_PURE= COPYCAT_EXPECT=$$expect $(PYTEST) tests

test-pure: $(STAMP)
	said=$$(COPYCAT_PURE=1 COPYCAT_EXPECT=pure $(PYTEST) $(CORE_TESTS) 2>&1) \
	|| { echo "$$said"; exit 1; }; \
	echo "make: the core again, pure: $$(echo "$$said" | tail -n 1)"

# Kernels, then a cluster of three processes; needs two quiet cores and some minutes.
bench: $(STAMP)
	$(BIN)/python -m benchmarks.kernels
	$(BIN)/python -m benchmarks.cluster --both

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

# A wheel for the interpreter of the environment, built and checked, in wheels/dist.
wheels: $(STAMP)
	$(BIN)/python wheels/build.py

clean:
	rm -rf $(VENV) build dist wheels/dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	rm -rf .benchmarks .hypothesis copycat/_core/*.so
	find copycat tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): $(SOURCES)
	$(find_python); \
	echo "make: an environment in $(VENV), with $$($$python -V)"; \
	$$python -m venv --clear $(VENV)
	echo "make: installing what Copycat needs, compiling its core (about half a minute)"
	rm -f copycat/_core/*.so
	$(BIN)/python -m pip install -qq -e '.[dev,standard]' --config-settings editable_mode=compat
	COPYCAT_PURE= $(BIN)/python -c "import copycat; print('make: ready,', \
	    'compiled' if copycat.COMPILED else 'PURE PYTHON: no compiled core, everything is slower')"
	touch $@

# The first interpreter that really runs, is new enough and can make environments.
# (A name on the PATH proves nothing: it may be a shim that only says "command not found".)
define find_python
python= hint='no Python >= 3.11 runs here; name one: make PYTHON=/path/to/python3'; \
for each in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
    "$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
    if "$$each" -c 'import ensurepip, venv' >/dev/null 2>&1; then python=$$each; break; fi; \
    hint="$$each cannot make environments; on Debian: apt install python3-venv"; \
done; \
test -n "$$python" || { echo "make: $$hint" >&2; exit 1; }
endef

# Whether a core must have been compiled: not by looking at what was built, but at the compiler.
define say_expected
cc=$${CC:-$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_config_var('CC') or 'cc')")}; \
headers=$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('include'))"); \
if test "$$COPYCAT_BUILD" != skip && echo '#include <Python.h>' \
    | $$cc -I"$$headers" -fsyntax-only -x c - >/dev/null 2>&1; \
then echo compiled; else echo pure; fi
endef
