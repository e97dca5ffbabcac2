"""Decodes sampled frames with PyAV on all cores."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from .containers import MIN_SKIP, find_stream, orientation, read_only, to_rgb
from .levels import HLG, PQ, tone_map
from .sources import Media
from .timeline import Timeline

# Decoders that can skip, packet by packet, frames that no other frame refers to.
_DROPS_NONREF = {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vp8"}
# From this many skipped frames on, seeking is faster than reading and dropping their packets.
_MIN_SEEK = 100
# Opening the file for another decoder pays off from this many frames on.
_MIN_SHARE = 60


class FrameSink:
    """
    Stores decoded pictures as the rows of one tensor, in worker threads while decoders go on. `size`: height and width
    of upright pictures in pixels; `transform`: applied to each, see [`load_video`].
    """

    def __init__(self, num_rows: int, transform, size: tuple[int, int], num_threads: int):
        self.transform, self.size = transform, size
        self.frames: torch.Tensor | None = None
        self.shape: torch.Size | None = None  # of all pictures, once there is one
        self.is_stored = np.zeros(num_rows, dtype=bool)
        self.error: BaseException | None = None
        self.transfer: int | None = None  # the transfer characteristic of the pictures, by its number in H.273
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
        """
        Hands over a picture, a tensor (3, height, width) or a frame of PyAV, for a row. Waits if the workers are
        behind. An error in a worker is raised by the next call, or on leaving.
        """
        if self.error is not None:
            raise self.error
        self.slots.acquire()
        self.executor.submit(self._work, row, picture)

    def _work(self, row: int, picture: av.VideoFrame | torch.Tensor) -> None:
        try:
            self._store(row, self._to_tensor(picture) if isinstance(picture, av.VideoFrame) else picture)
        except av.FFmpegError:
            pass  # a picture that cannot be converted counts as one that cannot be decoded
        except Exception as error:
            self.error = error
        finally:
            self.slots.release()

    def _store(self, row: int, picture: torch.Tensor) -> None:
        if self.transform is not None:
            picture = torch.as_tensor(self.transform(picture))
        with self.lock:
            self.shape = self.shape or picture.shape
        if picture.shape != self.shape:
            shapes = f"{tuple(self.shape)} and {tuple(picture.shape)}"
            raise ValueError(f"`transform` made tensors of shapes {shapes} of two frames: one shape is accepted.")
        self._keep(row, picture)

    def _keep(self, row: int, picture: torch.Tensor) -> None:
        with self.lock:
            if self.frames is None:
                self.frames = empty_rows(len(self.is_stored), picture)
        self.frames[row].copy_(picture)
        self.is_stored[row] = True

    def _to_tensor(self, frame: av.VideoFrame) -> torch.Tensor:
        """Upright RGB (3, height, width), scaled to the size of the clip, whose resolution may change midway."""
        if not hasattr(self.local, "reformatter"):
            self.local.reformatter = VideoReformatter()
        is_transposed, *_ = orientation(frame)
        with self.lock:
            if self.shape is None and is_transposed and (frame.height, frame.width) == self.size:
                self.size = self.size[::-1]  # the container did not announce this rotation
        return to_picture(self.local.reformatter, frame, self.size, self.transfer).permute(2, 0, 1)


def empty_rows(num_rows: int, picture: torch.Tensor) -> torch.Tensor:
    """Memory for as many pictures like this one, (num_rows, ...), with the channels where it has them."""
    is_channels_last = picture.ndim == 3 and picture.stride(0) == 1
    layout = torch.channels_last if is_channels_last else torch.contiguous_format
    shape = (num_rows, *picture.shape)
    return torch.empty(shape, dtype=picture.dtype, device=picture.device, memory_format=layout)


def to_picture(
    reformatter: VideoReformatter, frame: av.VideoFrame, size: tuple[int, int], transfer: int | None
) -> torch.Tensor:
    """
    A decoded frame as uint8 RGB of SDR, upright and scaled to `size`: (height, width, 3). `transfer`: the transfer
    characteristic of the stream, by its number in H.273.
    """
    is_transposed, is_flipped, is_mirrored = orientation(frame)
    height, width = size[::-1] if is_transposed else size
    is_hdr = transfer in (PQ, HLG)
    # Where the size stays the same, OpenCV and decord do this very conversion too, bit for bit.
    rgb = to_rgb(reformatter, frame, width, height, "gbrp16le" if is_hdr else "rgb24").to_ndarray()
    picture = torch.from_numpy(tone_map(rgb, transfer) if is_hdr else rgb)
    if is_transposed:
        picture = picture.transpose(0, 1)
    turned = [axis for axis, is_turned in enumerate((is_flipped, is_mirrored)) if is_turned]
    return picture.flip(turned) if turned else picture


def decode_pyav(media: Media, timeline: Timeline, frames: np.ndarray, sink: FrameSink, num_threads: int) -> None:
    """
    Decodes the frames with these numbers, ascending and none of them twice, into the rows of a sink, in that order.
    Frames that cannot be decoded leave their rows empty.

    Several decoders that start at different key frames keep all cores busy; the threads of one mostly wait for each
    other. `num_threads` are those of all decoders together.
    """
    # Decoders take what they have decoded out of this. Its keys are presentation times, or else numbers of frames.
    names = frames if timeline.keys is None else timeline.pts[frames]
    rows = {name: row for row, name in enumerate(names.tolist())}
    shares = _share(timeline, frames, num_threads)
    num_threads_each = max(1, num_threads // len(shares))
    with ThreadPoolExecutor(len(shares), "video") as executor:
        decoding = [
            executor.submit(_decode_runs, media, timeline, _plan(timeline, share), rows, sink, num_threads_each)
            for share in shares
        ]
        try:
            are_sure = [share.result() for share in decoding]
        except BaseException as error:
            sink.error = sink.error or error
            raise
    if not all(are_sure) or (rows and timeline.is_reordered):
        # Only their order, counted from the start, tells which frame is which.
        rows = {number: row for row, number in enumerate(frames.tolist())}
        _decode_runs(media, replace(timeline, keys=None), [_Run()], rows, sink, num_threads)
    elif rows and timeline.keys is not None:
        # Some streams need more than a key frame to start from (gradual refresh), or mark frames wrongly.
        _decode_runs(media, timeline, [_Run()], rows, sink, num_threads)


class _Run(NamedTuple):
    """Frames decoded in one go, from a key frame or else the start of the file on."""

    key: int | None = None  # in ticks
    frames: Sequence[int] = ()
    seek: bool = False  # whether packets before the key frame are not even read


def _find_keys(timeline: Timeline, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The key frame from which each frame is decoded, the last one shown before it: its ticks and its number."""
    nearest = np.searchsorted(timeline.keys, timeline.pts[frames], "right") - 1
    keys = timeline.keys[np.maximum(nearest, 0)]
    return keys, np.searchsorted(timeline.pts, keys)


