"""The published layout of `nvidia/omnivinci`, which no other package of this project knows; conversion to and fro."""

from .conversion_plan import Conversion, plan_conversion
from .converter import convert
from .loading import (
    PublishedConfig,
    VILAProcessor,
    load_published_model,
    published_config,
    published_processor,
)

__all__ = [
    "Conversion",
    "PublishedConfig",
    "VILAProcessor",
    "convert",
    "load_published_model",
    "plan_conversion",
    "published_config",
    "published_processor",
]
