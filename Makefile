# Every target makes the Python environment first (from python3 3.11 or newer, nothing else), and says what it does.
#
#   make demo      start everything, make a tenant, ask its agent a question     CLUSTER=local|kind|current
#   make up        start the cluster and install Pilothouse; safe to repeat      make down stops it, its data stays
#   make status    what runs and what does not
#   make tui       the terminal UI                                               make chat talks to an agent
#   make test      unit, contract, integration, snapshot and e2e tests           make lint checks style, types and layers
#   make generate  CRDs, protobuf code, reference, charts/install.yaml           make verify fails when they are out of date
#   make bench     BENCH=cluster|…: measures, prints JSON lines, updates hack/bench/RESULTS.md

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
CLUSTER ?= local
BENCH ?= cluster
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.synced
export UV_LINK_MODE := copy

.PHONY: help demo up down status tui chat test lint generate verify bench prefetch python

help:
	@sed -n '3,/^$$/s/^# \{0,1\}//p' Makefile

demo up: prefetch $(STAMP)
	@$(BIN)/pilothouse $@ --cluster $(CLUSTER)

down status: $(STAMP)
	@$(BIN)/pilothouse $@ --cluster $(CLUSTER)

tui chat: $(STAMP)
	@$(BIN)/pilothouse $@

# Folders that hold no tests yet are left out: pytest ends with an error when it finds none.
SLOW_TESTS := $(patsubst %/,%,$(sort $(foreach kind,integration snapshot e2e,$(if $(shell find tests/$(kind) -name 'test_*.py' 2>/dev/null),tests/$(kind)))))

test: prefetch $(STAMP)
	$(BIN)/python -m pytest -n auto tests/unit tests/contract
	$(if $(SLOW_TESTS),$(BIN)/python -m pytest $(SLOW_TESTS))

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint

generate: $(STAMP)
	hack/generators/proto.sh
	$(BIN)/python hack/generators/crds.py
	$(BIN)/python hack/generators/reference.py
	hack/generators/chart.sh

verify: $(STAMP)
	hack/tools/verify.sh

bench: $(STAMP)
	@$(BIN)/python hack/bench $(BENCH)

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "What happened:  $(PYTHON) is $$($(PYTHON) --version 2>&1 || true); Pilothouse needs Python 3.11 or newer" >&2; \
	  echo "Not done:       the Python environment was not made" >&2; \
	  echo "What to do now: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }

# Kubernetes' programs take longest where they have to be built: on a machine without an environment both begin at once.
# `pilothouse up` waits for this build and shows how far it is.
prefetch: python
	@if [ "$(CLUSTER)" = local ] && [ ! -e $(STAMP) ]; then \
	  echo "Looking for the Kubernetes programs in the background, beside the Python environment"; \
	  mkdir -p $(VENV); \
	  PYTHONPATH=hack nohup $(PYTHON) -m pilothouse_local.binaries </dev/null >$(VENV)/kubernetes.log 2>&1 & \
	fi

$(STAMP): pyproject.toml uv.lock | python
	@echo "Making the Python environment in $(VENV) (uv $(UV_VERSION), versions from uv.lock)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "What happened:  $(PYTHON) can't make a virtual environment" >&2; \
	  echo "Not done:       the Python environment was not made" >&2; \
	  echo "What to do now: install Python's venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	@test -x $(BIN)/uv || { $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); }
	@$(BIN)/uv sync --frozen --inexact --quiet
	@touch $@
