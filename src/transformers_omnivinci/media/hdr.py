"""
Tone mapping of high dynamic range (PQ and HLG, ITU-R BT.2100) to SDR, which models have been trained on.

Light up to half the luminance of white paper keeps its brightness; from there up to 1000 cd/m2 it is compressed as in
ITU-R BT.2390.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

PQ, HLG = 16, 18
"""The numbers of these transfer characteristics in ITU-T H.273."""

_BITS = 12
_MOST = (1 << _BITS) - 1
_ROWS = 32  # worked on at a time, so that they stay in the cache of a core
_SDR_WHITE = 203.0  # cd/m2 of white paper in HDR, ITU-R BT.2408
_PEAK = 1000.0  # cd/m2 of an HLG display by definition, and of most PQ masters
_GAMMA = 2.4  # of SDR displays, ITU-R BT.1886
# From the primaries of BT.2020 to those of BT.709, in linear light.
_TO_BT709 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))
_LUMINANCE = (0.2627, 0.6780, 0.0593)
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128


class _Tables(NamedTuple):
    """
    Lookup tables: `light` by signal, 1 being the peak; `gain` by the square root of the brightest channel, which
    scales light so that 1 is the white of SDR; `level` by the square root of the light in SDR.
    """

    light: np.ndarray
    gain: np.ndarray
    level: np.ndarray


def tone_map(picture: np.ndarray, transfer: int) -> np.ndarray:
    """
    Maps an HDR picture to SDR.

    Args:
        picture (`np.ndarray` of shape `(height, width, 3)`): uint16 R'G'B' of full range, BT.2020 primaries.
        transfer (`int`): `PQ` or `HLG`.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`: uint8 R'G'B' of full range, BT.709 primaries.
    """
    tables = _tables(transfer)
    result = np.empty(picture.shape, np.uint8)
    for top in range(0, len(picture), _ROWS):
        rows = slice(top, top + _ROWS)
        planes = np.ascontiguousarray(np.moveaxis(picture[rows], 2, 0))  # gathering from interleaved ones is slow
        light = tables.light[planes >> (16 - _BITS)]
        if transfer == HLG:
            # The light that a display emits depends on the luminance of the scene there.
            light *= (_LUMINANCE[0] * light[0] + _LUMINANCE[1] * light[1] + _LUMINANCE[2] * light[2]) ** 0.2
        light *= tables.gain[_by_root(light.max(axis=0))]
        for channel, (red, green, blue) in enumerate(_TO_BT709):
            result[rows, :, channel] = tables.level[_by_root(red * light[0] + green * light[1] + blue * light[2])]
    return result


def _by_root(light: np.ndarray) -> np.ndarray:
    """Indices into a table. Like gamma, the square root spreads dark levels over it."""
    np.clip(light, 0, 1, out=light)
    np.sqrt(light, out=light)
    light *= _MOST
    light += 0.5
    return light.astype(np.uint16)


@lru_cache(maxsize=2)
def _tables(transfer: int) -> _Tables:
    signal = np.linspace(0, 1, _MOST + 1)
    if transfer == PQ:
        light = np.minimum(_from_pq(signal) / _PEAK, 1)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    nits = np.maximum(signal**2 * _PEAK, 1e-4)
    gain = _compress(nits) / nits * _PEAK / _SDR_WHITE
    level = np.round(255 * signal ** (2 / _GAMMA)).astype(np.uint8)
    return _Tables(light.astype(np.float32), gain.astype(np.float32), level)


def _compress(nits: np.ndarray) -> np.ndarray:
    """Maps light up to `_PEAK` to light up to `_SDR_WHITE`: the EETF of BT.2390."""
    peak, white = _to_pq(_PEAK), _to_pq(_SDR_WHITE)
    signal, most = np.minimum(_to_pq(nits) / peak, 1), white / peak
    knee = 1.5 * most - 0.5
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    return _from_pq(np.where(signal < knee, signal, spline) * peak)


def _from_pq(signal):
    power = np.maximum(signal, 0) ** (1 / _M2)
    return 10_000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def _to_pq(nits):
    power = (np.maximum(nits, 0) / 10_000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
