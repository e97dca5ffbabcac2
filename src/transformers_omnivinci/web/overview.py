"""What is shown of a medium: some of the frames that are seen, its sound, and its groups."""

import base64
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from .. import media
from ..planning import (
    MediumEvidence,
    MediumFacts,
    MediumPlan,
    MediumSource,
    Timeline,
    medium_evidence,
    plan_medium,
    timeline_of,
)
from ..processing.options import hears_videos
from ..processing.reading import audio_limit, load_clip, video_facts

STRIP = 12.0
"""Width of the film strip divided by its height: so many square pictures fit in."""
NARROWEST = 0.5
"""Width of a picture divided by its height, below which not more of them are shown."""
PICTURE_HEIGHT = 96
"""Pixels of a frame that is shown."""
LARGEST_IMAGE = 960
"""Pixels of the longer side of an image that is shown."""
NUM_PEAKS = 480
"""Bars of a waveform."""


@dataclass(frozen=True)
class Overview:
    """
    What is shown of a medium.

    Attributes:
        name (`str`), kind (`str`): What it is called, and `"video"`, `"image"` or `"audio"`.
        evidence ([`MediumEvidence`]): What of it is seen and heard, and what is left out.
        size (`tuple[int, int]`, *optional*): Width and height in pixels; `None` of a sound.
        pictures (`Sequence[tuple[float, str]]`):
            Some of the frames that are seen, evenly chosen: seconds and data URLs. Of an image, the image at 0 s.
        frames (`Sequence[float]`): Seconds of all the frames that are seen.
        peaks (`Sequence[float]`): How far the sound goes in equal parts of the clip, in [0, 1]; 1 is its loudest.
        timeline ([`Timeline`], *optional*): Its groups; `None` of an image.
    """

    name: str
    kind: str
    evidence: MediumEvidence
    size: tuple[int, int] | None = None
    pictures: Sequence[tuple[float, str]] = ()
    frames: Sequence[float] = ()
    peaks: Sequence[float] = ()
    timeline: Timeline | None = None

    @property
    def duration(self) -> float:
        """Seconds that the timeline shows; 0 of an image."""
        return 0.0 if self.timeline is None else self.timeline.groups[-1].end

    @property
    def num_tokens(self) -> int:
        """Its positions in the prompt."""
        return sum(self.evidence.tokens.values())


def look_over(processor, path: str | os.PathLike, kind: str, name: str, **options) -> Overview:
    """
    Decodes what is shown of a medium: pictures of a few frames, and the sound.

    Args:
        processor ([`OmniVinciProcessor`]): Plans it as a session does.
        path (`str` or `os.PathLike`): The file.
        kind (`str`): `"video"`, `"image"` or `"audio"`, see [`kind_of`].
        name (`str`): What it is called.
        options: Of the processor, for videos, with which it is watched: `num_frames`, `fps`, `load_audio_from_video`.

    Raises:
        ValueError, TypeError, OSError: it cannot be read, or an option is not accepted.
    """
    return {"video": _video, "image": _image, "audio": _audio}[kind](processor, path, name, dict(options))


def _image(processor, path, name: str, options: dict) -> Overview:
    image = media.load_image(path)
    facts = MediumFacts("image", tuple(processor.image_processor.tile_grid(image.height, image.width)))
    evidence = medium_evidence(plan_medium(facts, processor.layout), MediumSource(facts), processor.layout)
    size = image.size
    image.thumbnail((LARGEST_IMAGE, LARGEST_IMAGE))
    return Overview(name, "image", evidence, size, [(0.0, _data_url(image))])


def _audio(processor, path, name: str, options: dict) -> Overview:
    waveform = load_clip(processor, path, {})
    facts = MediumFacts("audio", num_samples=len(waveform))
    plan = plan_medium(facts, processor.layout)
    source = MediumSource(facts, sound=len(waveform) / processor.layout.sampling_rate)
    return _clip(Overview(name, "audio", medium_evidence(plan, source, processor.layout)), processor, plan, waveform)


def _video(processor, path, name: str, options: dict) -> Overview:
    options = dict(options)
    hears, _ = hears_videos(processor, options)
    metadata = processor.video_processor.probe_video(path, **options)
    chosen = choose_evenly(sorted(set(metadata.frames_indices)), metadata.width / metadata.height)
    width = max(1, round(PICTURE_HEIGHT * metadata.width / metadata.height))
    rate = processor.layout.sampling_rate

    def shrink(frame: torch.Tensor) -> torch.Tensor:
        shown = functional.interpolate(frame[None].float(), (PICTURE_HEIGHT, width), mode="bilinear", antialias=True)
        return shown[0].round().clamp(0, 255).to(torch.uint8)

    video = media.load_video(
        path,
        sample_indices_fn=lambda _: chosen,
        transform=shrink,
        load_audio=hears,
        sampling_rate=rate,
        max_audio_seconds=audio_limit(processor.layout),
    )
    waveform = np.zeros(0, np.float32) if video.waveform is None else video.waveform
    facts = video_facts(metadata, len(waveform))
    plan = plan_medium(facts, processor.layout)
    source = MediumSource(facts, sound=len(waveform) / rate)
    pictures = zip(video.metadata.timestamps, np.moveaxis(video.frames.numpy(), 1, -1), strict=True)
    return _clip(
        Overview(
            name,
            "video",
            medium_evidence(plan, source, processor.layout),
            (metadata.width, metadata.height),
            [(second, _data_url(Image.fromarray(picture))) for second, picture in pictures],
            sorted(set(metadata.timestamps)),
        ),
        processor,
        plan,
        waveform,
    )


def _clip(overview: Overview, processor, plan: MediumPlan, waveform: np.ndarray) -> Overview:
    """The overview of what lasts a while, with its groups and its sound."""
    timeline = timeline_of(plan, processor.layout, overview.evidence.duration)
    heard = waveform[: round(timeline.groups[-1].end * processor.layout.sampling_rate)]
    share = len(heard) / processor.layout.sampling_rate / timeline.groups[-1].end
    peaks = find_peaks(heard, max(1, round(NUM_PEAKS * share))) if len(heard) else ()
    return replace(overview, peaks=peaks, timeline=timeline)


def choose_evenly(values: Sequence, aspect_ratio: float) -> list:
    """
    Every n-th value from the first one on, so that pictures of the frames in question fill the film strip with the
    least that is cut off or left empty. `aspect_ratio`: width of a picture divided by its height.
    """
    wanted = STRIP / max(aspect_ratio, NARROWEST)
    steps = range(1, len(values) + 1)
    return values[:: min(steps, key=lambda step: abs(math.log(math.ceil(len(values) / step) / wanted)))]


def find_peaks(waveform: np.ndarray, number: int) -> list[float]:
    """
    How far a sound goes in equal parts.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): Mono samples in [-1, 1], at least one.
        number (`int`): Of parts, of which there are not more than samples.

    Returns:
        `list[float]`: in [0, 1]; 1 is the loudest part, and below 1e-3 of full scale nothing is made louder.
    """
    starts = np.unique(np.arange(number) * len(waveform) // number)
    peaks = np.maximum.reduceat(np.abs(waveform), starts)
    return (peaks / max(float(peaks.max()), 1e-3)).round(3).tolist()


def _data_url(image: Image.Image) -> str:
    """A picture as JPEG that stands in the page itself."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
