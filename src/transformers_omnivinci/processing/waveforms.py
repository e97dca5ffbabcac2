"""Audio samples in the forms in which users have them, converted to mono samples at one rate."""

from numbers import Real

import numpy as np
import torch

from .. import media


def is_clip(item) -> bool:
    """Whether this is one clip: an audio object of `datasets`, samples with their rate, or a decoder of torchcodec."""
    return isinstance(item, dict) or _is_pair(item) or hasattr(item, "get_all_samples")


def is_waveform(clip) -> bool:
    """Whether a clip consists of samples in any form, rather than of a source that has to be decoded."""
    clip = _unpack(clip)[0]
    return hasattr(clip, "shape") or isinstance(clip, (list, tuple)) or hasattr(clip, "get_all_samples")


def source_of(clip):
    """The source of a clip that has to be decoded."""
    return _unpack(clip)[0]


def to_waveform(clip, sampling_rate: int) -> np.ndarray:
    """
    Converts a clip to float32 mono samples (num_samples,) at `sampling_rate` Hz, in [-1, 1] unless floats exceed it.

    The clip is an array, tensor or list of mono samples at that rate; or samples with their own rate as
    `(samples, rate)`, `(rate, samples)`, `{"array": samples, "sampling_rate": rate}` or an object whose
    `get_all_samples()` has `data` and `sample_rate`. The latter are resampled, and their channels, along the shorter
    of two axes, are averaged. Integers are scaled by the range of their dtype.

    Raises:
        ValueError, TypeError: there are no samples, or they or their rate are not accepted.
    """
    samples, rate = _unpack(clip)
    if hasattr(samples, "get_all_samples"):
        decoded = samples.get_all_samples()
        samples, rate = decoded.data, decoded.sample_rate
    samples = _to_floats(samples)
    if rate is None:
        if samples.ndim != 1:
            raise ValueError(
                f"An audio array of shape {samples.shape} is not mono: one axis of samples is accepted, or two with "
                "the rate, as `(samples, rate)`."
            )
        return samples
    if samples.ndim == 2 and min(samples.shape) <= 64:  # more channels suggest that axes are mixed up
        samples = samples.mean(axis=int(samples.shape[0] > samples.shape[1]))
    if samples.ndim != 1:
        raise ValueError(
            f"Audio samples of shape {samples.shape} are not accepted: (samples,), (channels, samples) and "
            "(samples, channels) are."
        )
    return media.resample(samples, rate, sampling_rate)


def count_samples(clip, sampling_rate: int) -> int:
    """The number of samples that [`to_waveform`] returns, without resampling arrays. Arguments and errors are its."""
    samples, rate = _unpack(clip)
    if hasattr(samples, "get_all_samples"):
        return len(to_waveform(clip, sampling_rate))
    if rate is None:
        return len(samples)
    return round(max(np.shape(samples), default=0) * sampling_rate / rate)


def _is_pair(item) -> bool:
    """Whether this is `(samples, rate)` or `(rate, samples)`."""
    if not isinstance(item, tuple) or len(item) != 2:
        return False
    samples = item[1] if _is_rate(item[0]) else item[0]
    has_samples = getattr(samples, "ndim", 0) > 0 or (isinstance(samples, (list, tuple)) and bool(samples))
    return has_samples and any(map(_is_rate, item))


def _is_rate(item) -> bool:
    return isinstance(item, Real) and not isinstance(item, bool)


def _unpack(clip) -> tuple:
    """Samples with their rate; or, with `None`, a source or samples at the expected rate."""
    if _is_pair(clip):
        return clip[::-1] if _is_rate(clip[0]) else clip
    if not isinstance(clip, dict):
        return clip, None
    if clip.get("array") is not None:
        if not _is_rate(clip.get("sampling_rate")):
            raise ValueError(
                f"The audio object has an `array` with `sampling_rate={clip.get('sampling_rate')!r}`: the rate of its "
                "samples in Hz is needed."
            )
        return clip["array"], clip["sampling_rate"]
    source = clip.get("bytes") if clip.get("bytes") is not None else clip.get("path")
    if source is None:
        raise ValueError(
            f"An audio object with the keys {sorted(map(str, clip))} is not accepted: `array` and `sampling_rate`, "
            "`bytes` or `path` are needed."
        )
    return source, None


def _to_floats(samples) -> np.ndarray:
    if isinstance(samples, torch.Tensor):
        samples = samples.detach().cpu()
        samples = samples.float() if samples.dtype == torch.bfloat16 else samples  # which NumPy lacks
    samples = np.asarray(samples)
    if not samples.size:
        raise ValueError("The audio array has no samples: at least one is needed.")
    if samples.dtype.name == "bfloat16":
        samples = samples.astype(np.float32)
    if np.issubdtype(samples.dtype, np.integer):
        limits = np.iinfo(samples.dtype)
        half_range = (limits.max - limits.min + 1) / 2
        samples = (samples - (limits.min + half_range)) / half_range
    elif not np.issubdtype(samples.dtype, np.floating):
        raise TypeError(f"An audio array of `{samples.dtype}` is not accepted: floats and integers are.")
    if not np.isfinite(samples).all():
        raise ValueError("The audio array holds NaN or infinite samples.")
    return samples.astype(np.float32)
