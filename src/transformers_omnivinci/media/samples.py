"""Where decoded samples are collected: in an array, or in a file where an hour of them is not to be held."""

import tempfile
import weakref

import numpy as np

_IN_MEMORY = 1 << 25  # bytes of samples from which on they go to a file: about nine minutes at 16 kHz
_SAMPLE = np.dtype(np.float32)


class SampleArray:
    """Collects float32 samples in memory."""

    def __init__(self):
        self._samples = np.empty(0, _SAMPLE)

    def write(self, start: int, samples: np.ndarray) -> None:
        """Puts samples of shape (num_samples,) behind the first `start`, over what is there."""
        stop = start + len(samples)
        if stop > len(self._samples):
            # In place where the system allows it: joining parts at the end would take twice the memory.
            self._samples.resize(max(stop, len(self._samples) * 9 // 8, 1 << 16), refcheck=False)
        self._samples[start:stop] = samples

    def finish(self, num_samples: int) -> np.ndarray:
        """The first samples, within [-1, 1]; silence where there are no more. Nothing is written afterwards."""
        self._samples.resize(num_samples, refcheck=False)
        return np.clip(self._samples, -1.0, 1.0, out=self._samples)


class SampleFile:
    """
    Collects float32 samples in memory and, from some minutes on, in a temporary file, which vanishes with this object.
    When it is finished, it has a length and parts of it are read as those of an array are: `samples[start:stop]`.
    """

    def __init__(self):
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, prefix="omnivinci-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._num_samples = 0

    def write(self, start: int, samples: np.ndarray) -> None:
        """As [`SampleArray.write`]."""
        self._file.seek(start * _SAMPLE.itemsize)
        self._file.write(samples.astype(_SAMPLE, copy=False).tobytes())

    def finish(self, num_samples: int) -> "SampleFile":
        """As [`SampleArray.finish`]."""
        self._num_samples = num_samples
        return self

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(len(self))
        self._file.seek(start * _SAMPLE.itemsize)
        found = np.frombuffer(self._file.read(max(0, stop - start) * _SAMPLE.itemsize), _SAMPLE)
        samples = np.zeros(max(0, stop - start), _SAMPLE)
        np.clip(found, -1.0, 1.0, out=samples[: len(found)])
        return samples
