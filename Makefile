# Two commands: `make demo` works through the whole path, `make test` runs every check.
# Each makes .venv with the pinned versions of constraints.txt if it is not there yet.

PYTHON ?= python3.11
BIN := .venv/bin
overwrite ?= false

.PHONY: demo test clean

.venv/base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/dev: .venv/base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: .venv/base
	$(BIN)/npga demo overwrite=$(overwrite)

test: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest

clean:
	rm -rf .venv runs
