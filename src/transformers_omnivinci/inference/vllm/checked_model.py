"""The model, after a look at the version of vLLM: an old one lacks what the model's module imports."""

import vllm

from .versions import check_version

check_version(vllm.__version__)

from .model import OmniVinciForConditionalGeneration  # noqa: E402

__all__ = ["OmniVinciForConditionalGeneration"]
