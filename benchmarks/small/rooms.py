"""Rooms, noise and loudness around what voices read."""

import numpy as np

RATE = 16_000


def place_in_room(samples: np.ndarray, rng: np.random.Generator, seconds: float, direct: float) -> np.ndarray:
    """
    Adds an echo that dies away exponentially.

    Args:
        samples (`np.ndarray` of shape `(num_samples,)`): What is said.
        rng: Of the echo.
        seconds: After which it is 60 dB below its start.
        direct: Power of what comes directly, beside that of the echo.

    Returns:
        `np.ndarray` of shape `(num_samples,)`.
    """
    length = round(seconds * RATE)
    response = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    response *= np.sqrt(1 / direct / (response**2).sum())
    response[0] = 1.0
    size = 1 << (len(samples) + length).bit_length()
    echoed = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)
    return echoed[: len(samples)].astype(np.float32)


def add_noise(samples: np.ndarray, rng: np.random.Generator, decibels: float, slope: float) -> np.ndarray:
    """
    Adds noise.

    Args:
        samples (`np.ndarray` of shape `(num_samples,)`): What is said.
        rng: Of the noise.
        decibels: Power of the speech over that of the noise.
        slope: The noise's power falls as frequency to this power: 0 white, 1 pink, 2 brown.

    Returns:
        `np.ndarray` of shape `(num_samples,)`.
    """
    size = 1 << len(samples).bit_length()
    frequencies = np.maximum(np.arange(size // 2 + 1), 20 * size / RATE)
    spectrum = np.fft.rfft(rng.standard_normal(size)) * frequencies ** (-slope / 2)
    noise = np.fft.irfft(spectrum, size)[: len(samples)]
    noise *= np.sqrt((samples**2).mean() / max((noise**2).mean(), 1e-20) / 10 ** (decibels / 10))
    return (samples + noise).astype(np.float32)


def vary(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """
    What a microphone might hear of a voice: pauses around it, in half of the cases a room, in most of them noise,
    a tilt of the spectrum, and a level.

    Args:
        samples (`np.ndarray` of shape `(num_samples,)`): At 16 kHz, in [-1, 1].
        rng: Of everything that is drawn.

    Returns:
        `np.ndarray` of shape `(num_samples,)`: No sample is above 0.99.
    """
    before, after = (rng.uniform(0.05, 0.4, 2) * RATE).astype(int)
    samples = np.pad(samples.astype(np.float32), (before, after))
    if rng.random() < 0.5:
        samples = place_in_room(samples, rng, rng.uniform(0.1, 0.6), 10 ** rng.uniform(0.0, 1.5))
    if rng.random() < 0.5:  # darker or brighter
        samples = np.append(samples[:1], samples[1:] - rng.uniform(-0.6, 0.6) * samples[:-1])
    if rng.random() < 0.8:
        samples = add_noise(samples, rng, rng.uniform(8, 40), rng.uniform(0, 2))
    peak = np.abs(samples).max()
    return (samples * (10 ** rng.uniform(-1.2, -0.005) / max(peak, 1e-9))).astype(np.float32)
