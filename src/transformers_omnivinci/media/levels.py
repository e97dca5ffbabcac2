"""
Pixels of any dtype and range, and high dynamic range (PQ and HLG, ITU-R BT.2100), become levels from 0 to 255 of SDR,
which models have been trained on.
"""

import warnings
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

# The share of the range by which interpolation may overshoot black and white; values beyond them are clipped.
_OVERSHOOT = 0.05
# A picture of floats or wide integers that is darker than this probably has another range.
_NEAR_BLACK = 16

ACCEPTED = (
    "bool, integers from 0 to 255 or to 65535 (16 bits), and floats from 0 to 1, to 255 or to 65535 are accepted"
)

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


def white_level(*pictures: torch.Tensor) -> float:
    """
    The value of white in the pictures of one clip, tensors of any shape: 1, 255 or 65535, by dtype and range.

    It is 1 for bool and 255 for uint8; else the least into whose range all pictures together fit: 255 or 65535 for
    other integers, also 1 for floats, which may exceed it by a twentieth, as happens in interpolation.

    Raises:
        TypeError: complex pixels.
        ValueError: values are negative, larger than 65535, NaN or infinite.
    """
    dtype = pictures[0].dtype
    if dtype.is_complex:
        raise TypeError(f"Pixels of `{dtype}` are not understood: {ACCEPTED}.")
    if dtype in (torch.bool, torch.uint8):
        return 1.0 if dtype == torch.bool else 255.0
    # The widest unsigned integers have no minimum in torch.
    wide = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.float64}
    limits = [torch.stack(torch.aminmax(picture.to(wide.get(picture.dtype, picture.dtype)))) for picture in pictures]
    low, high = (limit.item() for limit in torch.stack(limits).double().aminmax())  # NaN if there is one
    slack = _OVERSHOOT if dtype.is_floating_point else 0.0
    fits = [
        white
        for white in ([1.0] if dtype.is_floating_point else []) + [255.0, 65535.0]
        if -slack * min(white, high) <= low and high <= (1 + slack) * white
    ]
    if not fits:  # NaN fits nowhere
        raise ValueError(
            f"Pixels of `{str(dtype).removeprefix('torch.')}` from {low:g} to {high:g} are not understood: {ACCEPTED}."
        )
    if 0 < high < _NEAR_BLACK * fits[0] / 255:
        warnings.warn(
            f"Pixels of `{str(dtype).removeprefix('torch.')}` reach {high:g}, which is nearly black where white is "
            f"{fits[0]:g}: scale them to the full range if their white is another value.",
            stacklevel=3,
        )
    return fits[0]


def to_levels(pixels: torch.Tensor, white: float | None = None) -> torch.Tensor:
    """
    Scales pixels of any shape to uint8 in which black is 0 and white is 255. `white`: its value before; `None`:
    [`white_level`] finds it, with its errors.
    """
    if pixels.dtype == torch.uint8:
        return pixels
    white = white_level(pixels) if white is None else white
    if pixels.dtype.is_floating_point:
        return (pixels.float() * (255 / white)).clamp(0, 255).round().to(torch.uint8)
    if white == 65535:
        return ((pixels.to(torch.int32) + 128) // 257).to(torch.uint8)
    return pixels.to(torch.uint8) * (255 if white == 1 else 1)


class _Tables(NamedTuple):
    light: np.ndarray  # by signal, 1 being the peak
    gain: np.ndarray  # by the square root of the brightest channel; scales light so that 1 is the white of SDR
    level: np.ndarray  # by the square root of the light in SDR


def tone_map(picture: np.ndarray, transfer: int) -> np.ndarray:
    """
    Maps a picture (height, width, 3) of uint16 R'G'B' with BT.2020 primaries and the transfer characteristic `PQ` or
    `HLG` to uint8 R'G'B' with BT.709 primaries, both of full range.

    Light up to half the luminance of white paper keeps its brightness; from there up to 1000 cd/m2 it is compressed as
    in ITU-R BT.2390.
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
