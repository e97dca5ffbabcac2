"""The published layout of `nvidia/omnivinci`, which no other package of this project knows; conversion to and fro."""

from .loading import (
    PublishedConfig,
    VILAProcessor,
    load_published_model,
    published_config,
    published_processor,
)

__all__ = [
    "PublishedConfig",
    "VILAProcessor",
    "load_published_model",
    "published_config",
    "published_processor",
]
