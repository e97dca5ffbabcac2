"""A new OmniVinci from pretrained parts: a language model, an image encoder and an audio encoder."""

from .assembler import Assembly, assemble

__all__ = ["Assembly", "assemble"]
