"""Log-mel windows of sound, with bounded memory."""

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from ..planning import AudioWindows

DYNAMIC_RANGE = 2.0
"""The floor lies 8 decades below the loudest of the whole clip, which is this in the units of the features."""


def extract_log_mel(
    extractor: WhisperFeatureExtractor,
    waveform: np.ndarray,
    windows: AudioWindows,
    window_mel_frames: int,
    device: str = "cpu",
) -> torch.Tensor:
    """
    The log-mel spectrogram of a clip, in the windows of the audio encoder, with the dynamic range of the whole clip.

    Args:
        extractor ([`WhisperFeatureExtractor`]): What makes spectrograms.
        waveform (`np.ndarray` of shape `(num_samples,)`): Mono samples in [-1, 1].
        windows ([`AudioWindows`]): How the clip is cut and padded with silence.
        window_mel_frames (`int`): Mel frames of a window.
        device (`str`, *optional*, defaults to `"cpu"`): Where it is computed.

    Returns:
        `torch.Tensor` of shape `(num_windows, mel bins, window_mel_frames)`; zero after the last frame of the clip.
    """
    samples = np.zeros(windows.padded_samples, dtype=np.float32)
    samples[: windows.num_samples] = waveform[: windows.num_samples]
    total, step = len(samples) // extractor.hop_length, 60 * extractor.sampling_rate // extractor.hop_length
    mel = torch.zeros(extractor.feature_size, windows.num_windows * window_mel_frames)
    # A minute at a time: frames need only the samples around them, but for the dynamic range.
    for start in range(0, total, step):
        stop = min(start + step, total)
        mel[:, start:stop] = extract_frames(extractor, samples, start, stop, device)
    heard = mel[:, :total]
    torch.maximum(heard, heard.max() - DYNAMIC_RANGE, out=heard)
    return mel.unflatten(1, (windows.num_windows, window_mel_frames)).transpose(0, 1)


def margin_of(extractor: WhisperFeatureExtractor) -> int:
    """How many frames before and behind others feel their samples."""
    return extractor.n_fft // (2 * extractor.hop_length) + 2


def extract_frames(
    extractor: WhisperFeatureExtractor, samples: np.ndarray, start: int, stop: int, device: str = "cpu"
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
