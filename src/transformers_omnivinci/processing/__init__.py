"""From media and prompts to tensors: decoding, sampling, pixels, log-mel windows and expanded placeholders."""

from .image_processing_omnivinci import OmniVinciImageProcessor
from .processing_omnivinci import OmniVinciProcessor
from .video_processing_omnivinci import OmniVinciVideoProcessor

__all__ = ["OmniVinciImageProcessor", "OmniVinciProcessor", "OmniVinciVideoProcessor"]
