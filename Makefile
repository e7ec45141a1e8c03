# Everything a developer runs, with nothing but Python >= 3.11 and make.
#
#   make demo                      with python3
#   make demo BACKEND=cloudflare   on Workers KV on this machine; needs Node.js and npm
#   make demo BACKEND=convex       on Convex functions on this machine; needs the same
#   make test PYTHON=python3.13    with another interpreter; each has its own environment
#   make test WORKERS=8            in so many processes; else one more than cores, 4 at most
#   make test ONLY="not once"      what differs from Python to Python (pytest -m); see CONTRIBUTING.md

PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; v = sys.version_info; print("%d.%d" % v[:2] if v >= (3, 11) else "")' 2>/dev/null)
VENV ?= .venv-$(VERSION)
BACKEND ?= sqlite
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min((os.cpu_count() or 1) + 1, 4))')
ONLY ?=
ARGS ?=
DEMOS := sqlite cloudflare convex
BIN := $(VENV)/bin
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
MEASURED := $(addprefix plugins/,cloudflare convex langgraph)
BENCHMARKS := $(filter-out benchmarks/_%,$(sort $(wildcard benchmarks/*.py)))
PYTEST = $(abspath $(BIN))/python -m pytest --numprocesses $(WORKERS) --dist worksteal \
  $(if $(ONLY),-m '$(ONLY)')

export PIP_DISABLE_PIP_VERSION_CHECK = 1
# The tests start hundreds of Pythons, which would all compile the same modules.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo $(DEMOS:%=demo-%) kv-server convex-server test test-all bench torture lint clean

help: ## this list
	@echo "make TARGET [PYTHON=python3.13]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: demo-$(BACKEND) ## keep a conversation in SQLite (or BACKEND), read it back, look at it

demo-sqlite: $(VENV)/demo.stamp
	@$(BIN)/mastra-storage demo
	@printf '\n"make demo" does the same once more.\n'

demo-cloudflare: $(VENV)/demo-cloudflare.stamp
	@$(BIN)/python plugins/cloudflare/tests/kv_server.py \
	  sh -c '$(BIN)/mastra-storage demo --brief "cloudflare://$$CLOUDFLARE_ACCOUNT_ID"'
	@printf '\nThat was Workers KV on this machine; its data is gone. "make kv-server" keeps it running;\n'
	@printf 'docs/cloudflare.md says how to run the same on an account.\n'

demo-convex: $(VENV)/demo-convex.stamp
	@$(BIN)/python plugins/convex/tests/convex_server.py \
	  sh -c '$(BIN)/mastra-storage demo --brief "convex+$$CONVEX_URL"'
	@printf '\nThose were the Convex functions on this machine; their data is gone. "make convex-server"\n'
	@printf 'keeps them running; docs/convex.md says how to run the same in Convex itself.\n'

demo-%:
	@echo "There is no demo of $*; BACKEND is one of: $(DEMOS)" >&2; exit 2

kv-server: ## Workers KV on this machine until Ctrl-C; ARGS="--port 8789"
	@$(PYTHON) plugins/cloudflare/tests/kv_server.py $(ARGS)

convex-server: ## Convex on this machine until Ctrl-C; ARGS="--port 3211 --data dev.json"
	@$(PYTHON) plugins/convex/tests/convex_server.py $(ARGS)

test: $(VENV)/test.stamp ## run the tests of the core and of all plugins
	@$(PYTEST)
	@for plugin in $(PLUGINS); do \
	  echo "== $$plugin"; (cd $$plugin && $(PYTEST) tests) || exit 1; done

test-all: ## run the tests on every supported Python of this machine
	@for python in $$(.ci/pythons); do $(MAKE) --no-print-directory test PYTHON=$$python || exit 1; done

bench: $(VENV)-bench/bench.stamp ## measure, and write docs/benchmarks.md; needs Node.js and npm
	@for script in $(BENCHMARKS); do \
	  echo "== $$script"; $(VENV)-bench/bin/python $$script --write || exit 1; done

torture: $(VENV)/test.stamp ## faults and kills, and docs/reliability.md; needs Node.js and npm
	@cd benchmarks && $(abspath $(BIN))/python -m torture --write $(ARGS)
	@cd benchmarks && $(abspath $(BIN))/python -m torture --write --plant all $(ARGS)

lint: $(VENV)/lint.stamp ## check style, types and the documentation
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@for plugin in $(PLUGINS); do $(BIN)/mypy $$plugin || exit 1; done
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet && echo "Documentation built in site/"

clean: ## remove what this file made
	rm -rf .venv-3.* site dist build mastra-demo.db*

# -- environments: made once, refreshed when what they install changes --------------------------

$(VENV)/pyvenv.cfg $(VENV)-bench/pyvenv.cfg:
	@test -n "$(VERSION)" || { \
	  echo "$(PYTHON) is not Python 3.11 or newer: $$($(PYTHON) --version 2>&1 | head -n 1)"; \
	  echo "Name one that is, as in: make $(MAKECMDGOALS) PYTHON=python3.12"; \
	  echo "Found here:" $$(.ci/pythons); exit 1; } >&2
	@echo "Setting up $(@D) (once)"
	@$(PYTHON) -m venv $(@D)

$(VENV)/demo.stamp: pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "Installing what the demo needs into $(VENV)"
	@$(BIN)/python -m pip install -qq --editable '.[cli]'
	@touch $@

$(VENV)/demo-cloudflare.stamp: plugins/cloudflare/pyproject.toml $(VENV)/demo.stamp
	@echo "Installing the plugin, and then the server from npm"
	@$(BIN)/python -m pip install -qq --editable ./plugins/cloudflare
	@touch $@

$(VENV)/demo-convex.stamp: plugins/convex/pyproject.toml $(VENV)/demo.stamp
	@echo "Installing the plugin, and then the server from npm"
	@$(BIN)/python -m pip install -qq --editable ./plugins/convex
	@touch $@

# Dependency groups need a newer pip than some Pythons bring along.
$(VENV)/test.stamp: pyproject.toml $(PLUGINS:%=%/pyproject.toml) | $(VENV)/pyvenv.cfg
	@echo "Installing what the tests need into $(VENV)"
	@$(BIN)/python -m pip install -qq --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install -qq --editable '.[cli,testing]' --group test \
	  $(foreach plugin,$(PLUGINS),--editable ./$(plugin) --group $(plugin)/pyproject.toml:test)
	@touch $@ $(VENV)/demo.stamp

# Apart from the tests: what is compared brings along a hundred packages.
$(VENV)-bench/bench.stamp: pyproject.toml $(MEASURED:%=%/pyproject.toml) | $(VENV)-bench/pyvenv.cfg
	@echo "Installing what the benchmarks compare into $(@D)"
	@$(@D)/bin/python -m pip install -qq --upgrade 'pip>=25.1'
	@$(@D)/bin/python -m pip install -qq --editable . --group bench \
	  $(foreach plugin,$(MEASURED),--editable ./$(plugin))
	@touch $@

$(VENV)/lint.stamp: $(VENV)/test.stamp
	@echo "Installing the linters into $(VENV)"
	@$(BIN)/python -m pip install -qq --group lint
	@touch $@
