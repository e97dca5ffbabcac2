"""Pipelines: `video-text-to-text`, and `any-to-any` where torchvision is not installed."""

# First, for until transformers 5.23 its table of pipelines takes these classes while it is imported.
import transformers.pipelines  # noqa: F401

# isort: split
from .any_to_any import AnyToAnyWithoutTorchvisionPipeline
from .video_text_to_text import VideoTextToTextPipeline

__all__ = ["AnyToAnyWithoutTorchvisionPipeline", "VideoTextToTextPipeline"]
