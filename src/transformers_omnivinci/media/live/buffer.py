"""What was read from a live source and not taken yet: a bounded number of frames and seconds of sound."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .clock import complete_until, thin

# Seconds by which picture or sound may come after the other before it is given up: of a source that does not wait for
# its reader, and of a file, in which fragments of MP4, for instance, have one after the other.
MAX_LAG, MAX_LAG_OF_FILES = 10.0, 30.0
# Seconds of sound that may wait: 38 MB.
_MAX_SOUND = 600.0
# Events that wait at most, so that a broken source fills no memory; all of them are logged.
_MAX_EVENTS = 1000
# Comparisons of seconds allow for this.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class LiveEvent:
    """
    What happened to a live source.

    Args:
        kind (`str`): One of `EVENTS`.
        second (`float`): At which second of the stream.
        message (`str`): What happened, in one sentence.
    """

    kind: str
    second: float
    message: str

    def __str__(self) -> str:
        return self.message


EVENTS = {
    "stalled": "nothing came for `timeout` seconds",
    "broken": "the source broke off",
    "connected": "it was opened again, or goes on after it had stalled",
    "jumped": "its clock jumped; what follows continues where the line of seconds ended",
    "resized": "its frames have another size; they are scaled to the first one",
    "silence": "sound was missing; there is silence",
    "cut": "sound or picture overlapped what was there already, and was left out",
    "thinned": "frames were dropped, as they were read faster than taken",
    "sound_dropped": "the oldest sound was dropped, as more waited than is kept",
    "damaged": "packets could not be decoded",
    "ended": "the source has ended",
}
"""The kinds of events, and what they tell."""


@dataclass
class LiveChunk:
    """
    A stretch of a live source, which follows the one before: `session.feed(*chunk.media)` takes it.

    Args:
        frames (`np.ndarray`): uint8 RGB of shape (num_frames, height, width, 3), upright; there may be none.
        timestamps (`np.ndarray`): Their seconds since the source was opened, float64 (num_frames,), ascending.
        samples (`np.ndarray`, *optional*):
            float32 mono samples in [-1, 1] of shape (num_samples,) at 16 kHz; `None`: the source has no sound.
        start (`float`, *optional*): The second of the first sample.
        end (`float`): The second up to which the source has been read.
        events (`list[LiveEvent]`): What happened since the last chunk.
    """

    frames: np.ndarray
    timestamps: np.ndarray
    samples: np.ndarray | None
    start: float | None
    end: float
    events: list[LiveEvent] = field(default_factory=list)

    @property
    def media(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, float | None]:
        """Frames, timestamps, samples and start."""
        return self.frames, self.timestamps, self.samples, self.start


class LiveBuffer:
    """
    Frames and sound between the thread that reads and the one that takes.

    Args:
        capacity (`int`): How many frames may wait.
        chunk_seconds (`float`): Seconds at whose multiples chunks end.
        buffer_seconds (`float`):
            Seconds that may wait. Then the reader waits if it `waits`, and else frames are thinned, see [`thin`].
        sampling_rate (`int`): Of the sound, in Hz.
        tell (`Callable`): Called in the reading thread for each event.
    """

    def __init__(
        self,
        capacity: int,
        chunk_seconds: float,
        buffer_seconds: float,
        sampling_rate: int,
        tell: Callable[[LiveEvent], None],
    ):
        self.capacity, self.chunk_seconds, self.buffer_seconds = capacity, chunk_seconds, buffer_seconds
        self.sampling_rate, self.waits, self.tell = sampling_rate, False, tell
        self.max_lag = MAX_LAG
        self.changed = threading.Condition()
        self.size: tuple[int, int] | None = None  # height and width of all frames
        self.frames: deque[tuple[float, np.ndarray]] = deque()
        self.events: deque[LiveEvent] = deque(maxlen=_MAX_EVENTS)
        self.has_sound: bool | None = None  # `None`: not known yet
        self.picture_start, self.picture_end, self.num_read = 0.0, 0.0, 0  # of all frames that were read, kept or not
        self._sound: deque[np.ndarray] = deque()
        self._sound_start = self._num_sound = 0  # the first sample that waits, and how many do
        self._complete = 0.0  # the second up to which chunks can be given
        self.taken = 0.0  # the second up to which they were
        self._dropped: list[float] = []  # seconds of frames dropped since the last chunk; bounded by their number
        self._num_dropped = 0
        self._lost_sound = 0.0
        self.error: BaseException | None = None
        self.is_over = self.is_closed = False

    @property
    def sound_end(self) -> float:
        """The second up to which there is sound."""
        return (self._sound_start + self._num_sound) / self.sampling_rate

    @property
    def frame_rate(self) -> float | None:
        """Frames per second that were read, kept or not; `None` before two have come."""
        with self.changed:
            seconds = self.picture_end - self.picture_start
            return (self.num_read - 1) / seconds if self.num_read > 1 and seconds > 0 else None

    def add_event(self, event: LiveEvent) -> None:
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()
        self.tell(event)

    def add_frame(self, second: float, picture: np.ndarray) -> None:
        """Adds an upright picture (height, width, 3); waits while there is no room, if the reader waits."""
        with self.changed:
            is_late, taken = second < self.taken - _ROUNDING, self.taken
            if not is_late:
                self.frames.append((second, picture))
        if is_late:
            message = f"A frame of {second:.1f} s was left out: the sound up to {taken:.1f} s had come before it."
            self.add_event(LiveEvent("cut", second, message))
        self.reach(second)

    def reach(self, second: float) -> None:
        """A frame of this second was read."""
        with self.changed:
            self.picture_start = self.picture_start if self.num_read else second
            self.num_read += 1
            self.picture_end = max(self.picture_end, second)
            self._update()

    def add_sound(self, samples: np.ndarray) -> None:
        """Adds samples (num_samples,), which follow those before them."""
        with self.changed:
            self._append(samples)
            self._update()

    def add_silence(self, num_samples: int) -> None:
        """Adds so many samples of silence after the sound."""
        with self.changed:
            most = round(_MAX_SOUND * self.sampling_rate)
            if num_samples > most:
                self._drop_sound(self._num_sound)
                self._lost_sound += (num_samples - most) / self.sampling_rate
                self._sound_start += num_samples - most
                num_samples = most
            self._append(np.zeros(num_samples, np.float32))
            self._update()

    def _append(self, samples: np.ndarray) -> None:
        if len(samples):
            self._sound.append(samples)
            self._num_sound += len(samples)

    def _drop_sound(self, num_samples: int) -> None:
        self._lost_sound += num_samples / self.sampling_rate
        self._cut_sound(num_samples)

    def _cut_sound(self, num_samples: int) -> list[np.ndarray]:
        """Takes so many samples from the start."""
        parts = []
        self._sound_start += num_samples
        self._num_sound -= num_samples
        while num_samples:
            part = self._sound.popleft()
            if len(part) > num_samples:
                self._sound.appendleft(part[num_samples:])
                part = part[:num_samples]
            num_samples -= len(part)
            parts.append(part)
        return parts

    def _update(self) -> None:
        """Moves the second up to which chunks can be given, and keeps the bounds."""
        until = complete_until(self.picture_end, self.sound_end if self.has_sound else None, self.max_lag)
        # Seconds that are a multiple but for rounding count as one.
        until = int((until + _ROUNDING) / self.chunk_seconds) * self.chunk_seconds
        if until > self._complete:
            self._complete = until
            self.changed.notify_all()
        if self.waits:
            while not self.is_closed and self._complete - self.taken >= self.buffer_seconds:
                self.changed.wait()
        else:
            self._keep_bounds()

    def _keep_bounds(self) -> None:
        """Thins the frames that could be taken, and drops the oldest sound, if there is too much of them."""
        num_ready = sum(second < self._complete for second, _ in self.frames)
        if num_ready > self.capacity:
            kept = set(thin(num_ready))
            gone = [second for place, (second, _) in enumerate(self.frames) if place < num_ready and place not in kept]
            self.frames = deque(
                frame for place, frame in enumerate(self.frames) if place >= num_ready or place in kept
            )
            self._num_dropped += len(gone)
            self._dropped = [min([*self._dropped[:1], *gone]), max([*self._dropped[-1:], *gone])]
        too_much = self._num_sound - round(_MAX_SOUND * self.sampling_rate)
        if too_much > 0:
            self._drop_sound(too_much)

    def finish(self, error: BaseException | None = None) -> None:
        """Nothing more comes. An error is raised when everything has been taken."""
        with self.changed:
            self.error, self.is_over = error, True
            self._complete = max(self._complete, self.picture_end, self.sound_end)
            if not self.waits:
                self._keep_bounds()
            self.changed.notify_all()

    def close(self) -> None:
        """Nothing more is taken: the reader does not wait any longer."""
        with self.changed:
            self.is_closed = True
            self.changed.notify_all()

    def take_events(self) -> list[LiveEvent]:
        """The events that wait; blocks until there is one, a chunk is complete or nothing more comes."""
        with self.changed:
            self.changed.wait_for(lambda: self.events or self._is_ready() or self.is_over or self.is_closed)
            events = list(self.events)
            self.events.clear()
            return events

    def _is_ready(self) -> bool:
        return self._complete > self.taken

    def take(self) -> LiveChunk | None:
        """All that is complete or, if the reader waits, the next `chunk_seconds` of it; `None` if nothing is."""
        with self.changed:
            if not self._is_ready() or self.is_closed:
                return None
            until = self._complete
            if self.waits:
                until = min(until, (int((self.taken + _ROUNDING) / self.chunk_seconds) + 1) * self.chunk_seconds)
            is_last = self.is_over and until >= self._complete
            taken = []
            while self.frames and (is_last or self.frames[0][0] < until - _ROUNDING):
                taken.append(self.frames.popleft())
            samples, start = None, None
            if self.has_sound:
                start = self._sound_start / self.sampling_rate
                stop = self._sound_start + self._num_sound
                stop = stop if is_last else min(stop, round(until * self.sampling_rate))
                parts = self._cut_sound(max(0, stop - self._sound_start))
                samples = np.concatenate(parts) if parts else np.empty(0, np.float32)
            told = self._tell_dropped()
            self.taken = until
            self.changed.notify_all()
        for event in told:
            self.tell(event)
        timestamps = np.array([second for second, _ in taken])
        empty = np.empty((0, *(self.size or (0, 0)), 3), np.uint8)
        frames = np.stack([picture for _, picture in taken]) if taken else empty
        return LiveChunk(frames, timestamps, samples, start, until, told)

    def _tell_dropped(self) -> list[LiveEvent]:
        events = []
        if self._num_dropped:
            first, last = self._dropped
            message = (
                f"{self._num_dropped} frames from {first:.1f} to {last:.1f} s were dropped, every second one as often "
                f"as more than {self.capacity} waited: they are taken more slowly than they come."
            )
            events.append(LiveEvent("thinned", first, message))
        if self._lost_sound:
            second = self._sound_start / self.sampling_rate
            message = (
                f"{self._lost_sound:.1f} s of sound before {second:.1f} s were dropped: more than {_MAX_SOUND:g} s of "
                "it waited to be taken."
            )
            events.append(LiveEvent("sound_dropped", second, message))
        self._num_dropped, self._dropped, self._lost_sound = 0, [], 0.0
        return events
