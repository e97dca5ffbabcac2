"""The tensors of media: what the processor makes, collators and pipelines join, and the model reads."""

import math
from collections.abc import Mapping, Sequence
from typing import TypedDict

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.feature_extraction_utils import BatchFeature

from ..labels import without_placeholders
from ..planning import tile_grids

NO_TIME = -1.0
"""What fills up rows of seconds."""

CUT = (
    "A loader that cuts every tensor to the batch size, as accelerate's does with streaming data, loses media: set "
    "`dispatch_batches=False`, in Trainer `accelerator_config={'dispatch_batches': False}`."
)
"""What may have happened to media that do not match."""


class MediaInputs(TypedDict, total=False):
    """
    The media of a batch; what there is none of is left out. Media of a modality follow each other as in the prompts,
    the track of a video where the video stands.

    pixel_values (`torch.Tensor` of shape `(num_tiles, 3, image_size, image_size)`): Tiles of all images.
    image_grid_hw (`torch.Tensor` of shape `(num_images, 2)`):
        (rows, columns) of the tiles of each image's last scale; (1, 1) for an image that is not tiled.
    pixel_values_videos (`torch.Tensor` of shape `(num_frames of all videos, 3, image_size, image_size)`): Frames.
    video_timestamps (`torch.Tensor` of shape `(num_videos, most frames of a video)`):
        Seconds of each frame, in float32, filled up with -1.
    input_features (`torch.Tensor` of shape `(num_windows, mel bins, 2 * max_source_positions)`):
        Log-mel windows of all sounds.
    audio_timestamps (`torch.Tensor` of shape `(num_clips, most vectors of a clip)`):
        Seconds of the vectors of each sound that stand in the sequence, in float32, filled up with -1.
    audio_num_windows (`torch.Tensor` of shape `(num_clips,)`): Windows of each sound.
    video_has_audio (`torch.Tensor` of shape `(num_videos,)`): Which videos have their track among the sounds.
    audio_from_video (`torch.Tensor` of shape `(num_clips,)`):
        Which sounds are tracks of videos; the first one of the first video that has one, and so on.
    """

    pixel_values: torch.Tensor
    image_grid_hw: torch.Tensor
    pixel_values_videos: torch.Tensor
    video_timestamps: torch.Tensor
    input_features: torch.Tensor
    audio_timestamps: torch.Tensor
    audio_num_windows: torch.Tensor
    video_has_audio: torch.Tensor
    audio_from_video: torch.Tensor


MEDIA_INPUTS = tuple(MediaInputs.__annotations__)
"""Names of the tensors of media."""

NAMES_OF = {
    "image": ("pixel_values", "image_grid_hw"),
    "video": ("pixel_values_videos", "video_timestamps", "video_has_audio"),
    "audio": ("input_features", "audio_timestamps", "audio_num_windows", "audio_from_video"),
}
"""Those of each modality: the first one has what the encoder sees, the others an entry for each medium."""


class OmniVinciBatchFeature(BatchFeature):
    """
    A [`BatchFeature`] whose seconds stay in float32: `.to(dtype)` casts everything else, but bfloat16 cannot tell
    100.0 s from 100.2 s. When it is given `labels`, placeholders among them become -100: trainers and collators that
    know nothing of media make labels of `input_ids`, and count and learn them as they are.
    """

    placeholder_ids: tuple[int, ...] = ()

    def __init__(self, *args, placeholder_ids: tuple[int, ...] = (), **kwargs):
        self.placeholder_ids = placeholder_ids
        super().__init__(*args, **kwargs)

    def __setitem__(self, name: str, value):
        super().__setitem__(name, without_placeholders(value, self.placeholder_ids) if name == "labels" else value)

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "placeholder_ids": self.placeholder_ids}

    def __setstate__(self, state: dict):
        super().__setstate__(state)
        self.placeholder_ids = state["placeholder_ids"]

    def to(self, *args, **kwargs) -> "OmniVinciBatchFeature":
        """As in transformers, but seconds keep their dtype."""
        timestamps = {name: value for name, value in self.data.items() if name.endswith("_timestamps")}
        super().to(*args, **kwargs)
        for name, value in timestamps.items():
            if isinstance(value, torch.Tensor):
                self.data[name] = value.to(self.data[name].device)
        return self


