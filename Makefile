# The two commands of the README are `make demo` and `make test`. Everything runs in .venv, made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MODELS := $(VENV)/.models

.PHONY: demo test check bench docs format clean help

help:
	@echo "make demo   program a frozen ImageNet classifier to read digits; writes demo/index.html"
	@echo "make test   all tests"
	@echo "make check  format, lint, types, layers, generated docs"
	@echo "make bench  the figures of the README, as ratios; writes benchmarks/results/*.json"
	@echo "make docs   regenerate the tables in docs/ from the code"

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

# Weights that pip cannot install as a dependency; kept in the user's cache folder, so this is done once a machine.
$(MODELS): $(STAMP)
	$(BIN)/reprogram sources --install smollm2-135m --quiet
	touch $(MODELS)

demo: $(MODELS)
	$(BIN)/reprogram demo --out demo

test: $(MODELS)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal
	$(BIN)/python -m pytest -q -n 2 -o addopts="" -m compile tests

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(MODELS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/python -m benchmarks

docs: $(STAMP)
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) demo .pytest_cache .ruff_cache
