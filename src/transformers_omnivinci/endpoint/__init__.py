"""
Answers requests: for Hugging Face Inference Endpoints, and for the HTTP server of `omnivinci serve`.

`publishing.code` copies this folder into repositories, where it works without the package. Its modules therefore
import one another, the standard library, torch and transformers alone.
"""

from .fetch import Downloader
from .handler import EndpointHandler
from .limits import Limits, RequestError

__all__ = ["Downloader", "EndpointHandler", "Limits", "RequestError"]
