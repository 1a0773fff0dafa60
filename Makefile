# make demo: from nothing to a trained captioner and a report.
# make test: every check. make test-fast: the tests that take no process of their own, in a minute or two.
# VENV=path uses an existing environment (the package is installed into it).
VENV ?= .venv
PYTHON ?= python3
OUTPUT ?= output/demo
ifeq ($(OS),Windows_NT)
  BIN := $(VENV)/Scripts
else
  BIN := $(VENV)/bin
endif

.PHONY: install demo test test-fast test-lowest wheel fuzz lint clean

install: $(VENV)/.lavis_lite_installed

$(VENV)/.lavis_lite_installed: pyproject.toml
	test -e $(BIN) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: install
	PATH="$(abspath $(BIN)):$$PATH" bash run_scripts/demo.sh "$(OUTPUT)"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy lavis_lite

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope

test-fast: install
	$(BIN)/python -m pytest -m "not slow" -q --numprocesses 2 --dist loadscope

# The fast tests with the lowest version of every dependency that pyproject.toml allows.
test-lowest:
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest --resolution lowest-direct --editable ".[dev]"
	.venv-lowest/bin/python -m pytest -m "not slow" -q

# Build the wheel, install it alone into a new environment, and look for everything that must be in it.
wheel:
	rm -rf build dist
	$(PYTHON) -m venv --clear build/venv
	build/venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	build/venv/bin/python -m pip install --quiet --no-deps dist/*.whl
	build/venv/bin/python -I tests/check_wheel.py

# Ten thousand damaged inputs; `make test` reads a few hundred of them.
fuzz: install
	LAVIS_LITE_FUZZ=full $(BIN)/python -m pytest tests/fuzz --numprocesses 2 -q

clean:
	rm -rf $(OUTPUT) build dist .mypy_cache .pytest_cache .ruff_cache
