"""`omnivinci web` with a nano that needs a while for each token, so that answers are seen to come, and are stopped."""

import sys
import time

from transformers_omnivinci.cli import app, web

SECONDS = 0.25
MODULE = sys.modules[web.__module__]
LOAD = MODULE.load_with_processor


def load_slowly(*arguments):
    """As `load_with_processor`."""
    processor, model = LOAD(*arguments)
    model.model.language_model.register_forward_pre_hook(lambda *_: time.sleep(SECONDS))
    return processor, model


if __name__ == "__main__":
    MODULE.load_with_processor = load_slowly
    app(["web", *sys.argv[1:]])
