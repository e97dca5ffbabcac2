"""Black and white of pixels of any dtype and range, which become levels from 0 to 255."""

import warnings

import torch

# The share of the range by which interpolation may overshoot black and white; values beyond them are clipped.
_OVERSHOOT = 0.05
# A picture of floats or wide integers that is darker than this probably has another range.
_NEAR_BLACK = 16

ACCEPTED = (
    "bool, integers from 0 to 255 or to 65535 (16 bits), and floats from 0 to 1, to 255 or to 65535 are accepted"
)


def white_level(*pictures: torch.Tensor) -> float:
    """
    The value of white in the pictures of one clip, tensors of any shape: 1, 255 or 65535, by dtype and range.

    | dtype | range | white |
    |---|---|---|
    | bool | | 1 (true) |
    | uint8 | | 255 |
    | other integers | from 0 to 255, else to 65535 | 255, else 65535 |
    | floats | from 0 to 1, else to 255, else to 65535 | 1, else 255, else 65535 |

    The range is that of all pictures together. Floats may exceed it by a twentieth, as happens in interpolation.

    Raises:
        TypeError: complex pixels.
        ValueError: values are negative, larger than 65535, NaN or infinite.
    """
    dtype = pictures[0].dtype
    if dtype.is_complex:
        raise TypeError(f"Pixels of `{dtype}` are not understood: {ACCEPTED}.")
    if dtype in (torch.bool, torch.uint8):
        return 1.0 if dtype == torch.bool else 255.0
    low, high = _range(pictures)
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
    Scales pixels to bytes in which black is 0 and white is 255.

    Args:
        pixels (`torch.Tensor`): Of any shape.
        white (`float`, *optional*): The value of white. `None`: [`white_level`] finds it, with its errors.

    Returns:
        `torch.Tensor`: uint8 of the same shape.
    """
    if pixels.dtype == torch.uint8:
        return pixels
    white = white_level(pixels) if white is None else white
    if pixels.dtype.is_floating_point:
        return (pixels.float() * (255 / white)).clamp(0, 255).round().to(torch.uint8)
    if white == 65535:
        return ((pixels.to(torch.int32) + 128) // 257).to(torch.uint8)
    return pixels.to(torch.uint8) * (255 if white == 1 else 1)


def _range(pictures: tuple[torch.Tensor, ...]) -> tuple[float, float]:
    """The least and the greatest value; NaN if there is one."""
    # The widest unsigned integers have no minimum in torch.
    wide = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.float64}
    limits = [torch.aminmax(picture.to(wide.get(picture.dtype, picture.dtype))) for picture in pictures]
    return (
        torch.stack([low for low, _ in limits]).double().min().item(),
        torch.stack([high for _, high in limits]).double().max().item(),
    )
