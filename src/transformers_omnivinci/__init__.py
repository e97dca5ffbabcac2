"""
OmniVinci for Hugging Face transformers.

Importing this package makes `AutoConfig`, `AutoModel`, `AutoProcessor` and `pipeline("video-text-to-text")` know
OmniVinci. It imports neither torch nor transformers: classes are imported when they are asked for.
"""

import importlib
import sys

from .checkpoint_formats import PUBLISHED_MODEL_TYPE, CheckpointFormat, register_format
from .registration import register
from .version import __version__

_MODULE_OF = {
    "OmniVinciConfig": "configuration_omnivinci",
    "OmniVinciForConditionalGeneration": "modeling",
    "OmniVinciModel": "modeling",
    "OmniVinciPreTrainedModel": "modeling",
    "OmniVinciImageProcessor": "processing",
    "OmniVinciProcessor": "processing",
    "OmniVinciVideoProcessor": "processing",
    "VideoTextToTextPipeline": "pipelines",
    "Session": "sessions",
    "PublishedConfig": "conversion",
    "VILAProcessor": "conversion",
    "LiveSource": "media",
    "NANO": "nano",
}

__all__ = [*_MODULE_OF, "__version__"]


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


register_format(
    CheckpointFormat(PUBLISHED_MODEL_TYPE, f"{__name__}.conversion.loading", "PublishedConfig", "VILAProcessor")
)
register(sys.modules[__name__])
