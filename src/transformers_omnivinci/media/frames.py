"""Decodes sampled frames with PyAV, on all cores."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from .containers import MIN_SKIP, demux, demux_from, find_stream, read_only
from .sources import Media
from .timeline import Timeline

# Decoders that can leave out, packet by packet, frames which no other frame refers to.
_DROPS_NONREF = {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vp8"}
# From this many skipped frames on, seeking beats reading and dropping their packets.
_MIN_SEEK = 100
# Frames that a further decoder has to decode at least, to be worth opening the file again.
_MIN_SHARE = 60


class FrameSink:
    """Makes decoded pictures the rows of one tensor, in worker threads while decoders go on."""

    def __init__(self, num_rows: int, transform, size: tuple[int, int], num_threads: int):
        self.transform, self.size = transform, size
        self.frames: torch.Tensor | None = None
        self.is_stored = np.zeros(num_rows, dtype=bool)
        self.error: BaseException | None = None
        num_workers = min(8, num_threads)
        self.executor = ThreadPoolExecutor(num_workers, "frames")
        self.slots = threading.BoundedSemaphore(2 * num_workers)
        self.lock, self.local = threading.Lock(), threading.local()

    def __enter__(self) -> "FrameSink":
        return self

    def __exit__(self, exception_type, *_) -> None:
        self.executor.shutdown(cancel_futures=exception_type is not None)
        if exception_type is None and self.error is not None:
            raise self.error

    def put(self, row: int, picture: av.VideoFrame | torch.Tensor) -> None:
        """Hands over a picture; waits if the workers are behind, so that pictures do not pile up."""
        if self.error is not None:
            raise self.error
        self.slots.acquire()
        self.executor.submit(self._work, row, picture)

    def _work(self, row: int, picture: av.VideoFrame | torch.Tensor) -> None:
        try:
            self._store(row, self._to_tensor(picture) if isinstance(picture, av.VideoFrame) else picture)
        except av.FFmpegError:
            pass  # what cannot be converted counts as not decoded
        except Exception as error:
            self.error = error
        finally:
            self.slots.release()

    def _store(self, row: int, picture: torch.Tensor) -> None:
        if self.transform is not None:
            picture = torch.as_tensor(self.transform(picture))
        with self.lock:
            if self.frames is None:
                is_channels_last = picture.ndim == 3 and picture.stride(0) == 1
                layout = torch.channels_last if is_channels_last else torch.contiguous_format
                shape = (len(self.is_stored), *picture.shape)
                self.frames = torch.empty(shape, dtype=picture.dtype, device=picture.device, memory_format=layout)
        if picture.shape != self.frames.shape[1:]:
            shapes = f"{tuple(self.frames.shape[1:])} and {tuple(picture.shape)}"
            raise ValueError(f"`transform` made tensors of shapes {shapes} of two frames: one shape is accepted.")
        self.frames[row].copy_(picture)
        self.is_stored[row] = True

    def _to_tensor(self, frame: av.VideoFrame) -> torch.Tensor:
        """Upright RGB (3, height, width) of the size of the clip, whose resolution may change midway."""
        if not hasattr(self.local, "reformatter"):
            self.local.reformatter = VideoReformatter()
        turns = round(frame.rotation / 90) % 4
        with self.lock:
            if self.frames is None and turns % 2 and (frame.height, frame.width) == self.size:
                self.size = self.size[::-1]  # the container did not tell of this turn
        height, width = self.size[::-1] if turns % 2 else self.size
        # At an unchanged size this is the conversion that OpenCV and decord use too, to the last bit.
        rgb = self.local.reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation="BICUBIC", threads=1
        )
        plane = rgb.planes[0]
        lines = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        picture = torch.from_numpy(lines[:, : 3 * width].reshape(height, width, 3))
        return (picture.rot90(turns) if turns else picture).permute(2, 0, 1)


def decode_pyav(media: Media, timeline: Timeline, frames: np.ndarray, sink: FrameSink, num_threads: int) -> None:
    """
    Decodes the frames of the given numbers into rows, in this order.

    Several decoders that start at different key frames keep all cores busy; the threads of one mostly wait for each
    other. They take what they decode out of `rows`, which is keyed by presentation times, or by numbers if need be.
    """
    rows = {key: row for row, key in enumerate((frames if timeline.keys is None else timeline.pts[frames]).tolist())}
    shares = _share(timeline, frames, num_threads)
    num_threads = max(1, num_threads // len(shares))
    with ThreadPoolExecutor(len(shares), "video") as executor:
        decoding = [
            executor.submit(_decode_runs, media, timeline, _plan(timeline, share), rows, sink, num_threads)
            for share in shares
        ]
        try:
            for share in decoding:
                share.result()
        except BaseException as error:
            sink.error = sink.error or error
            raise
    if rows and timeline.keys is not None:
        # Some streams need more than a key frame to begin with (gradual refresh), or mark frames wrongly.
        _decode_runs(media, timeline, [_Run(None, [], False)], rows, sink, num_threads * len(shares))


class _Run(NamedTuple):
    """Frames decoded in one go from a key frame (in ticks) on; `seek`: what comes before is not read either."""

    key: int | None
    frames: list[int]
    seek: bool


def _find_keys(timeline: Timeline, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The key frame that decoding each frame begins with, the last one shown before it: its ticks and its number."""
    nearest = np.searchsorted(timeline.keys, timeline.pts[frames], "right") - 1
    keys = timeline.keys[np.maximum(nearest, 0)]
    return keys, np.searchsorted(timeline.pts, keys)


