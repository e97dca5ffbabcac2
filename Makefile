# Every target makes and fills .venv by itself; PYTHON=python3.12 picks another interpreter.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

CLIP   := demo/new.mp4
PLOT   := demo/timeline.png

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format bench conformance nano ablation clean

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# setuptools first, so that the build too uses the pinned one.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@echo "Filling $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) setuptools
	@$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

demo: $(STAMP) ## render a clip, ask the shipped model about it, and draw the clip's timeline
	$(BIN)/omnivinci demo $(CLIP)
	$(BIN)/omnivinci ask $(CLIP) "What happens?"
	$(BIN)/omnivinci timeline $(CLIP) --model $(SHIPPED) --plot $(PLOT)
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

# The shipped model: data, six stages of training, and the result. What is there is not made again.
NANO    := build/nano
SHIPPED := src/transformers_omnivinci/nano/checkpoint
WORLD   := $(BIN)/omnivinci synthesize --num-workers 2 --output
TYPES   := --type visual --type audio --type synchrony --type time
# From the first prerequisite, with the data among the others, to the target.
STAGE    = OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node 2 -m transformers_omnivinci.cli train --use-cpu True \
	--ddp-find-unused-parameters True --save-strategy no --share-media \
	--muon --learning-rate 2e-3 --weight-decay 0.01 --adam-beta2 0.98 \
	--model $(<D) --output $(@D) $(addprefix --data ,$(filter %.jsonl,$^))
CLIPS    = $(STAGE) --recipe full --per-device-train-batch-size 8 --num-train-epochs

nano: $(NANO)/6/model.safetensors ## train the shipped model on two cores and put it into the package
	$(BIN)/python -m transformers_omnivinci.nano.build ship $(NANO)/6
	$(BIN)/python -m benchmarks.curve $(addprefix $(NANO)/,1 2 3 4 5 6) docs/nano.png
	$(BIN)/omnivinci eval --suite synthetic

$(NANO)/worlds/%.json: | $(STAMP)
	@mkdir -p $(@D)
	echo '$(WORLD_$*)' > $@

WORLD_single := {"clip_seconds": [3, 4], "slot_seconds": [2.5, 4], "max_slots": 1}
WORLD_short  := {"clip_seconds": [4, 6], "max_slots": 2}
WORLD_middle := {"clip_seconds": [6, 8], "max_slots": 3}

$(NANO)/pictures/train-image.jsonl: | $(STAMP)
	$(WORLD) $(@D) --num-clips 32000 --modality image --questions-per-clip 2

$(NANO)/moving/train.jsonl: $(NANO)/worlds/single.json
	$(WORLD) $(@D) --num-clips 3000 --form motion --world $<

$(NANO)/seen/train.jsonl: $(NANO)/worlds/short.json
	$(WORLD) $(@D) --num-clips 5000 --questions-per-clip 7 --type visual --world $<

$(NANO)/short/train.jsonl: $(NANO)/worlds/short.json
	$(WORLD) $(@D) --num-clips 6000 --questions-per-clip 12 $(TYPES) --type caption --world $<

$(NANO)/middle/train.jsonl: $(NANO)/worlds/middle.json
	$(WORLD) $(@D) --num-clips 8000 --questions-per-clip 20 $(TYPES) --type order --world $<

$(NANO)/clips/train.jsonl: | $(STAMP)
	$(WORLD) $(@D) --num-clips 14000 --questions-per-clip 20 $(TYPES) --type order --type counting

$(NANO)/captions/train.jsonl: | $(STAMP)
	$(WORLD) $(@D) --num-clips 1000 --seed 1 --type caption

$(NANO)/0/model.safetensors: | $(STAMP)
	$(BIN)/python -m transformers_omnivinci.nano.build build $(@D)

$(NANO)/1/model.safetensors: $(NANO)/0/model.safetensors $(NANO)/pictures/train-image.jsonl
	$(STAGE) --recipe scratch --per-device-train-batch-size 32 --num-train-epochs 1

$(NANO)/2/model.safetensors: $(NANO)/1/model.safetensors $(NANO)/moving/train.jsonl
	$(CLIPS) 2

$(NANO)/3/model.safetensors: $(NANO)/2/model.safetensors $(NANO)/seen/train.jsonl
	$(CLIPS) 1

$(NANO)/4/model.safetensors: $(NANO)/3/model.safetensors $(NANO)/short/train.jsonl
	$(CLIPS) 1

$(NANO)/5/model.safetensors: $(NANO)/4/model.safetensors $(NANO)/middle/train.jsonl
	$(CLIPS) 1

$(NANO)/6/model.safetensors: $(NANO)/5/model.safetensors $(NANO)/clips/train.jsonl $(NANO)/captions/train.jsonl
	$(CLIPS) 1

ablation: $(NANO)/1/model.safetensors ## train the rows of the paper's table 1 in small, into docs/
	$(BIN)/python -m benchmarks.ablation --pictures $(NANO)/1

clean: ## remove what the other targets wrote, but for .venv
	rm -rf build dist src/*.egg-info $(CLIP) $(PLOT) .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
