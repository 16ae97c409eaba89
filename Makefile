# make env | browser | test | test-fast | lint | audit | sbom | fuzz | demo | openapi | plots | figures | clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLAH := .venv-olah
AUDIT := .venv-audit
FUZZ ?= archive header config data
FUZZ_SECONDS ?= 60
export OMP_NUM_THREADS ?= 1
# Images often forbid bytecode to be kept: the tests start hundreds of interpreters, which then compile it anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: env browser test test-fast lint audit sbom fuzz demo openapi plots figures clean

env: $(VENV)/.installed

# An interrupted install leaves no stamp, so the next run starts over.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): some minutes, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(VENV)/.demo $@

# What the demo runs, and no tool of ours: two thirds of the bytes.
$(VENV)/.demo: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): some minutes, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[demo]'
	touch $@

# olah wants older companions than ours, so the independent hub of the tests lives apart.
$(OLAH)/.installed: constraints-olah.txt
	$(PYTHON) -m venv $(OLAH)
	$(OLAH)/bin/pip install -q --disable-pip-version-check -r constraints-olah.txt
	touch $@

# Audit and bill of materials are made by tools of their own environment, which neither then lists.
$(AUDIT)/.installed: constraints-audit.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install -q --disable-pip-version-check -r constraints-audit.txt
	touch $@

# A Chromium for the tests of the web page: the system's package, or else Playwright's own. Tests are skipped
# where neither can be had, so failing here is no error.
browser: env
	@command -v chromium chromium-browser google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || $(BIN)/python -m playwright install chromium \
	  || echo "No Chromium could be installed; tests/web will be skipped."

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint $(OLAH)/.installed
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=15

# Even collecting the tests of conformance, which are end to end, takes seconds.
test-fast: env
	$(BIN)/pytest -m "not e2e and not slow" -n 2 -p no:schemathesis --ignore tests/service/test_conformance.py

audit: env $(AUDIT)/.installed
	$(BIN)/python -m scripts.audit $(AUDIT)/bin/pip-audit

sbom: env $(AUDIT)/.installed
	$(AUDIT)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible \
		-o sbom.cdx.json

# Coverage-guided, one reader after the other; what it learnt stays in .fuzz, with any input that broke out.
fuzz: env
	$(BIN)/pip install -q --disable-pip-version-check -e '.[fuzz]'
	@for target in $(FUZZ); do mkdir -p .fuzz && \
		$(BIN)/python -m tests.fuzz $$target .fuzz/$$target -max_total_time=$(FUZZ_SECONDS) \
			-artifact_prefix=.fuzz/$$target- || exit 1; done

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

openapi: env
	$(BIN)/python -m service.openapi

# The plotting library that every report carries; committed, so that nobody else needs what it is made with.
plots: env
	$(BIN)/python -m scripts.plotting_library

figures: env
	$(BIN)/python -m tests.web.figures

clean:
	rm -rf $(VENV) $(OLAH) $(AUDIT) .fuzz sbom.cdx.json .mypy_cache .ruff_cache .pytest_cache .hypothesis
