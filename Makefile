# Every target makes and fills .venv by itself; PYTHON=python3.12 picks another interpreter.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

CLIP   := demo/clip.mp4
PLOT   := demo/timeline.png
MODEL  := tests/fixtures/parity/published-tiny

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format bench conformance clean

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# setuptools first, so that the build too uses the pinned one.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@echo "Filling $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) setuptools
	@$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

demo: $(STAMP) ## ask a tiny model about a short clip and draw the clip's timeline
	@echo "The weights of $(MODEL) are tiny and random: the answer is noise, the timeline is real."
	$(BIN)/omnivinci ask $(CLIP) "What is shown, and what is heard?" --model $(MODEL) --max-new-tokens 24
	$(BIN)/omnivinci timeline $(CLIP) --model $(MODEL) --plot $(PLOT)
	@echo "The picture of the timeline is in $(PLOT)."

test: lint ## check style and formatting, then run the tests on all cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8

lint: $(STAMP) ## check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(STAMP) ## repair style and formatting
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(STAMP) ## measure preprocessing, encoding, merging, loading, and guessing
	$(BIN)/python -m benchmarks.preprocess
	$(BIN)/python -m benchmarks.encode
	$(BIN)/python -m benchmarks.merge
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.baselines

conformance: $(STAMP) ## run the common tests of transformers on OmniVinci
	$(BIN)/python conformance/run.py

clean: ## remove what the other targets wrote, but for .venv
	rm -rf build dist src/*.egg-info $(PLOT) .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
