"""Live sources: a thread reads and decodes one while what was read is taken, chunk by chunk."""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from transformers.utils import logging

from ..containers import find_stream, orientation, read_only
from ..frames import to_picture
from ..packets import has_samples, max_gap_of
from ..sounds import MonoResampler
from .buffer import MAX_LAG_OF_FILES, LiveBuffer, LiveChunk, LiveEvent
from .clock import LiveClock, Sampler, fit_sound
from .inputs import Closed, LiveInput, Watch, find_input

logger = logging.get_logger(__name__)

SAMPLING_RATE = 16_000
"""The sampling rate of the sound of live sources, in Hz."""

_MAX_BACKOFF = 10.0
# Streams whose times are made up by FFmpeg from a rate that nobody has told: they are taken to come as they are shown.
_WITHOUT_TIMES = {"mpjpeg"}


class LiveSource:
    """
    Reads a source of video that goes on while it is looked at: gives its frames and sound in chunks that follow each
    other without overlap, in the order of time, until it ends.

        with LiveSource("rtsp://camera.local/stream", fps=2) as source:
            for chunk in source:
                session.feed(*chunk.media)

    A thread reads and decodes; a chunk holds all that has come since the last one. If they are taken more slowly than
    the source goes on, frames that wait are thinned: whenever more than `buffer_seconds * fps` wait, every second one
    of them is dropped, so that older ones become sparser. Sound is kept, up to 10 minutes of it. Whatever happens to a
    source is told: in `events` of chunks, to `on_event`, and as a warning of transformers' logger. See [`LiveEvent`].

    Args:
        source (`str`, `Path` or binary file):
            - an address: `rtsp://`, `http://` and `https://` (HLS, too), `rtmp://`, `srt://`, `udp://`;
            - a camera: `camera:0`, `/dev/video0`, or `camera:` and what the system calls it;
            - a file that may still grow: MPEG-TS, fragmented MP4, Matroska and others that can be read from start to
              end. It is complete when it has not grown for `timeout` seconds. Also a playlist of HLS;
            - a pipe: `-` for the standard input, a binary file object, or the path of a named pipe;
            - with `format`, anything that FFmpeg opens by the name of a format, for instance `:0.0` of `x11grab`.
        fps (`float`, defaults to 2.0): Frames kept in each second, at most.
        chunk_seconds (`float`, defaults to 1.0): Chunks end at multiples of this.
        buffer_seconds (`float`, defaults to 30.0): Seconds that may wait to be taken.
        when_full (`str`, *optional*):
            What happens then: `"thin"`, frames are dropped as described, or `"wait"`, the source is not read on.
            and each chunk has `chunk_seconds`. `None`: `"wait"` for files and recordings, whose end is known, and
            `"thin"` for others.
        timeout (`float`, defaults to 10.0):
            Seconds without data after which a stream has stalled, and is opened again, and a growing file is complete;
            also those within which the first frame must come.
        reconnects (`int`, defaults to 5):
            How often in a row to try to open a source again that stalled or broke off; a pipe is waited for as many
            times `timeout` instead.
        backoff (`float`, defaults to 0.5):
            Seconds before the first try; twice as many before each further one, up to 10.
        format (`str`, *optional*): FFmpeg's name of the format or device. `None`: found by content.
        options (`dict`, *optional*): FFmpeg's options of the format, such as `{"video_size": "1280x720"}` of a camera.
        on_event (`Callable`, *optional*): Called with each [`LiveEvent`], in the thread that takes chunks.

    Raises:
        ValueError, TypeError: an argument is not accepted, or the source is no video.
        OSError: there is no such source, it cannot be opened or has stalled, or gives no frame within `timeout`
            seconds (`TimeoutError`). Raised on entering the context or, later on, after all that was read.
    """

    def __init__(
        self,
        source,
        *,
        fps: float = 2.0,
        chunk_seconds: float = 1.0,
        buffer_seconds: float = 30.0,
        when_full: str | None = None,
        timeout: float = 10.0,
        reconnects: int = 5,
        backoff: float = 0.5,
        format: str | None = None,
        options: dict[str, str] | None = None,
        on_event: Callable[[LiveEvent], None] | None = None,
    ):
        positive = {"fps": fps, "chunk_seconds": chunk_seconds, "buffer_seconds": buffer_seconds, "timeout": timeout}
        for name, value in positive.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"`{name}={value!r}` is not accepted: it must be a positive number.")
        if buffer_seconds < chunk_seconds:
            raise ValueError(
                f"`buffer_seconds={buffer_seconds}` is less than `chunk_seconds={chunk_seconds}`: at least one chunk "
                "must fit."
            )
        if when_full not in (None, "thin", "wait"):
            raise ValueError(f'`when_full={when_full!r}` is not accepted: "thin", "wait" or `None` is.')
        if isinstance(reconnects, bool) or not isinstance(reconnects, int) or reconnects < 0 or not backoff >= 0:
            raise ValueError(
                f"`reconnects={reconnects!r}` and `backoff={backoff!r}` are not accepted: numbers from 0 on are."
            )
        self.on_event = on_event
        self._closed = threading.Event()
        self._buffer = LiveBuffer(
            max(2, math.ceil(buffer_seconds * fps)), chunk_seconds, buffer_seconds, SAMPLING_RATE, _log
        )
        self._reader = _Reader(self._buffer, self._closed, fps, when_full, reconnects, backoff)
        watch = Watch(timeout, timeout * (1 + reconnects), self._closed.is_set, self._reader.tell)
        self._input = find_input(source, watch, format, options)
        self._thread: threading.Thread | None = None
        self._untold: list[LiveEvent] = []

    @property
    def name(self) -> str:
        """What messages call the source."""
        return str(self._input)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of all frames in pixels; `None` before the first one has come."""
        return self._buffer.size

    @property
    def frame_rate(self) -> float | None:
        """Frames per second that have come, kept or not, on average; `None` before two have come."""
        return self._buffer.frame_rate

    @property
    def has_sound(self) -> bool | None:
        """Whether the source has a track of sound; `None` before that is known."""
        return self._buffer.has_sound

    def open(self) -> "LiveSource":
        """
        Starts to read, and waits for the first frame. A source is read once: it cannot be opened again when closed.

        Raises:
            ValueError, OSError: see [`LiveSource`].
        """
        if self._closed.is_set():
            raise ValueError(f"The live source {self} is closed.")
        if self._thread is None:
            self._thread = threading.Thread(target=self._reader.run, args=(self._input,), name="live", daemon=True)
            self._thread.start()
            with self._buffer.changed:
                self._buffer.changed.wait_for(lambda: self.size is not None or self._buffer.is_over)
        if self.size is None and self._buffer.error is not None:
            self.close()
            raise self._buffer.error
        return self

    def close(self) -> None:
        """Ends reading and closes the source; waits for a read that is under way, at most `timeout` seconds."""
        self._closed.set()
        self._buffer.close()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> "LiveSource":
        return self.open()

    def __exit__(self, *_) -> None:
        self.close()

    def __str__(self) -> str:
        return self.name

    def __iter__(self) -> Iterator[LiveChunk]:
        is_ours = self._thread is None
        self.open()
        try:
            while True:
                events = self._buffer.take_events()
                if self._closed.is_set():
                    return
                self._hand_over(events)
                chunk = self._buffer.take()
                if chunk is None:
                    if self._buffer.is_over and not self._buffer.events:
                        break
                    continue
                self._hand_over(chunk.events)
                is_empty = not len(chunk.frames) and (chunk.samples is None or not len(chunk.samples))
                if not is_empty:
                    chunk.events, self._untold = self._untold, []
                    yield chunk
            if self._buffer.error is not None:
                raise self._buffer.error
        finally:
            # In a context, another loop can go on where this one was left.
            if is_ours:
                self.close()

    def _hand_over(self, events: list[LiveEvent]) -> None:
        self._untold += events
        if self.on_event is not None:
            for event in events:
                self.on_event(event)


def _log(event: LiveEvent) -> None:
    (logger.info if event.kind == "ended" else logger.warning)(event.message)


class _Reader:
    """Reads a source in a thread of its own, and opens it again when it breaks off."""

    def __init__(
        self, buffer: LiveBuffer, closed: threading.Event, fps: float, when_full: str | None, reconnects: int, backoff
    ):
        self.buffer, self.closed, self.when_full = buffer, closed, when_full
        self.reconnects, self.backoff = reconnects, backoff
        self.clock, self.sampler = LiveClock(), Sampler(fps)
        self.reformatter = VideoReformatter()
        self.resampler = MonoResampler(SAMPLING_RATE, flow=True)
        self.heard = 0.0  # the second at which samples follow those before them
        self.skipped = 0  # samples to leave out, since there was sound or silence at their seconds already
        self.shape: tuple[int, int] | None = None  # of upright frames as they come
        self.num_damaged = 0
        self.is_first = True
        self.stalled_since: float | None = None  # on the wall clock
        self.num_tries = 0  # of opening the source again since the last frame

    def tell(self, kind: str, message: str) -> None:
        """Tells of an event now."""
        self.buffer.add_event(LiveEvent(kind, self.clock.end, message))

    def run(self, source: LiveInput) -> None:
        """Reads a source until it ends, cannot be opened again or is closed."""
        error = None
        try:
            self.source = source
            container = source.open()
            while container is not None:
                fault = self._read_container(container)
                container = None if self.closed.is_set() else self._reopen(fault)
        except Closed:
            pass
        except Exception as caught:
            error = caught
        finally:
            with suppress(Exception):
                source.close()
            self.buffer.finish(error)

    def _read_container(self, container) -> Exception | None:
        """Reads up to the end of a source, or to where it breaks off; returns the fault, or `None` at the end."""
        with container:
            video = find_stream(self.source, container, "video")
            audio = find_stream(self.source, container, "audio", is_optional=True)
            self._begin(container, audio)
            fault = None
            try:
                for packet in self._packets(container, [video] if audio is None else [video, audio]):
                    self._decode(packet, packet.stream)
            except TimeoutError as error:
                fault = error
            except av.FFmpegError as error:
                fault = None if self.source.has_ended(container, error) else error
            # What decoders and the resampler still hold.
            self._decode(None, video)
            if audio is not None:
                self._decode(None, audio)
                self._hear(self.resampler.flush())
            self._tell_damaged()
        if self.buffer.size is None and not self.closed.is_set():
            if isinstance(fault, TimeoutError):
                raise fault
            reason = "it ended before the first one" if fault is None else _reason(fault)
            raise ValueError(f"{self.source} gives no frame that can be decoded: {reason}.")
        return fault

    def _begin(self, container, audio) -> None:
        is_bounded = self.source.is_bounded(container)
        self.can_reopen = self.source.can_reopen and not is_bounded
        # What is not bounded may be closed by the server when it has ended.
        self.may_have_ended = self.source.replay(container) > 0
        if self.is_first:
            waits = self.when_full == "wait" or (self.when_full is None and is_bounded)
            with self.buffer.changed:
                self.buffer.waits = waits
                self.buffer.max_lag = MAX_LAG_OF_FILES if waits else self.buffer.max_lag
                self.buffer.has_sound = audio is not None
            self.clock.max_gap = self.clock.max_gap if self.source.is_live else max_gap_of(container)
        elif (audio is not None) != self.buffer.has_sound:
            kind, change = ("silence", "no sound any more") if audio is None else ("cut", "sound now: it is left out")
            self.tell(kind, f"After {self.clock.end:.1f} s, {self.source} has {change}.")
        self.has_times = container.format.name not in _WITHOUT_TIMES
        base = None if container.start_time is None else container.start_time / av.time_base
        options = {"is_live": self.source.is_live, "replay": self.source.replay(container)}
        self.clock.restart(base, since=self.stalled_since, **options)
        self.is_replayed, self.arrived, self.stalled_since = False, time.monotonic(), None

    def _packets(self, container, streams) -> Iterator[av.Packet]:
        """The packets of a container; a TimeoutError if none comes in time, or no frame is decoded in time."""
        read_only(container, *streams)
        timeout, since, waited = self.source.watch.timeout, time.monotonic(), 0.0
        while True:
            try:
                for packet in container.demux(*streams):
                    if self.closed.is_set():
                        return
                    now = time.monotonic()
                    waited += now - since  # but not what decoding takes
                    self.arrived = now
                    if now - since > 0.9 * timeout:
                        self.stalled_since = since  # what some demuxers still give had come before
                    if packet.size:
                        yield packet
                    if self.buffer.size is None and waited > timeout:
                        raise TimeoutError(f"{self.source} has given no frame for {waited:.1f} s.")
                    since = time.monotonic()
                return
            except IndexError:
                return  # of PyAV, at the end, if a stream has appeared midway
            except av.error.BlockingIOError:  # of cameras on macOS, until there is a frame
                if time.monotonic() - since > timeout:
                    raise
                self.source.watch.pause()
            except av.FFmpegError as error:
                seconds = time.monotonic() - since
                if seconds > 0.9 * timeout:
                    self.stalled_since = since
                if isinstance(error, av.error.ExitError) or seconds > 0.9 * timeout:
                    # Some of it may have passed when the source was opened.
                    seconds = max(seconds, timeout)
                    raise TimeoutError(f"{self.source} has stalled: nothing came for {seconds:.1f} s.") from error
                raise

    def _decode(self, packet: av.Packet | None, stream) -> None:
        frames = []
        try:
            frames = stream.decode(packet)
        except (av.FFmpegError, ValueError):
            self.num_damaged += packet is not None
        for frame in frames:
            now = self.arrived  # of what the decoder holds back, too
            time_base = frame.time_base or stream.time_base
            seconds = now if frame.pts is None or not self.has_times else float(frame.pts * time_base)
            if stream.type == "audio":
                if self.buffer.has_sound and has_samples(frame):
                    self._take_sound(frame, seconds, now)
            else:
                self._take_frame(frame, stream, seconds, now)

    def _place(self, track: str, seconds: float, duration: float, now: float) -> float:
        before = self.clock.end
        second, jump = self.clock.place(track, seconds, duration, now)
        if jump:
            way, names = "ahead" if jump > 0 else "back", {"video": "picture", "audio": "sound"}
            self.tell(
                "jumped",
                f"The clock of {self.source} jumps {way} by {abs(jump):.1f} s in its {names[track]}: it goes on at "
                f"{second:.1f} s.",
            )
        if second < before - 1.0 and not jump and track == "video" and not self.is_replayed and not self.is_first:
            self.is_replayed = True
            seconds = f"{before - second:.1f} s before {before:.1f} s"
            self.tell("cut", f"{self.source} repeats {seconds}, which are left out.")
        return second

    def _take_frame(self, frame: av.VideoFrame, stream, seconds: float, now: float) -> None:
        is_turned, *_ = orientation(frame)
        shape = (frame.width, frame.height) if is_turned else (frame.height, frame.width)
        duration = float((frame.duration or 0) * (frame.time_base or stream.time_base))
        second = self._place("video", seconds, duration, now)
        if self.shape is not None and shape != self.shape:
            sizes = f"from {self.shape[1]} x {self.shape[0]} to {shape[1]} x {shape[0]} pixels"
            first = f"{self.buffer.size[1]} x {self.buffer.size[0]}"
            self.tell("resized", f"The frames of {self.source} change {sizes} at {second:.1f} s: scaled to {first}.")
        self.shape = shape
        self._tell_damaged()
        if second >= 0 and self.sampler.wants(second):
            size = self.buffer.size or shape
            try:
                picture = to_picture(self.reformatter, frame, size, stream.codec_context.color_trc).numpy()
            except av.FFmpegError:
                self.num_damaged += 1
                return
            self.is_first, self.num_tries = False, 0
            with self.buffer.changed:
                self.buffer.size = size
            self.buffer.add_frame(second, np.ascontiguousarray(picture))
        else:
            self.buffer.reach(second)
        self._await_sound()

    def _take_sound(self, frame: av.AudioFrame, seconds: float, now: float) -> None:
        duration = frame.samples / frame.sample_rate
        second = self._place("audio", seconds, duration, now)
        silence, overlap = fit_sound(self.heard, second)
        if silence or overlap:
            self._hear(self.resampler.flush())
            num_missing = round((silence - overlap) * SAMPLING_RATE) - self.skipped
            self._fill(num_missing, second)
            if num_missing < -self.skipped:
                message = f"{overlap:.1f} s of sound from {second:.1f} s on overlap what came before: left out."
                self.tell("cut", message)
            self.skipped = max(0, -num_missing)
            self.heard = second
        self.heard += duration
        self._hear(self.resampler.push(frame))

    def _fill(self, num_samples: int, second: float) -> None:
        """Puts silence where sound is missing before a second."""
        if num_samples > 0:
            seconds = num_samples / SAMPLING_RATE
            missing = f"{seconds:.1f} s of sound of {self.source} are missing before {second:.1f} s"
            self.tell("silence", f"{missing}: filled with silence.")
            self.buffer.add_silence(num_samples)

    def _hear(self, parts: list[np.ndarray]) -> None:
        for samples in parts:
            num_skipped = min(self.skipped, len(samples))
            self.skipped -= num_skipped
            self.buffer.add_sound(np.clip(samples[num_skipped:], -1.0, 1.0))

    def _await_sound(self) -> None:
        """Gives sound up that is too late for the picture."""
        until = self.buffer.picture_end - self.buffer.max_lag
        if self.buffer.has_sound and until - self.buffer.sound_end > self.buffer.chunk_seconds:
            self._hear(self.resampler.flush())
            num_samples = round((until - self.buffer.sound_end) * SAMPLING_RATE)
            self._fill(num_samples, until)
            self.skipped += max(0, num_samples)  # should it come yet

    def _tell_damaged(self) -> None:
        if self.num_damaged:
            message = f"{self.num_damaged} packets of {self.source} before {self.clock.end:.1f} s cannot be decoded."
            self.num_damaged = 0
            self.tell("damaged", message)

    def _reopen(self, fault: Exception | None):
        """A new container, or `None` if the source has ended. Raises the fault if it cannot be opened again."""
        end = self.clock.end
        if not self.can_reopen:
            if fault is not None:
                raise fault if not isinstance(fault, av.FFmpegError) else OSError(_broken(self.source, end, fault))
            self.tell("ended", f"{self.source} ended at {end:.1f} s{self.source.end_reason}.")
            return None
        # A playlist that was followed to its end tells so when it is read again.
        if fault is None and self.may_have_ended and self._has_end():
            self.tell("ended", f"{self.source} ended at {end:.1f} s.")
            return None
        if isinstance(fault, TimeoutError):
            self.tell("stalled", f"{fault} It is opened again.")
        else:
            self.stalled_since = None
            self.tell("broken", f"{_broken(self.source, end, fault)} It is opened again.")
        error = None
        while self.num_tries < self.reconnects:
            self.closed.wait(min(self.backoff * 2**self.num_tries, _MAX_BACKOFF))
            if self.closed.is_set():
                return None
            self.num_tries += 1
            try:
                container = self.source.open()
            except (OSError, ValueError) as caught:
                error = caught
                continue
            self.tell("connected", f"{self.source} was opened again at try {self.num_tries} of {self.reconnects}.")
            return container
        message = f"{self.source} ended at {end:.1f} s"
        if self.reconnects:
            reason = "it gave no frame" if error is None else str(error)
            message += f" and could not be opened again in {self.reconnects} tries: {reason}"
        if fault is None:
            self.tell("ended", message.removesuffix(".") + ".")
            return None
        kind = TimeoutError if isinstance(fault, TimeoutError) else ConnectionError
        raise kind(message.replace("ended", "broke off", 1).removesuffix(".") + ".") from fault

    def _has_end(self) -> bool:
        with suppress(OSError, ValueError), self.source.open() as container:
            return self.source.is_bounded(container)
        return False


def _broken(source: LiveInput, second: float, fault: Exception | None) -> str:
    return f"{source} broke off at {second:.1f} s: {'it ended' if fault is None else _reason(fault)}."


def _reason(fault: Exception) -> str:
    return getattr(fault, "strerror", None) or os.strerror(getattr(fault, "errno", 0) or 5)
