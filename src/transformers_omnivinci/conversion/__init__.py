"""The published layout of `nvidia/omnivinci`, which no other package of this project knows; conversion to and fro."""

from .conversion_plan import Conversion, plan_conversion
from .converter import convert
from .loading import PublishedConfig, VILAProcessor

__all__ = ["Conversion", "PublishedConfig", "VILAProcessor", "convert", "plan_conversion"]
