"""The sound of a scene."""

import math

import numpy as np

from .config import WorldConfig
from .scenes import AudibleSound, Scene

PITCHES = {"low tone": (220.0,), "middle tone": (660.0,), "high tone": (1980.0,), "chord": (330.0, 415.3, 493.9)}
SWEEPS = {"rising sweep": (300.0, 2700.0), "falling sweep": (2700.0, 300.0)}
_LOUDNESS = 0.6
_HUM_PITCH = 60.0
_EDGE_SECONDS = 0.02


def synthesise(scene: Scene, config: WorldConfig) -> np.ndarray:
    """
    Synthesises the sound of a scene.

    Args:
        scene ([`Scene`]): What to synthesise.
        config ([`WorldConfig`]): The config of its world.

    Returns:
        `np.ndarray` of shape `(num_samples,)`: float32 mono in [-1, 1], at `config.sampling_rate`.
    """
    rate = config.sampling_rate
    generator = np.random.Generator(np.random.PCG64([scene.seed, 1]))
    time = np.arange(round(scene.seconds * rate)) / rate
    waveform = scene.noise * _noise(len(time), generator) + scene.hum * np.sin(math.tau * _HUM_PITCH * time)
    for sound in scene.sounds:
        first, last = round(sound.start * rate), round(sound.end * rate)
        waveform[first:last] += _LOUDNESS * sound.gain * _synthesise(sound, last - first, rate, generator)
    return waveform.clip(-1, 1).astype(np.float32)


def _synthesise(sound: AudibleSound, num_samples: int, rate: int, generator: np.random.Generator) -> np.ndarray:
    time = np.arange(num_samples) / rate
    length = num_samples / rate
    if sound.kind == "click":
        return _noise(num_samples, generator) * np.exp(-5 * time / length)
    if sound.kind == "noise":
        samples = _noise(num_samples, generator)
    elif sound.kind in SWEEPS:
        low, high = SWEEPS[sound.kind]
        growth = math.log(high / low) / length  # the pitch is low * exp(growth * time)
        samples = np.sin(math.tau * low * np.expm1(growth * time) / growth)
    else:
        pitches = PITCHES[sound.kind]
        samples = sum(np.sin(math.tau * pitch * time) for pitch in pitches) / len(pitches)
    return samples * np.minimum(np.minimum(time, length - time) / _EDGE_SECONDS, 1)


def _noise(num_samples: int, generator: np.random.Generator) -> np.ndarray:
    """White noise in [-1, 1]."""
    return 2 * generator.random(num_samples) - 1