def _share(timeline: Timeline, frames: np.ndarray, num_shares: int) -> list[np.ndarray]:
    """Splits frames where a key frame comes between them, so that each share takes about as long to decode."""
    if not timeline.is_seekable:
        return [frames]
    keys, numbers = _find_keys(timeline, frames)
    num_decoded = np.cumsum(frames - np.maximum(numbers - 1, np.concatenate([[-1], frames[:-1]])))
    starts = np.flatnonzero(np.diff(keys)) + 1
    num_shares = min(num_shares, len(starts) + 1, int(num_decoded[-1]) // _MIN_SHARE + 1)
    if num_shares == 1:
        return [frames]
    ideal = num_decoded[-1] * np.arange(1, num_shares)[:, None] / num_shares
    return np.split(frames, np.unique(starts[np.abs(num_decoded[starts - 1] - ideal).argmin(axis=1)]))


def _plan(timeline: Timeline, frames: np.ndarray) -> list[_Run]:
    """Groups frames so that nothing is decoded between the last of one run and the key frame of the next."""
    if timeline.keys is None:
        return [_Run(None, frames.tolist(), False)]
    runs: list[_Run] = []
    for frame, key, number in zip(frames.tolist(), *(column.tolist() for column in _find_keys(timeline, frames))):
        num_skipped = number - (runs[-1].frames[-1] if runs else 0)
        if runs and num_skipped < MIN_SKIP:
            runs[-1].frames.append(frame)
        else:
            runs.append(_Run(key, [frame], timeline.is_seekable and num_skipped >= _MIN_SEEK))
    return runs


def _decode_runs(media: Media, timeline, plan: list[_Run], rows: dict[int, int], sink, num_threads: int) -> None:
    """Feeds a decoder the packets that the frames of a plan need, and hands over all frames that are in `rows`."""
    with media.container() as container:
        video = find_stream(media, container, "video")
        read_only(container, video)
        codec = video.codec_context
        codec.thread_type, codec.thread_count = "AUTO", num_threads
        can_drop = codec.name in _DROPS_NONREF and plan[0].key is not None
        num_decoded = 0

        def decode(packet: av.Packet | None) -> None:
            nonlocal num_decoded
            with suppress(av.FFmpegError):
                for frame in codec.decode(packet):
                    row = rows.pop(num_decoded if timeline.keys is None else frame.pts, None)
                    num_decoded += 1
                    if row is not None:
                        sink.put(row, frame)

        packets = demux(container, video)
        for key, frames, seek in plan:
            if seek:
                packets = demux_from(container, video, key)
            # The packet of a frame follows those of all frames that it refers to.
            missing = set() if key is None else set(timeline.pts[frames].tolist())
            is_fed = key is None
            for packet in packets:
                is_fed = is_fed or packet.pts == key
                if not is_fed:
                    continue
                if can_drop:
                    codec.skip_frame = "DEFAULT" if packet.pts in rows else "NONREF"
                decode(packet)
                missing.discard(packet.pts)
                if not rows or sink.error or key is not None and not missing:
                    break
            decode(None)
            codec.flush_buffers()
