"""What differs between the versions of PyAV, 15 to 19. No other module asks for its version."""

from fractions import Fraction

import av

VERSION = tuple(int(part) for part in av.__version__.split(".")[:2])

# Tags that are no UTF-8 must not keep a file from being read. PyAV 19 always reads them, and has no such argument.
OPEN_OPTIONS = {"metadata_errors": "replace"} if VERSION < (19, 0) else {}


def time_base(stream) -> Fraction:
    """Seconds of a tick. PyAV 19 has a type of its own for them, which numpy cannot take."""
    base = stream.time_base
    return Fraction(base.numerator, base.denominator)
