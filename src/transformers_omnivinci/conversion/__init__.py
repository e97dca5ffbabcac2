"""The published layout of `nvidia/omnivinci`, which no other package of this project knows."""

from .published_layout import (
    PublishedConfig,
    VILAProcessor,
    convert_config,
    is_published,
    load_published_model,
    published_config,
    published_processor,
)

__all__ = [
    "PublishedConfig",
    "VILAProcessor",
    "convert_config",
    "is_published",
    "load_published_model",
    "published_config",
    "published_processor",
]
