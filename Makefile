# `make help` lists the targets. Everything is installed into .venv by the first target that needs it.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests wait more than they work: three processes share the files, each with engines of its own.
SIDE_BY_SIDE := --numprocesses 3 --dist loadfile
PACKAGES := chassis devstack ops catalog_svc customer_svc email_svc inventory_svc notification_svc order_svc payment_svc search_svc

.DEFAULT_GOAL := help
.PHONY: help install demo up down test test-all bench lint typing proto proto-check image lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(STAMP) ## Make the virtual environment and install what the lock file pins

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Polymart needs Python 3.11 or newer; name one with: make PYTHON=python3.12 …" or 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r <(awk '/^uv==/{on=1} on{print} on && !/\\$$/{exit}' requirements.lock)
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## The whole path once: real products and invoices through every service
	@$(BIN)/polymart demo

up: $(STAMP) ## Start the stack and leave it running until Ctrl-C
	@$(BIN)/polymart up

down: $(STAMP) ## Stop a stack that runs elsewhere
	@$(BIN)/polymart down

test: $(STAMP) ## Unit, contract, integration and end-to-end tests (under 10 minutes)
	@$(BIN)/python -m devstack.opensearch || [ "$$CI" != true ]
	@$(BIN)/pytest $(SIDE_BY_SIDE) -m "not slow" $(ARGS)

test-all: $(STAMP) ## Every test, the long ones too
	@$(BIN)/python -m devstack.opensearch || [ "$$CI" != true ]
	@$(BIN)/pytest $(SIDE_BY_SIDE) $(ARGS)

bench: $(STAMP) ## Measure an import and searches beside their baselines: make bench FILE=products.jsonl.gz
	@PYTHONPATH=.:gen $(BIN)/python bench/catalog_import.py $(or $(FILE),data/products.jsonl.gz)
	@PYTHONPATH=.:gen $(BIN)/python bench/search_overhead.py $(or $(FILE),data/products.jsonl.gz)

lint: $(STAMP) ## ruff, import layers, dependencies, protos, Dockerfile
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/deptry .
	@$(BIN)/python proto/generate.py --lint
	@$(BIN)/hadolint Dockerfile

typing: $(STAMP) ## mypy in strict mode
	@$(BIN)/mypy

proto: $(STAMP) ## Regenerate gen/ and docs/events.md from proto/
	@$(BIN)/python proto/generate.py
	@$(BIN)/python proto/events_page.py

proto-check: $(STAMP) ## Fail when gen/ differs from what proto/ generates, or a change breaks the wire
	@$(BIN)/python proto/generate.py --check
	@$(BIN)/python proto/events_page.py --check

image: ## Build the image of all services, tagged by the version, with Docker
	@docker build --tag polymart:$$(awk -F '"' '/^version = /{print $$2; exit}' pyproject.toml) .

lock: $(STAMP) ## Pin the dependencies anew (hashes, no addresses)
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
		--prerelease=if-necessary-or-explicit --extra stack --extra opensearch --extra dev pyproject.toml requirements.in -o requirements.lock

clean: ## Remove the environment, the build folder and the development stack's data
	rm -rf $(VENV) build .polymart
