# `make` alone lists the targets. Everything runs in .venv, which `make setup` makes and every other target brings up to date.
SHELL := /bin/bash
BIN := .venv/bin
ARGS ?=
# Small matrices, few cores: threads of the linear algebra cost more than they give, and disturb measurements.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

FIGURES := fidelity truth spread device-time overhead ingest ingest-scale reads build predict regressor optimise supernet search-evidence meter-energy meter-lag forecast fuzz meters meter-load
BENCHES := $(addprefix bench-,$(FIGURES))

.DEFAULT_GOAL := help
.PHONY: help setup demo hanna test soak lint protos bench bench-long clean $(BENCHES)

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS=$$'\t' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done
	@echo "  make bench-NAME   One figure alone (ARGS=--long: in full): $(FIGURES)"

setup: ## .venv with everything in it, torch as a CPU build; quick when it is already there
	@scripts/setup

demo: setup ## Profile this machine with an emulated meter into demo/ (at most 3 minutes)
	@$(BIN)/python scripts/demo.py

hanna: setup ## HANNA from two emulated Pi 3B to a measured, reported network, into hanna/
	@scripts/hanna_path.sh hanna

test: setup ## All tests, a file per core at a time (ARGS="-k name -x" goes to pytest)
	$(BIN)/python -m pytest -n logical --dist loadfile $(ARGS)

soak: setup ## The tests that take minutes and need root, Debian's mirror and systemd-nspawn
	$(BIN)/python -m pytest -m soak $(ARGS)

lint: setup ## ruff, mypy (strict) and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_imports.py

protos: setup ## Regenerate the modules of protos/*.proto
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m grpc_tools.protoc -I. --python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. protos/*.proto

bench: setup ## The figures of the README, those that take under ten minutes
	$(BIN)/python -m benchmarks

bench-long: setup ## The figures that take longer
	$(BIN)/python -m benchmarks --long

$(BENCHES): bench-%: setup
	$(BIN)/python -m benchmarks $* $(ARGS)

clean: ## Remove what was made here: .venv, demo/, caches, generated figures
	rm -rf .venv demo hanna build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache benchmarks/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
