"""Log-mel windows of sound, with bounded memory."""

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from ..planning import AudioWindows


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
    hop = extractor.hop_length
    margin = extractor.n_fft // (2 * hop) + 2  # frames that feel the edge of a part
    total, step = len(samples) // hop, 60 * extractor.sampling_rate // hop
    mel = torch.zeros(extractor.feature_size, windows.num_windows * window_mel_frames)
    # A minute at a time: frames need only the samples around them, but for the dynamic range.
    for start in range(0, total, step):
        stop = min(start + step, total)
        first, last = max(start - margin, 0), stop + margin
        part = samples[first * hop : last * hop] if last < total else samples[first * hop :]
        frames = extractor(
            part,
            sampling_rate=extractor.sampling_rate,
            padding=False,
            truncation=False,
            device=device,
            return_tensors="pt",
        )["input_features"][0]
        mel[:, start:stop] = frames[:, start - first : stop - first]
    # The floor lies 8 decades below the loudest of the whole clip, which is 2 in the units of the features. Those of
    # the parts lie no higher.
    heard = mel[:, :total]
    torch.maximum(heard, heard.max() - 2.0, out=heard)
    return mel.unflatten(1, (windows.num_windows, window_mel_frames)).transpose(0, 1)
