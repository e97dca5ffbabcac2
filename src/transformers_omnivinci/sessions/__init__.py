"""Sessions: media are encoded once and read once, and many questions are asked about them."""

from .session import Session

__all__ = ["Session"]
