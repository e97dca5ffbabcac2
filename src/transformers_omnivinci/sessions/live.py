"""A clip that is fed while it lasts."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import PIL.Image
import torch

from ..media import LoadedVideo, OmniVinciVideoMetadata
from ..planning import MediumPlan, MediumSource, plan_medium, pooled_frames
from ..planning.sequence import count_audio_vectors
from ..processing.batch import pad_seconds
from ..processing.log_mel import DYNAMIC_RANGE, extract_frames, margin_of
from ..processing.pixels import to_pixels
from ..processing.waveforms import to_waveform
from .contents import Block, Content, Keys
from .feeding import Clock, count_settled, to_number
from .policy import keep_around
from .positions import Positions, spread


@dataclass(frozen=True, eq=False)
class Window:
    """
    A window of sound as the encoder reads it, before its floor.

    Attributes:
        features (`torch.Tensor` of shape `(mel bins, mel frames)`, *optional*):
            As far as the sound reaches, padding included. `None` of what is forgotten.
        stays (`bool`): Whether it is the same whatever follows.
        peak (`float`), least (`float`): The most and the least of its features.
    """

    features: torch.Tensor | None
    stays: bool
    peak: float
    least: float

    @classmethod
    def of(cls, features: torch.Tensor, stays: bool) -> "Window":
        return cls(features, stays, float(features.max()), float(features.min()))


@dataclass(frozen=True, eq=False)
class LiveClip:
    """
    What was fed. It is never changed: [`show`] and [`hear`] return the clip that follows.

    Attributes:
        clock ([`Clock`]): How far it has come.
        size (`tuple[int, int]`, *optional*): Height and width of its frames.
        pictures (`tuple`): For each full set of frames, for each pooling, its [`Block`].
        pixels (`torch.Tensor`, *optional*): Of the frames that follow these, which are pooled with others to come.
        samples (`np.ndarray`): Sound whose windows do not stay yet, and a margin before it.
        offset (`int`): The first of `samples` among all.
        windows (`tuple[Window, ...]`): Windows that stay.
        sounds (`dict`): What was encoded last of each unit of windows, by what it was encoded from.
        unseen (`frozenset[float]`), unheard (`float`): Seconds of frames, and of sound up to one, that are forgotten.
    """

    clock: Clock = Clock()
    size: tuple[int, int] | None = None
    pictures: tuple[tuple[Block, ...], ...] = ()
    pixels: torch.Tensor | None = None
    samples: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    offset: int = 0
    windows: tuple[Window, ...] = ()
    sounds: dict = field(default_factory=dict)
    unseen: frozenset[float] = frozenset()
    unheard: float = -math.inf
    _contents: dict = field(default_factory=dict, init=False)  # as the clip is never changed, neither are these

    name = "<live>"

    @property
    def modality(self) -> str:
        """`"video"`, or `"audio"` as long as there was no frame."""
        return self.clock.facts.modality

    def source(self, processor) -> MediumSource:
        """What there was to see and hear of it."""
        clock, video = self.clock, processor.video_processor
        sizes = {"size": self.size, "seen_size": (video.size["height"], video.size["width"])} if self.size else {}
        return MediumSource(
            clock.facts,
            duration=clock.end,
            sound=clock.num_samples / processor.layout.sampling_rate,
            num_frames=clock.num_frames,
            fps=clock.rate,
            **sizes,
        )

    # ---------------------------------------------------------------------------------------------------- feeding

    def show(self, model, processor, frames, timestamps, fps: float | None, keys: Keys) -> "LiveClip":
        """The clip with further frames, which are encoded; arguments and errors are those of [`Session.feed`]."""
        try:
            frames, timestamps = list(frames), list(timestamps)
        except TypeError as error:
            given = f"{type(frames).__name__} and {type(timestamps).__name__}"
            raise TypeError(
                f"Live frames and their timestamps are sequences of the same length, got {given}."
            ) from error
        if len(frames) != len(timestamps):
            raise ValueError(f"Got {len(frames)} frames with {len(timestamps)} timestamps: one for each is accepted.")
        clock, chosen = self.clock.show([to_number(second, "A timestamp") for second in timestamps], fps)
        pixels = [_read_frame(frames[index]) for index in chosen]
        size = self.size
        for frame in pixels:
            size = size or tuple(frame.shape[1:])
            if tuple(frame.shape[1:]) != size:
                raise ValueError(
                    f"A frame of {frame.shape[1]} × {frame.shape[2]} pixels was fed to a clip of {size[0]} × {size[1]}"
                    ": all frames of a clip have one size."
                )
        clip = replace(self, clock=clock, size=size)
        if not pixels:
            return clip
        metadata = OmniVinciVideoMetadata(len(pixels), fps=1.0, frames_indices=list(range(len(pixels))))
        loaded = LoadedVideo(torch.stack(pixels), metadata)
        made = processor.video_processor([loaded], return_tensors="pt")["pixel_values_videos"]
        made = made if self.pixels is None else torch.cat((self.pixels, made))
        step, pictures = _frames_of_a_set(processor.layout), list(self.pictures)
        first = len(clock.timestamps) - len(made)
        while len(made) >= step:
            # As many sets as fit into a pass of the encoder.
            num_sets = max(1, min(len(made), model.config.vision_chunk_size or len(made)) // step)
            pictures += _encode_frames(
                model, processor.layout, made[: num_sets * step], clock.timestamps[first:], keys, step
            )
            made, first = made[num_sets * step :], first + num_sets * step
        return replace(clip, pictures=tuple(pictures), pixels=made.clone() if len(made) else None)

    def hear(self, processor, samples, start: float | None) -> "LiveClip":
        """The clip with further sound; arguments and errors are those of [`Session.feed`]."""
        layout, extractor = processor.layout, processor.feature_extractor
        if isinstance(samples, (tuple, dict)) or hasattr(samples, "get_all_samples"):
            raise TypeError(
                f"Live sound is an array of mono samples at {layout.sampling_rate} Hz: resample the whole stream, as "
                "pieces that are resampled one by one do not fit together."
            )
        waveform = to_waveform(samples, layout.sampling_rate)
        clock, silence = self.clock.hear(len(waveform), start, layout.sampling_rate)
        held = np.concatenate((self.samples, np.zeros(silence, np.float32), waveform))
        offset, windows = self.offset, list(self.windows)
        hop, frames, margin = layout.hop_length, 2 * layout.max_source_positions, margin_of(extractor)
        limit = _limit(layout)
        while ((len(windows) + 1) * frames + margin) * hop <= min(clock.num_samples, limit):
            first = len(windows) * frames - offset // hop
            features = extract_frames(extractor, held[: (first + frames + margin) * hop], first, first + frames)
            windows.append(Window.of(features.clone(), True))
            left = max(0, first + frames - margin) * hop
            held, offset = held[left:], offset + left
        return replace(self, clock=clock, samples=held.copy(), offset=offset, windows=tuple(windows))

    # --------------------------------------------------------------------------------------------------- reading

    def content(self, model, processor, keys: Keys, only_settled: bool = False) -> Content:
        """It as it stands in a prompt; or, of that, what most probably stays as it is."""
        if only_settled not in self._contents:
            self._contents[only_settled] = self._place(model, processor, keys, only_settled)
        return self._contents[only_settled]

    def _place(self, model, processor, keys: Keys, only_settled: bool) -> Content:
        layout = processor.layout
        plan = plan_medium(self.clock.facts, layout)
        positions = self.positions(processor, plan)
        if only_settled:
            end = count_settled(self.clock, plan, positions, layout, self._count_staying(plan, layout))
            positions = positions.select(np.arange(len(positions)) < end)
        token, blocks = layout.token_ids["audio"], {}
        num_vectors = int((positions.ids == token).sum())
        if num_vectors:
            num_forgotten = int((np.asarray(plan.sound_seconds) < self.unheard).sum())
            sound = self._sound(model, processor, plan, num_forgotten + num_vectors, keys, only_settled)
            blocks[token] = _first(sound, num_vectors)
        num_embeddings = int((positions.ids == layout.token_ids["video"]).sum())
        if num_embeddings:
            blocks[layout.token_ids["video"]] = _first(
                self._picture(model, layout, keys, only_settled), num_embeddings
            )
        return Content(positions, blocks, is_whole=not only_settled)

    @property
    def duration(self) -> float:
        """Seconds up to which it lasts so far."""
        return self.clock.end

    def positions(self, processor, plan: MediumPlan | None = None) -> Positions:
        """What of it stands in a prompt; nothing is encoded. `plan`: that of the clip, if it was made already."""
        layout = processor.layout
        positions = spread(plan or plan_medium(self.clock.facts, layout), layout)
        if not self.unseen and self.unheard == -math.inf:
            return positions
        is_audio = positions.ids == layout.token_ids["audio"]
        kept = np.where(is_audio, positions.seconds >= self.unheard, ~_isin(positions.seconds, self.unseen))
        return positions.select(keep_around(positions, layout, kept))

    def forget(self, processor, kept: np.ndarray) -> "LiveClip":
        """It without the positions that a mask of shape `(length,)` leaves out: of sound, what is before the rest."""
        positions = self.positions(processor)
        layout = processor.layout
        if kept.all():
            return self
        is_video, is_audio = (positions.ids == layout.token_ids[name] for name in ("video", "audio"))
        unseen = self.unseen | set(positions.seconds[is_video & ~kept].tolist())
        unheard, left = self.unheard, positions.seconds[is_audio & kept]
        if (is_audio & ~kept).any():
            unheard = float(left.min()) if len(left) else np.nextafter(positions.seconds[is_audio].max(), np.inf)
        pictures = tuple(_without(blocks, unseen) for blocks in self.pictures)
        # Windows that are not heard any more need not be encoded again; how loud they were still counts.
        unit, silent = _windows_of_a_unit(layout), 0
        sounds = {number: known for number, known in self.sounds.items() if known[1].seconds[-1] >= unheard}
        if unit is not None:
            seconds = np.asarray(plan_medium(self.clock.facts, layout).sound_seconds)
            silent = int((seconds < unheard).sum()) // _vectors(layout, unit) * unit
        windows = tuple(
            replace(window, features=None) if number < silent else window for number, window in enumerate(self.windows)
        )
        return replace(self, pictures=pictures, sounds=sounds, windows=windows, unseen=unseen, unheard=unheard)

    def _picture(self, model, layout, keys: Keys, only_staying: bool) -> list[Block]:
        """The video embeddings of the clip."""
        sets = list(self.pictures)
        if self.pixels is not None and not only_staying:
            seconds = self.clock.timestamps[-len(self.pixels) :]
            pending = _encode_frames(model, layout, self.pixels, seconds, keys, _frames_of_a_set(layout))
            sets += [_without(blocks, self.unseen) for blocks in pending]
        return [
            blocks[number] for number in range(len(layout.video_pool_sizes)) for blocks in sets if len(blocks[number])
        ]

    def _count_staying(self, plan: MediumPlan, layout) -> dict[str, int]:
        """How many embeddings at the beginning stay: of full sets of frames, and of windows whose sound is whole."""
        unit = _windows_of_a_unit(layout)
        num_vectors = _vectors(layout, len(self.windows) // unit * unit) if unit and plan.windows else 0
        is_in_order = len(layout.video_pool_sizes) == 1  # and a second pooling does not follow the last frame
        return {
            "video": sum(len(block) for [block] in self.pictures) if is_in_order else 0,
            "audio": max(0, num_vectors - int((np.asarray(plan.sound_seconds) < self.unheard).sum())),
        }

    def _sound(self, model, processor, plan: MediumPlan, num_vectors: int, keys: Keys, only_staying: bool) -> list:
        """Of the first audio embeddings, those that are not forgotten, encoded as far as they were not yet."""
        layout, blocks, start = processor.layout, [], 0
        unit = _windows_of_a_unit(layout) or plan.windows.num_windows
        windows = list(self.windows)
        frames = 2 * layout.max_source_positions
        while not only_staying and len(windows) * frames < plan.windows.num_mel_frames:
            reach = (len(windows) * frames - margin_of(processor.feature_extractor)) * layout.hop_length
            is_enough = _vectors(layout, len(windows)) >= num_vectors and len(windows) % unit == 0
            if is_enough and reach >= plan.windows.num_samples:
                break  # the rest is silence
            windows.append(self._last_window(processor, plan, len(windows)))
        floor = max(window.peak for window in windows) - DYNAMIC_RANGE
        for number, first in enumerate(range(0, len(windows), unit)):
            if start >= num_vectors:
                break
            part = windows[first : first + unit]
            stop = min(start + _vectors(layout, len(part)), len(plan.sound_seconds))
            seconds = tuple(plan.sound_seconds[start:stop])
            if seconds[-1] < self.unheard:
                start = stop
                continue
            is_cut = seconds[0] < self.unheard
            made_of = (
                seconds,
                tuple((one.stays or self.clock.num_samples, max(one.least, floor)) for one in part),
            )
            known = self.sounds.get(number)
            if known is None or known[0] != made_of:
                known = made_of, _encode_sound(model, part, seconds, floor, frames, keys)
                self.sounds[number] = known
            blocks.append(known[1].select(known[1].seconds >= self.unheard) if is_cut else known[1])
            start = stop
        return blocks

    def _last_window(self, processor, plan: MediumPlan, number: int) -> Window:
        """A window that what follows will change."""
        layout, extractor = processor.layout, processor.feature_extractor
        hop, frames, margin = layout.hop_length, 2 * layout.max_source_positions, margin_of(extractor)
        stop = min((number + 1) * frames, plan.windows.num_mel_frames)
        end = min((stop + margin) * hop, plan.windows.padded_samples)
        held = self.samples[: max(0, plan.windows.num_samples - self.offset)]
        padded = np.zeros(max(0, end - self.offset), np.float32)
        padded[: len(held)] = held[: len(padded)]
        first = number * frames - self.offset // hop
        return Window.of(extract_frames(extractor, padded, first, stop - self.offset // hop).clone(), False)

    def copy(self) -> "LiveClip":
        """Another one, which shares what is encoded."""
        return replace(self, sounds=dict(self.sounds))


def _isin(seconds: np.ndarray, some: frozenset[float]) -> np.ndarray:
    return np.isin(seconds, np.fromiter(some, float, len(some)))


def _without(blocks: tuple[Block, ...], unseen: frozenset[float]) -> tuple[Block, ...]:
    """Blocks without the embeddings at some seconds."""
    masks = [~_isin(block.seconds, unseen) for block in blocks]
    return tuple(block if mask.all() else block.select(mask) for block, mask in zip(blocks, masks, strict=True))


def _read_frame(frame) -> torch.Tensor:
    """(3, height, width) in uint8."""
    is_bytes = str(getattr(frame, "dtype", "")).removeprefix("torch.") == "uint8" and frame.ndim in (2, 3)
    if not (is_bytes or isinstance(frame, PIL.Image.Image)):
        given = f"{frame.dtype} of shape {tuple(frame.shape)}" if hasattr(frame, "dtype") else type(frame).__name__
        raise ValueError(
            f"A live frame is an array of uint8 of shape (height, width, 3) or an opened image, got {given}: of other "
            "numbers it shows only in the whole clip which one is white."
        )
    return to_pixels(frame)


def _frames_of_a_set(layout) -> float:
    """
    How many frames are pooled with each other alone. Where rows or columns are completed, it is with the mean of all
    frames.
    """
    side = layout.patches_per_side
    if any(side % size for _, *sizes in layout.video_pool_sizes for size in sizes):
        return math.inf
    return math.lcm(*(sizes[0] for sizes in layout.video_pool_sizes))


def _encode_frames(model, layout, pixels: torch.Tensor, seconds, keys: Keys, step: float) -> list[tuple[Block, ...]]:
    """For each set of frames, of which the last may be incomplete, the block of each pooling."""
    seconds = seconds[: len(pixels)]
    with torch.no_grad():
        made = model.get_video_features(
            pixels.to(model.device, model.dtype), pad_seconds([seconds]).to(model.device), return_dict=True
        )
    [rows] = made.pooler_output
    counts = pooled_frames(layout.video_pool_sizes, layout.patches_per_side, len(pixels))
    parts = rows.split([num_frames * per_frame for num_frames, per_frame in counts])
    columns = []
    for part, sizes, (_, per_frame) in zip(parts, layout.video_pool_sizes, counts, strict=True):
        size, when = int(min(step, len(pixels) + sizes[0])) // sizes[0], np.asarray(seconds[:: sizes[0]])
        columns.append(
            [
                Block(keys.take(len(block)), block.clone(), np.repeat(when[number * size :][:size], per_frame))
                for number, block in enumerate(part.split(size * per_frame))
            ]
        )
    return list(zip(*columns, strict=True))


def _limit(layout) -> float:
    """Samples of sound that are heard at most."""
    seconds = layout.max_audio_duration if layout.fixed_audio_duration is None else layout.fixed_audio_duration
    return math.inf if seconds is None else round(seconds * layout.sampling_rate)


def _windows_of_a_unit(layout) -> int | None:
    """How many windows are compressed apart from others; `None`: the compression reaches over all borders."""
    if layout.audio_pooling == "conv":
        return None
    return 1 if layout.audio_pooling == "none" or layout.max_source_positions // 2 % 2 == 0 else 2


def _vectors(layout, num_windows: int) -> int:
    return count_audio_vectors(num_windows, layout.max_source_positions, layout.audio_pooling)


def _encode_sound(model, windows, seconds, floor: float, frames: int, keys: Keys) -> Block:
    """The embeddings of windows that are compressed together, as many as there are seconds."""
    features = torch.zeros(len(windows), windows[0].features.shape[0], frames)
    for row, window in zip(features, windows, strict=True):
        row[:, : window.features.shape[1]] = window.features.clamp(min=floor)
    with torch.no_grad():
        made = model.get_audio_features(
            features.to(model.device, model.dtype),
            pad_seconds([seconds]).to(model.device),
            torch.tensor([len(windows)]),
            return_dict=True,
        )
    [rows] = made.pooler_output
    return Block(keys.take(len(rows)), rows.clone(), np.asarray(seconds))


def _first(blocks: list[Block], number: int) -> list[Block]:
    """The first embeddings of blocks."""
    found = []
    for block in blocks:
        found.append(block if len(block) <= number else Block(block.keys[:number], block.embeddings[:number]))
        number -= len(found[-1])
        if not number:
            break
    return found if found and len(found[0]) else []
