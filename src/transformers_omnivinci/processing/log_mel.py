"""Log-mel windows of sound, with bounded memory."""

from collections.abc import Iterator

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from ..media import SampleFile
from ..planning import AudioWindows

DYNAMIC_RANGE = 2.0
"""The floor lies 8 decades below the loudest of the whole clip, which is this in the units of the features."""
_KEPT_MINUTES = 10
"""Minutes of a clip whose spectrogram is kept while its loudest frame is looked for."""

Samples = np.ndarray | SampleFile
"""Mono samples in [-1, 1], of shape `(num_samples,)`."""


def extract_log_mel(
    extractor: WhisperFeatureExtractor,
    waveform: Samples,
    windows: AudioWindows,
    window_mel_frames: int,
    device: str = "cpu",
    num_at_once: int | None = None,
) -> Iterator[torch.Tensor]:
    """
    The log-mel spectrogram of a clip, in the windows of the audio encoder, with the dynamic range of the whole clip.

    Args:
        extractor ([`WhisperFeatureExtractor`]): What makes spectrograms.
        waveform (`np.ndarray` or [`SampleFile`]): Mono samples in [-1, 1].
        windows ([`AudioWindows`]): How the clip is cut and padded with silence.
        window_mel_frames (`int`): Mel frames of a window.
        device (`str`, *optional*, defaults to `"cpu"`): Where it is computed.
        num_at_once (`int`, *optional*): How many windows are held at a time. `None`: all.

    Yields:
        `torch.Tensor` of shape `(num_windows, mel bins, window_mel_frames)`: `num_at_once` of the windows, or those
        that are left; zero after the last frame of the clip.
    """
    samples = _Padded(waveform, windows)
    total, step = len(samples) // extractor.hop_length, 60 * extractor.sampling_rate // extractor.hop_length
    # A minute at a time: frames need only the samples around them, but for the dynamic range.
    minutes = [(start, min(start + step, total)) for start in range(0, total, step)]
    peaks, kept = [], []
    for start, stop in minutes:
        frames = extract_frames(extractor, samples, start, stop, device)
        peaks.append(frames.max())
        kept += [frames] if len(minutes) <= _KEPT_MINUTES else []  # of longer clips they are made again
    floor = torch.stack(peaks).max() - DYNAMIC_RANGE
    num_at_once = min(num_at_once or windows.num_windows, windows.num_windows)
    held = torch.zeros(extractor.feature_size, num_at_once * window_mel_frames)
    num_held, num_left = 0, windows.num_windows
    for number, (start, stop) in enumerate(minutes):
        frames = kept[number] if kept else extract_frames(extractor, samples, start, stop, device)
        frames = torch.maximum(frames, floor).to(held)
        while frames.shape[1]:
            part, frames = frames[:, : held.shape[1] - num_held], frames[:, held.shape[1] - num_held :]
            held[:, num_held : num_held + part.shape[1]] = part
            num_held += part.shape[1]
            if num_held == held.shape[1]:
                yield _cut(held, window_mel_frames)
                num_left, num_held = num_left - num_at_once, 0
    while num_left > 0:
        held[:, num_held:] = 0
        yield _cut(held[:, : num_left * window_mel_frames], window_mel_frames)
        num_left, num_held = num_left - num_at_once, 0


def _cut(frames: torch.Tensor, window_mel_frames: int) -> torch.Tensor:
    """Mel frames (mel bins, num_windows * window_mel_frames) as windows, in memory of their own."""
    windows = frames.unflatten(1, (-1, window_mel_frames)).transpose(0, 1)
    return windows.clone(memory_format=torch.contiguous_format)


class _Padded:
    """The samples of a clip and the silence behind them, of which slices are taken."""

    def __init__(self, waveform: Samples, windows: AudioWindows):
        self.waveform, self.windows = waveform, windows

    def __len__(self) -> int:
        return self.windows.padded_samples

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(len(self))
        samples = np.zeros(stop - start, dtype=np.float32)
        found = self.waveform[start : min(stop, self.windows.num_samples)]
        samples[: len(found)] = found
        return samples


def margin_of(extractor: WhisperFeatureExtractor) -> int:
    """How many frames before and behind others feel their samples."""
    return extractor.n_fft // (2 * extractor.hop_length) + 2


def extract_frames(
    extractor: WhisperFeatureExtractor, samples, start: int, stop: int, device: str = "cpu"
) -> torch.Tensor:
    """
    Log-mel frames from `start` up to `stop` of a clip, by the samples around them. Their floor lies no higher than
    that of the whole clip, which is for the caller to apply.

    Args:
        samples (`np.ndarray` of shape `(num_samples,)`): The clip, padded.
        others: As of [`extract_log_mel`].

    Returns:
        `torch.Tensor` of shape `(mel bins, stop - start)`.
    """
    hop, margin = extractor.hop_length, margin_of(extractor)
    first, last = max(start - margin, 0), stop + margin
    part = samples[first * hop : last * hop] if last < len(samples) // hop else samples[first * hop :]
    frames = extractor(
        part,
        sampling_rate=extractor.sampling_rate,
        padding=False,
        truncation=False,
        device=device,
        return_tensors="pt",
    )["input_features"][0]
    return frames[:, start - first : stop - first]