def select_media(inputs: Mapping) -> MediaInputs:
    """The media among the inputs of a model, such as what the processor returns; `None` is none."""
    return {name: inputs[name] for name in MEDIA_INPUTS if inputs.get(name) is not None}


def take_media(inputs: dict) -> MediaInputs:
    """As [`select_media`]; takes the media out of `inputs`."""
    media = select_media(inputs)
    for name in MEDIA_INPUTS:
        inputs.pop(name, None)
    return media


def pad_seconds(rows: Sequence[Sequence[float] | torch.Tensor]) -> torch.Tensor:
    """Seconds of several media as one tensor in float32, (num_media, most seconds of one), filled up with -1."""
    rows = [torch.as_tensor(row, dtype=torch.float32) for row in rows]
    return pad_sequence(rows, batch_first=True, padding_value=NO_TIME) if rows else torch.zeros(0, 0)


def join(batches: Sequence[MediaInputs]) -> MediaInputs:
    """The media of several inputs, one after another."""
    joined = {}
    for name in MEDIA_INPUTS:
        parts = [batch[name] for batch in batches if batch.get(name) is not None]
        if len(parts) == 1:
            joined[name] = parts[0]
        elif parts:
            is_seconds = name.endswith("_timestamps")
            joined[name] = pad_seconds([row for part in parts for row in part]) if is_seconds else torch.cat(parts)
    return joined


def split(batch: MediaInputs, s2_scales: Sequence[int]) -> dict[str, list[MediaInputs]]:
    """
    Undoes [`join`]: the inputs of each medium alone.

    Args:
        batch ([`MediaInputs`]): The media of a batch.
        s2_scales (`Sequence[int]`): Scales of Dynamic S2, which tell how many tiles an image has.

    Returns:
        `dict[str, list[MediaInputs]]`: for `"image"`, `"video"` and `"audio"`, as far as there are any, its media.

    Raises:
        ValueError: the tensors do not match.
    """
    found = {}
    for modality, (seen, *others) in NAMES_OF.items():
        if batch.get(seen) is None:
            continue
        sizes = count_rows(modality, batch, s2_scales)
        media = [{seen: part} for part in batch[seen].split(sizes)] if sizes else []
        for name in others:
            if batch.get(name) is not None:
                for index, medium in enumerate(media):
                    row = batch[name][index : index + 1]
                    medium[name] = row[:, : int((row >= 0).sum())] if name.endswith("_timestamps") else row
        found[modality] = media
    return found


def count_rows(modality: str, batch: MediaInputs, s2_scales: Sequence[int]) -> list[int]:
    """
    How many tiles each image, frames each video or windows each sound of a batch has.

    Raises:
        ValueError: these are not as many as the batch holds, or it does not say.
    """
    seen, told_by, *_ = NAMES_OF[modality]
    if batch.get(told_by) is None:
        raise ValueError(f"`{seen}` is given without `{told_by}`, which the processor returns beside it.")
    if modality == "image":
        counts = [sum(map(math.prod, tile_grids(s2_scales, *grid))) for grid in batch[told_by].tolist()]
    elif modality == "video":
        counts = (batch[told_by] >= 0).sum(1).tolist()
    elif batch.get("audio_num_windows") is None:
        counts = [1] * len(batch[told_by])
    else:
        told_by, counts = "audio_num_windows", batch["audio_num_windows"].tolist()
    if sum(counts) != len(batch[seen]):
        what = {"image": "tiles", "video": "frames", "audio": "windows"}[modality]
        raise ValueError(f"`{told_by}` describes {sum(counts)} {what}, but `{seen}` has {len(batch[seen])}. {CUT}")
    return counts
