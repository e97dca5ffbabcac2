"""Pipelines: `video-text-to-text`, and `any-to-any` where torchvision is not installed."""

from .any_to_any import AnyToAnyWithoutTorchvisionPipeline
from .video_text_to_text import VideoTextToTextPipeline

__all__ = ["AnyToAnyWithoutTorchvisionPipeline", "VideoTextToTextPipeline"]
