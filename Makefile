# make demo: from nothing to a trained captioner and a report. make test: every check.
# VENV=path uses an environment that is already there (the package itself is installed into it).
VENV ?= .venv
PYTHON ?= python3
OUTPUT ?= output/demo
BIN := $(VENV)/bin

.PHONY: install demo test fuzz lint clean

install: $(VENV)/.lavis_lite_installed

$(VENV)/.lavis_lite_installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: install
	PATH="$(abspath $(BIN)):$$PATH" bash run_scripts/demo.sh "$(OUTPUT)"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope

# Ten thousand damaged inputs; `make test` reads a few hundred of them.
fuzz: install
	LAVIS_LITE_FUZZ=full $(BIN)/python -m pytest tests/fuzz --numprocesses 2 -q

clean:
	rm -rf $(OUTPUT) .pytest_cache .ruff_cache
