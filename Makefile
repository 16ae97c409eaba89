# make env | test | test-fast | lint | demo | openapi | clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLAH := .venv-olah
export OMP_NUM_THREADS ?= 1

.PHONY: env test test-fast lint demo openapi clean

env: $(VENV)/.installed

# An interrupted install leaves no stamp, so the next run starts over.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# olah wants older companions than ours, so the independent hub of the tests lives apart.
$(OLAH)/.installed: constraints-olah.txt
	$(PYTHON) -m venv $(OLAH)
	$(OLAH)/bin/pip install -q --disable-pip-version-check -r constraints-olah.txt
	touch $@

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint $(OLAH)/.installed
	$(BIN)/pytest --durations=15

test-fast: env
	$(BIN)/pytest -m "not e2e and not slow" -n 2

demo: env
	$(BIN)/python examples/demo.py

openapi: env
	$(BIN)/python -m service.openapi

clean:
	rm -rf $(VENV) $(OLAH) .mypy_cache .ruff_cache .pytest_cache .hypothesis