def _share(timeline: Timeline, frames: np.ndarray, num_shares: int) -> list[np.ndarray]:
    """Splits frames, at key frames between them, into shares that take about as long to decode as each other."""
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
        return [_Run(None, frames.tolist())]
    runs: list[_Run] = []
    for frame, key, number in zip(frames.tolist(), *(column.tolist() for column in _find_keys(timeline, frames))):
        num_skipped = number - (runs[-1].frames[-1] if runs else 0)
        if runs and num_skipped < MIN_SKIP:
            runs[-1].frames.append(frame)
        else:
            runs.append(_Run(key, [frame], timeline.is_seekable and num_skipped >= _MIN_SEEK))
    return runs


def _decode_runs(media: Media, timeline, plan: list[_Run], rows: dict[int, int], sink, num_threads: int) -> bool:
    """
    Feeds a decoder the packets that the frames of a plan need, and hands all frames named in `rows` to the sink.
    `False` if packets do not tell in which order frames are shown, and these may not be the wanted ones.
    """
    is_counted, is_sure = timeline.keys is None or timeline.is_reordered, True
    with media.container() as container:
        video = find_stream(media, container, "video")
        read_only(container, video)
        codec = video.codec_context
        codec.thread_type, codec.thread_count = "AUTO", num_threads
        can_drop = codec.name in _DROPS_NONREF and plan[0].key is not None and timeline.ticks is None
        number, missing, shown, is_cut = 0, set(), [], False

        def decode(packet: av.Packet | None) -> None:
            nonlocal number
            with suppress(av.FFmpegError):
                for frame in codec.decode(packet):
                    name = number if is_counted else frame.pts
                    number += 1
                    shown.append(frame.pts)
                    # What the decoder still holds of a run that was cut off need not come in order.
                    row = None if is_counted and is_cut else rows.pop(name, None)
                    if is_counted:
                        missing.discard(name)
                    if row is not None:
                        sink.transfer = codec.color_trc
                        sink.put(row, frame)

        packets = timeline.packets(media, container, video)
        for key, frames, seek in plan:
            if seek:
                packets = timeline.packets_from(container, video, key)
            # The packet of a frame follows those of all frames that it refers to.
            missing.clear()
            missing.update(() if key is None else timeline.pts[frames].tolist())
            number, fed, is_fed, is_cut = key or 0, [], key is None, False
            shown.clear()
            for packet in packets:
                is_fed = is_fed or packet.pts == key
                if not is_fed:
                    continue
                if can_drop:
                    codec.skip_frame = "DEFAULT" if packet.pts in rows else "NONREF"
                fed.append(packet.pts)
                decode(packet)
                if not is_counted:
                    missing.discard(packet.pts)
                is_cut = not rows or sink.error is not None or (key is not None and not missing)
                if is_cut:
                    break
            decode(None)
            codec.flush_buffers()
            if timeline.ticks is not None and key is not None:
                # If the decoder returned all it was fed, no frame was missing before the key frame, and none was lost.
                is_sure = is_sure and (sorted(shown) == fed if timeline.is_reordered else sorted(shown) == shown)
    return is_sure
