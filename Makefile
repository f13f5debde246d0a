# `make` alone lists the verbs. The virtual environment is made on first use.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check serve protos bench bench-engine bench-export bench-gpu images-check clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(READY): pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys, venv, ensurepip; assert sys.version_info[:2] >= (3, 11)' \
	  || { echo 'Fovea needs Python 3.11 or newer with venv (Debian: apt-get install python3-venv)'; exit 1; }
	@echo 'installing into $(VENV): about 2 minutes and 2 GB'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --progress-bar off -qq -r requirements.txt
	@$(BIN)/pip install -qq --no-deps --no-build-isolation -e .
	@touch $(READY)

install: $(READY)  ## make .venv with the `fovea` command

demo: $(READY)  ## the main job: train LeNet-5, export it, serve it, classify 450 digits over gRPC
	$(BIN)/python demo.py

test: check  ## all checks and tests (about 8 minutes cold, on two cores)
	$(BIN)/python -m pytest -q -m "not slow" -n auto --maxprocesses 4 --dist loadfile

test-all: test  ## also what is slow: the demo, NVIDIA's perf_analyzer, a real Prometheus, 20 drains, large networks
	$(BIN)/python -m pytest -q -m slow

check: $(READY)  ## the static part: format, lint, types, import contracts, generated code
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m protos.generate --check

serve: $(READY)  ## serve ./models on 127.0.0.1:8001
	$(BIN)/fovea serve --repository models

protos: $(READY)  ## regenerate the protobuf modules
	$(BIN)/python -m protos.generate

bench: bench-engine bench-export  ## both benchmarks

bench-engine: $(READY)  ## measure the server beside its limits (17 minutes; ARGS=--quick for one)
	$(BIN)/python -m tests.bench.engine $(ARGS)

bench-export: $(READY)  ## measure exported graphs beside PyTorch, the TorchScript exporter, and int8
	$(BIN)/python -m tests.bench.exported

bench-gpu:  ## limits and service on CUDA; needs only onnxruntime-gpu, onnx, torch, grpcio, numpy in PYTHON
	$(PYTHON) -m tests.bench.bench_gpu

images-check: $(READY)  ## build the images without Docker, serve from them (root, Debian; DEVICES="cpu cuda" for both)
	$(BIN)/python -m deploy.docker.check --devices $(or $(DEVICES),cpu)

clean:  ## remove everything that the other verbs made
	rm -rf $(VENV) build models .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
