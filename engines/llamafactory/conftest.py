"""Puts the stand-in of torchaudio where it is found."""

import sys

from engines.llamafactory import STAND_INS

sys.path.append(str(STAND_INS))
