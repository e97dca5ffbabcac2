"""
The arithmetic of live sources in plain integers and seconds, without pictures and samples: their times on one line
that never goes back, which frames are sampled, which give way, and where sound is missing or repeated.
"""

import math
from collections.abc import Hashable
from typing import NamedTuple

# The clock of a track has restarted if it goes back by more than this many seconds. Sound that is early or late by
# less follows what came before: containers round.
MIN_SETBACK = 0.1
# A source that is opened again keeps its clock if that is ahead by at most this many seconds of the time passed since.
_MAX_LEAD = 2.0
# Slack in comparisons of seconds that were computed in different ways.
_ROUNDING = 1e-6


class Placed(NamedTuple):
    """Where something of a track stands on the line: its second, and by how much its clock has jumped to be there."""

    second: float
    jump: float = 0.0


class LiveClock:
    """
    Puts the times of the tracks of a source on one line of seconds from 0 on, on which nothing goes back.

    A clock that goes back, or ahead by more than `max_gap` seconds, has jumped: what follows continues where the line
    ended. If picture and sound jump alike, they keep their distance from each other. It is a pause, not a jump, if
    another track goes on through it, or if as much time passed on the wall clock. A source that was opened again
    continues as many seconds after the end as passed on the wall clock, or by its own clock, if that went on.

    Args:
        max_gap (`float`, defaults to 10.0): By how many seconds times may jump ahead.
    """

    def __init__(self, max_gap: float = 10.0):
        self.max_gap = max_gap
        self.ends: dict[Hashable, float] = {}  # the second that each track has reached
        self._starts: dict[Hashable, float] = {}  # the second of what came last of each track
        self._seen: dict[Hashable, float] = {}  # when that was, on the wall clock
        self._offsets: dict[Hashable, float] = {}  # from the clock of each track to the line
        self._newest: float | None = None  # the offset found last
        self._base: float | None = None
        self._slack, self._is_live, self._is_new = MIN_SETBACK, True, True

    @property
    def end(self) -> float:
        """The second that the line has reached."""
        return max(self.ends.values(), default=0.0)

    def restart(
        self, base: float | None = None, *, is_live: bool = True, replay: float = 0.0, since: float | None = None
    ) -> None:
        """
        Tells that the source was opened, or opened again.

        Args:
            base (`float`, *optional*): The time at which the source says that it begins, on its own clock.
            is_live (`bool`, defaults to `True`): Whether time passes for the source while nothing is read from it.
            replay (`float`, defaults to 0.0): Of how many seconds before the end it may give a repetition.
            since (`float`, *optional*): When it had stalled, on the wall clock. `None`: when something came last.
        """
        self._base, self._is_live, self._slack = base, is_live, max(replay, MIN_SETBACK)
        self._offsets.clear()
        if since is not None:
            self._seen = {track: min(seen, since) for track, seen in self._seen.items()}
        self._is_new = True

    def place(self, track: Hashable, time: float, duration: float, now: float) -> Placed:
        """
        The second of a frame or of samples. Those of a track are given in the order of presentation; what lies before
        `ends[track]` repeats seconds that were there already.

        Args:
            track: The name of the track.
            time (`float`): On the clock of the source, in seconds.
            duration (`float`): In seconds; 0 if it is unknown.
            now (`float`): Seconds on the wall clock.
        """
        jump, is_first = 0.0, track not in self._offsets
        if is_first:
            self._offsets[track] = self._first_offset(track, time, now)
            self._newest, self._is_new = self._offsets[track], False
        second = time + self._offsets[track]
        start, end = self._starts.get(track, second), self.ends.get(track, second)
        is_far = second > end + self.max_gap and not self._is_pause(track, second, now)
        if not is_first and (second < start - MIN_SETBACK or is_far):
            offset = self._newest if self._fits(track, time) else self.end - time
            jump, second = self._offsets[track] - offset, time + offset
            self._offsets[track] = self._newest = offset
        self._starts[track], self._seen[track] = second, now
        self.ends[track] = max(self.ends.get(track, 0.0), second + duration)
        return Placed(second, jump)

    def _first_offset(self, track: Hashable, time: float, now: float) -> float:
        resume = self.end
        if self._is_live and self._seen:
            resume += max(0.0, now - max(self._seen.values()))
        if not self._is_new:
            return self._newest if self._fits(track, time) else resume - time
        if (
            self._newest is not None
            and -self._slack <= time + self._newest - self.end <= resume - self.end + _MAX_LEAD
        ):
            return self._newest
        begins = self._base is not None and 0 <= time - self._base <= self.max_gap
        return resume - (self._base if begins else time)

    def _fits(self, track: Hashable, time: float) -> bool:
        """Whether the offset that was found last, of another track, puts a time of this one where it may continue."""
        if self._newest is None or self._newest == self._offsets.get(track):
            return False
        gap = time + self._newest - self.ends.get(track, self.end)
        return -self.max_gap <= gap <= self.max_gap

    def _is_pause(self, track: Hashable, second: float, now: float) -> bool:
        others = [end for other, end in self.ends.items() if other != track and other in self._offsets]
        if any(end > second - self.max_gap for end in others):
            return True
        return self._is_live and now - self._seen[track] > second - self.ends[track] - self.max_gap


class Sampler:
    """
    Chooses the frames of a stream that are looked at: the first one in each `1 / fps` seconds of the line.

    Args:
        fps (`float`): Frames a second, at most.
    """

    def __init__(self, fps: float):
        self.fps, self._last = fps, -1

    def wants(self, second: float) -> bool:
        """Whether to keep the frame at this second. Seconds that go back are never wanted."""
        place = math.floor(second * self.fps + _ROUNDING)
        if place <= self._last:
            return False
        self._last = place
        return True


def thin(num_frames: int) -> range:
    """
    The frames that stay, of so many that wait in the order of time, when there is no room for more: the newest one,
    and every second one before it. What has waited longest has been thinned most often.
    """
    return range((num_frames + 1) % 2, num_frames, 2)


def fit_sound(clock: float, second: float) -> tuple[float, float]:
    """
    Seconds of silence before samples that start at `second`, and seconds by which they overlap what ended at `clock`;
    one of them is 0, and both are if the samples are early or late by at most `MIN_SETBACK`.
    """
    gap = second - clock
    if abs(gap) <= MIN_SETBACK:
        return 0.0, 0.0
    return max(gap, 0.0), max(-gap, 0.0)


def complete_until(picture: float, sound: float | None, max_lag: float) -> float:
    """
    The second up to which nothing more is awaited: what both tracks have reached, or all but the last `max_lag`
    seconds of what one has. `sound`: `None` if there is no such track.
    """
    if sound is None:
        return picture
    return max(min(picture, sound), max(picture, sound) - max_lag)
