# Every target makes the virtual environment and installs what it needs when missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Constraints hold for the isolated build environment too, of which newer pips ask by its own name.
export PIP_CONSTRAINT := $(CURDIR)/requirements.lock
export PIP_BUILD_CONSTRAINT := $(PIP_CONSTRAINT)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Every stage and many tests start Python anew: without kept bytecode each compiles our modules.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install run test test-fast check ui bench scale docs fuzz kills audit pictures paper-lstm paper-gpt2 budgets budgets-text leaderboard

help:  ## List the targets.
	@sed -n 's/^\([a-z0-9 -]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 24

install: $(STAMP)  ## Make .venv and install everything through requirements.lock.

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip  # that of Python 3.11 takes thrice as long
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	$(BIN)/python -W ignore -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib || true  # but for templates, which are no Python
	touch $@

run: $(STAMP)  ## Run the whole pipeline of params.yaml and say where to look.
	$(BIN)/gdc run

# Four, on two cores too: many tests wait for a server, a program or the clock.
test: $(STAMP)  ## Run all tests, the slow ones included.
	$(BIN)/python -m pytest -n 4 --dist worksteal

test-fast: $(STAMP)  ## Run the tests that take no seconds: no pipeline, hardly a program started.
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

check: $(STAMP)  ## Lint, format, types, import contracts, spelling.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy --explicit-package-bases benchmarks
	$(BIN)/lint-imports
	$(BIN)/codespell

paper-lstm paper-gpt2 budgets leaderboard: $(STAMP)  ## Run an experiment in work/ and print its tables.
	$(BIN)/python benchmarks/experiment.py $@

budgets-text: $(STAMP)  ## Compare all kinds of plans on two corpora of real text; writes docs/results/budgets.md.
	$(BIN)/python benchmarks/budgets.py

bench: $(STAMP)  ## Time everything and write its tables to docs/results.
	$(BIN)/python benchmarks/bench.py

scale: $(STAMP)  ## Estimate a run over a trillion tokens and write its tables to docs/results.
	$(BIN)/python benchmarks/scale.py --write

fuzz: $(STAMP)  ## Give every reader thousands of wrong inputs; write the table to docs/results.
	$(BIN)/python benchmarks/fuzz.py --write

kills: $(STAMP)  ## Kill small runs of the pipeline 300 times; write the table to docs/results.
	$(BIN)/python benchmarks/kills.py --write

audit: $(STAMP)  ## Look for known holes in the locked versions (needs the network).
	@mkdir -p work
	@$(PYTHON) -m venv work/pip-audit
	@PIP_CONSTRAINT= PIP_BUILD_CONSTRAINT= work/pip-audit/bin/pip install --quiet 'pip-audit>=2.9' 2>work/pip-audit.log \
	  || { $(AUDIT_FAILED); exit 75; }
	@work/pip-audit/bin/pip-audit --strict --requirement requirements.lock --no-deps \
	  --disable-pip 2>work/pip-audit.log; code=$$?; \
	  if grep -q -e '^Traceback' -e 'could not be audited' work/pip-audit.log; then \
	  $(AUDIT_FAILED); exit 75; fi; \
	  cat work/pip-audit.log >&2; exit $$code

# What pip says where the network is away is a page of tries, what pip-audit says a traceback.
AUDIT_FAILED = echo "error: make audit: expected pip's index and pypi.org to answer, got:" \
  "$$(tail -n 1 work/pip-audit.log) The lock was not audited. Run it where there is a network;" \
  "all of it is in work/pip-audit.log." >&2

docs: $(STAMP)  ## Build the site of docs/ in work/site, with no dead link.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "the site      $(abspath work/site)/index.html"

pictures: $(STAMP)  ## Draw the pictures of README and docs from the finished run in this folder.
	$(BIN)/python benchmarks/pictures.py .
	$(BIN)/python benchmarks/screens.py .

ui: $(STAMP)  ## Open the report and the MLflow pages.
	$(BIN)/gdc ui
