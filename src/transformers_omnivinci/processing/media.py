"""The former place of [`transformers_omnivinci.media`]: what was imported from here still is."""

from ..media import *  # noqa: F403
from ..media import __all__ as __all__
