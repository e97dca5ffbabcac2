# What the Makefiles of all recipes include. They are run as `make -C recipes/NAME all`, with
#
#   PYTHON   the interpreter, seen from the root; default: that of the environment `recipes` of engines/environments.toml,
#            which is made where it is missing
#   OUT      where data, models and answers are written, seen from the root; default: build/recipes/NAME
#   MODEL    the checkpoint that training starts from; default: nano
#   SEED     of data and training
#
# and define, in terms of the following, the targets `data`, `train`, `eval` and `table`:
#
#   $(RUN) MODULE ...             a Python module, at the root of the repository
#   $(TRAIN) ...                  `omnivinci train`, with the time it takes in $(OUT)/train.json
#   $(EVAL) ...                   `omnivinci eval`

ROOT   := $(abspath $(dir $(lastword $(MAKEFILE_LIST)))/..)
NAME   := $(notdir $(CURDIR))
PYTHON ?= python3 engines/run.py recipes -- python
OUT    ?= $(ROOT)/build/recipes/$(NAME)
MODEL  ?= $(ROOT)/src/transformers_omnivinci/nano/checkpoint
SEED   ?= 0
override OUT := $(if $(filter /%,$(OUT)),$(OUT),$(ROOT)/$(OUT))

RUN    := cd $(ROOT) && OMP_NUM_THREADS=$(or $(OMP_NUM_THREADS),2) TQDM_DISABLE=1 HF_HUB_OFFLINE=1 $(PYTHON) -m
CLI    := transformers_omnivinci.cli
TRAIN   = $(RUN) recipes.results $(OUT)/train.json -- python -m $(CLI) train
EVAL    = $(RUN) $(CLI) eval

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all data train eval table clean

all: table ## data, training, evaluation and the table

clean: ## remove what was written to OUT
	rm -rf $(OUT)
