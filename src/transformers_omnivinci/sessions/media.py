"""Media that are watched whole: read and encoded once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import PIL.Image

from .. import media
from ..media import LoadedVideo
from ..planning import MediumPlan, MediumSource
from ..processing.batch import MediaInputs
from ..processing.conversation import item_options, read_item
from ..processing.one_medium import read_medium_with_source
from ..processing.video_inputs import one_video
from ..processing.waveforms import is_clip
from .contents import Content, Keys, content_of, encode


@dataclass
class Recording:
    """
    A medium that was watched whole.

    An image is encoded in tiles where it is the only one of a session, and in one where there are several, as the
    processor reads images: the pixels of what was not asked for yet are kept.

    Attributes:
        modality (`str`): `"image"`, `"video"` or `"audio"`.
        name (`str`): What messages call it.
        contents (`dict[bool, Content]`): As it stands alone (`True`) and, of an image, beside others.
        unread (`dict[bool, tuple[MediumPlan, MediaInputs]]`): What of an image was not encoded yet.
        sources (`dict[bool, MediumSource]`): What there was to see and hear of it, by the same keys.
        duration (`float`): Seconds; 0 of an image.
    """

    modality: str
    name: str
    contents: dict[bool, Content] = field(default_factory=dict)
    unread: dict[bool, tuple[MediumPlan, MediaInputs]] = field(default_factory=dict)
    duration: float = 0.0
    sources: dict[bool, MediumSource] = field(default_factory=dict)

    def source(self, is_alone: bool) -> MediumSource:
        """What there was to see and hear of it. `is_alone`: whether it is the only image."""
        return self.sources[is_alone or self.modality != "image"]

    def content(self, model, processor, keys: Keys, is_alone: bool) -> Content:
        """It as it stands in a prompt, encoded if it was not yet. `is_alone`: whether it is the only image."""
        which = is_alone or self.modality != "image"
        if which not in self.contents:
            self.contents[which] = encode(model, processor, *self.unread.pop(which), keys)
        return self.contents[which]

    def forget(self, processor, kept: np.ndarray) -> "Recording":
        """It without the positions that a mask of shape `(length,)` leaves out."""
        if self.modality == "image" or kept.all():
            return self
        [content] = self.contents.values()
        return replace(self, contents={True: content.select(kept)})

    def copy(self) -> "Recording":
        """Another one, which shares what is encoded."""
        return replace(self, contents=dict(self.contents), unread=dict(self.unread))


def read_recording(model, processor, source, kind: str | None, track, options: Mapping, keys: Keys) -> Recording:
    """
    Reads a medium and encodes it meanwhile, so that memory does not grow with pixels and samples; only an image is
    encoded later, when it is known whether there are others. `keys`: those of the session. Other arguments and errors
    are those of [`Session.watch`].
    """
    kind, source, own = _sort(source, kind)
    options = {**options, **({} if kind == "video" else own)}
    if kind == "video" and own:
        source = one_video(source, own)
    name = f"{os.fspath(source)!r:.200}" if isinstance(source, (str, os.PathLike)) else f"<{kind}>"
    if track is not None and kind != "video":
        raise ValueError(f"`track` is the sound of a video, but {name} is of the kind {kind!r}.")
    if kind != "image":
        plan, encoded, found = read_medium_with_source(processor, kind, source, track, media_encoder=model, **options)
        content = content_of(processor, plan, encoded, keys)
        return Recording(kind, name, {True: content}, duration=_duration(plan), sources={True: found})
    recording = Recording(kind, name)
    whole = {**options, "images_kwargs": {**options.get("images_kwargs", {}), **_whole(processor)}}
    for is_alone, own in ((True, options), (False, whole)):
        plan, inputs, found = read_medium_with_source(processor, kind, source, **own)
        recording.unread[is_alone], recording.sources[is_alone] = (plan, inputs), found
    return recording


def _duration(plan: MediumPlan) -> float:
    """Seconds of a medium: to the end of its groups, its sound or its last frame."""
    ends = [plan.groups[-1].end] if plan.groups else [*plan.frame_seconds[-1:]]
    return max([0.0, *ends, *([] if plan.windows is None else [plan.windows.duration])])


def _whole(processor) -> dict:
    return processor.image_processor.whole_image_options


def _sort(source, kind: str | None) -> tuple[str, object, dict]:
    """The kind of a medium, what it is read from, and options of its own."""
    if isinstance(source, Mapping) and "type" in source:
        item = read_item(source)
        if item["type"] == "text" or item.get(item["type"]) is None:
            raise ValueError(f"A content item of type {item['type']!r} holds no medium that can be watched.")
        return item["type"], item[item["type"]], item_options(item)
    if kind is not None:
        if kind not in ("image", "video", "audio"):
            raise ValueError(f"`kind={kind!r}` is not accepted: 'image', 'video' and 'audio' are.")
        return kind, source, {}
    if isinstance(source, LoadedVideo):
        return "video", source, {}
    if isinstance(source, PIL.Image.Image):
        return "image" if media.is_still(source) else "video", source, {}
    if is_clip(source) or (isinstance(source, np.ndarray) and source.ndim == 1):
        return "audio", source, {}
    if isinstance(source, (str, bytes, bytearray, memoryview, os.PathLike)) or hasattr(source, "read"):
        content = media.download(source) if media.is_url(source) else source
        return media.kind_of(content), content, {}
    raise ValueError(
        f"Whether this {type(source).__name__} is an image, a video or a sound cannot be told: give `kind`, or a "
        "content item such as {'type': 'video', 'video': ...}."
    )
