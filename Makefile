# What a developer types. `make` alone lists it. Everything lives in .venv; a second call finds its stamps and is quick.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
GEN := .venv-gen
TYPESCRIPT := clients/typescript
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test bench simulate verify lockstep conformance lint format generate clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.server typescript ## the virtual environment with Stepwell in it, and the packages of the TypeScript SDK

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Stepwell needs Python 3.11 or newer; try make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.server: $(VENV)/.made pyproject.toml
	@echo "installing Stepwell into $(VENV)"
	@$(PIP) install -e '.[server]'
	@touch $@

setup-dev: $(VENV)/.dev typescript ## … and what tests and checks need

# Without Node there is nothing to install: then it says what is left out, and the stamp stays away.
.PHONY: typescript
typescript:
	@if scripts/has_node; then $(MAKE) --no-print-directory $(TYPESCRIPT)/node_modules/.made; else test "$$CI" != true; fi

$(TYPESCRIPT)/node_modules/.made: $(TYPESCRIPT)/package-lock.json
	@scripts/has_node
	@echo "installing the packages of the TypeScript SDK"
	@cd $(TYPESCRIPT) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(VENV)/.dev: $(VENV)/.server
	@echo "installing the tools of the tests into $(VENV)"
	@$(PIP) install --group dev
	@command -v node >/dev/null || { echo "no node here: installing one for pyright"; $(PIP) install "$$(sed -n 's/.*"pyright\(==[0-9.]*\)".*/pyright[nodejs]\1/p' pyproject.toml)"; }
	@command -v go >/dev/null || test -x /usr/local/go/bin/go || echo "no Go here: the tests leave out what is written in it; to have them, install Go 1.24 or newer (Debian 13: apt-get install golang)"
	@touch $@

demo: $(VENV)/.server typescript ## the examples, with the server and the worker killed in the middle of the work
	@$(BIN)/python examples/demo.py $(ARGS)

test: $(VENV)/.dev $(GEN)/.made typescript ## every check and every suite; ARGS names some of them
	@$(BIN)/python scripts/test_all.py $(ARGS)

conformance: $(VENV)/.dev typescript ## every transcript and live scenario in Python, Go and TypeScript, as a table
	@$(BIN)/python scripts/conformance.py

lint: $(VENV)/.dev $(GEN)/.made typescript ## the checks alone
	@$(BIN)/python scripts/test_all.py --lint $(ARGS)

format: $(VENV)/.dev ## puts the code in shape
	@$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format -q .
	@! command -v gofmt >/dev/null || gofmt -w clients/go
	@! test -e $(TYPESCRIPT)/node_modules/.made || (cd $(TYPESCRIPT) && node_modules/.bin/prettier --write --log-level=warn .)

simulate: $(VENV)/.dev ## the whole engine on virtual time with faults; ARGS='--seeds 0..999 --cover' or '--seed 7 -v'
	@$(BIN)/python -m tests.simulation $(or $(ARGS),--seeds 0..399)

verify: $(VENV)/.dev ## random programs on real processes that are killed and frozen; ARGS='--seed 7 --programs 12 --store sqlite'
	@$(BIN)/python -m tests.verification $(or $(ARGS),--seeds 3)

lockstep: $(VENV)/.dev ## random commits against all stores at once; ARGS='--seeds 100'
	@$(BIN)/python -m tests.model.run $(or $(ARGS),--seeds 50)

bench: $(VENV)/.dev ## throughput and latency beside the baseline; ARGS are its options
	@$(BIN)/python -m bench $(ARGS)

generate: $(GEN)/.made $(TYPESCRIPT)/node_modules/.made ## the code of proto/ in Python, Go and TypeScript
	@scripts/generate $(GEN)/bin/python sdk_python
	@scripts/generate_go $(GEN)/bin/python clients/go
	@scripts/generate_typescript $(GEN)/bin/python $(TYPESCRIPT)/src/v1

# In an environment of its own: grpcio-tools pins an older protobuf than the one that Stepwell runs on.
$(GEN)/.made: scripts/generate
	@test -x $(GEN)/bin/python || $(PYTHON) -m venv $(GEN)
	@echo '*' > $(GEN)/.gitignore
	@$(GEN)/bin/python -m pip --disable-pip-version-check -q install grpcio-tools==1.76.0
	@touch $@

clean: ## removes what can be made again
	@rm -rf $(VENV) $(GEN) $(TYPESCRIPT)/node_modules $(TYPESCRIPT)/build $(TYPESCRIPT)/dist dist build .stepwell .pytest_cache .ruff_cache .import_linter_cache .hypothesis
