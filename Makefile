# `make demo` and `make test` set up what they need; a second `make setup` does nothing.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := $(if $(GPU),requirements-gpu.txt,requirements.txt)
STAMP := $(VENV)/.installed-$(REQUIREMENTS)
VIDEOS ?=
DEMO ?= demo
STUDY ?= study
HOURS ?= 1
TABLES ?= tables
IMAGENET ?=
NAME ?= real
FOLDS ?= 0
SCALE ?= tables/real.gin
TARGETS ?= //tests/fitness:test_zipf //tests:test_cli //tests:test_build //tests/data:splits/test_plain_lists \
  //tests/bin:test_configuration

.PHONY: help setup demo study tables real test soak lint lock bazel clean

help:
	@echo "make setup              virtual environment in .venv (PYTHON=... to name a Python 3.11,"
	@echo "                        GPU=1 for TensorFlow with CUDA)"
	@echo "make demo               the whole way on videos it makes; VIDEOS=/folder for your own,"
	@echo "                        DEMO=/folder for the output"
	@echo "make study              strategies compared, and Figure 9, at a mini scale; HOURS=1 it may"
	@echo "                        take, STUDY=/folder for what it makes, results in docs/results/study"
	@echo "make tables             every method of the paper's tables at a mini scale; TABLES=/folder for"
	@echo "                        what it makes, IMAGENET=weights.h5 for that row, results in"
	@echo "                        docs/results/mini"
	@echo "make real VIDEOS=/folder   the same on real clips with labels.csv (path, label, group); NAME= of"
	@echo "                        the table in docs/results/real, FOLDS=0 for one for each group,"
	@echo "                        SCALE=tables/real_sound.gin with sound"
	@echo "make test               the tests"
	@echo "make soak               the long tests, by hand"
	@echo "make lint               ruff and mypy"
	@echo "make bazel              builds all with Bazel 4.2 and runs a few tests, without a network;"
	@echo "                        TARGETS=//tests/... for others"
	@echo "make lock               requirements.txt from requirements.in"
	@echo "make clean              removes the virtual environment, caches and the demo's output"

setup: $(STAMP)

$(STAMP): $(REQUIREMENTS)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "error: Python 3.11 is needed, which is the only one that TensorFlow 2.15 and its companions share; on Debian: apt-get install python3.11 python3.11-venv, or name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -m venv $(VENV) || { \
	  echo "error: $(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3.11-venv" >&2; rm -rf $(VENV); exit 2; }
	@echo "installing $(REQUIREMENTS) into $(VENV); this takes a few minutes the first time"
	$(BIN)/python -m pip install --disable-pip-version-check -q -r $(REQUIREMENTS)
	@touch $@

demo: setup
	$(BIN)/python -m tools.demo --output="$(DEMO)" $(if $(VIDEOS),--videos="$(VIDEOS)")

study: setup
	$(BIN)/python -m elo_tf.bin.study --run_dir="$(STUDY)" --hours=$(HOURS) --workers=2

tables: setup
	$(BIN)/python -m elo_tf.bin.tables --gin_file=tables/mini.gin --run_dir="$(TABLES)" --workers=2 \
	  $(if $(IMAGENET),--imagenet_weights="$(IMAGENET)")

real: setup
	@test -n "$(VIDEOS)" || { echo "error: name a folder of clips with labels.csv: make real VIDEOS=/folder" >&2; exit 2; }
	$(BIN)/python -m elo_tf.bin.tables --gin_file="$(SCALE)" --run_dir="$(TABLES)/$(NAME)" \
	  --videos="$(VIDEOS)" --folds=$(FOLDS) --results=docs/results/real --name="$(NAME)" --workers=2

test: setup
	$(BIN)/python -m pytest

soak: setup
	@mkdir -p docs/results/soak
	$(BIN)/python -m pytest -m soak -s -v --no-header 2>&1 | sed "s|$(CURDIR)/||g" | tee docs/results/soak/soak.txt

lint: setup
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

# Debian: apt-get install bazel-bootstrap. The long tests run when they are named: //tests/soak:...
bazel: setup
	@command -v bazel >/dev/null || { echo "error: there is no bazel; on Debian: apt-get install bazel-bootstrap" >&2; exit 2; }
	$(BIN)/python .ci/bazel_offline.py
	bazel build //...
	bazel test $(TARGETS)

# Needs uv (pip install uv). What is pinned already stays pinned.
lock:
	uv pip compile requirements.in --no-emit-index-url --no-emit-find-links --no-header \
	  --annotation-style=line --python-version 3.11 -o requirements.txt
	uv pip compile requirements-gpu.in --no-emit-index-url --no-emit-find-links --no-header \
	  --annotation-style=line --python-version 3.11 -o requirements-gpu.txt

clean:
	rm -rf $(VENV) demo .pytest_cache .ruff_cache .mypy_cache .bazel .bazelrc.offline build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
