"""The former place of [`transformers_omnivinci.media`], so that imports from here still work."""

from ..media import *  # noqa: F403
from ..media import __all__ as __all__
