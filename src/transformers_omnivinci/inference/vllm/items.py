"""
One medium as an engine keeps it: a dictionary of tensors, and the token ids that stand in its place.

A video with its sound is one item. Its ids are those of its plan, picture and sound interleaved (TEG, equation 3), and
its embeddings follow in that order. So whatever an engine caches of a medium is whole. Nothing here knows an engine.
"""

from collections.abc import Mapping, Sequence

import torch

from ...planning import MediumPlan
from ...planning.sequence import expand
from ...processing.batch import MediaInputs, pad_seconds

RUNS = {modality: f"{modality}_runs" for modality in ("image", "video", "audio")}
"""The tensor of each modality, `(num_runs, 2)`, with the plan's runs of (token id, repetitions)."""

SEEN = ("pixel_values", "pixel_values_videos", "input_features", "track_features")
"""What encoders see, in the dtype of the model. All other tensors are small and stay on the CPU."""

TENSORS = {
    "image": ("pixel_values", "image_grid_hw", RUNS["image"]),
    "video": ("pixel_values_videos", "video_timestamps", "track_features", "track_timestamps", RUNS["video"]),
    "audio": ("input_features", "audio_timestamps", RUNS["audio"]),
}
"""The tensors of an item of each modality. Those of different modalities have different names."""


def item_of(plan: MediumPlan, media: MediaInputs, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """
    The tensors of one medium.

    Args:
        plan ([`MediumPlan`]), media ([`MediaInputs`]): Of the medium alone, as [`read_medium`] returns them.
        dtype (`torch.dtype`, *optional*): Of what encoders see. Seconds stay in float32.

    Returns:
        `dict[str, torch.Tensor]`: by the names of [`TENSORS`]. The seconds of frames and of audio vectors are
        `(num_frames,)` and `(num_vectors,)`; a video without sound has a track of no windows.
    """
    item = {RUNS[plan.modality]: torch.tensor(plan.runs, dtype=torch.long)}
    if plan.modality == "image":
        item |= {"pixel_values": media["pixel_values"], "image_grid_hw": media["image_grid_hw"][0]}
    elif plan.modality == "audio":
        item |= {"input_features": media["input_features"], "audio_timestamps": media["audio_timestamps"][0]}
    else:
        item |= {name: media[name] for name in ("pixel_values_videos", "video_timestamps")}
        item["video_timestamps"] = item["video_timestamps"][0]
        item["track_features"] = media.get("input_features", torch.zeros(0, 1, 1))
        item["track_timestamps"] = media["audio_timestamps"][0] if "audio_timestamps" in media else torch.zeros(0)
    return {name: item[name].to(dtype) if name in SEEN else item[name] for name in TENSORS[plan.modality]}


def media_of(modality: str, items: Mapping[str, Sequence[torch.Tensor]]) -> MediaInputs:
    """
    The inputs of the encoders for several items of a modality.

    Args:
        modality (`str`): `"image"`, `"video"` or `"audio"`.
        items (`Mapping[str, Sequence[torch.Tensor]]`): For each name of [`TENSORS`] the tensors of all items.
    """
    if modality == "image":
        return {
            "pixel_values": torch.cat([*items["pixel_values"]]),
            "image_grid_hw": torch.stack([*items["image_grid_hw"]]),
        }
    if modality == "audio":
        return _sounds(items["input_features"], items["audio_timestamps"])
    media = {
        "pixel_values_videos": torch.cat([*items["pixel_values_videos"]]),
        "video_timestamps": pad_seconds([*items["video_timestamps"]]),
    }
    heard = [index for index, windows in enumerate(items["track_features"]) if len(windows)]
    if heard:
        tracks = [[items[name][index] for index in heard] for name in ("track_features", "track_timestamps")]
        media |= _sounds(*tracks)
    return media


def _sounds(windows: Sequence[torch.Tensor], seconds: Sequence[torch.Tensor]) -> MediaInputs:
    return {
        "input_features": torch.cat([*windows]),
        "audio_timestamps": pad_seconds([*seconds]),
        "audio_num_windows": torch.tensor([len(one) for one in windows]),
    }


def ids_of(runs: torch.Tensor) -> list[int]:
    """The token ids of `runs`, `(num_runs, 2)`, position by position."""
    return expand(runs.tolist())


def is_embedding(ids: Sequence[int], token_ids: Mapping[str, int]) -> torch.Tensor:
    """
    Which positions of a medium have embeddings of media, and which are boundary tokens.

    Args:
        ids (`Sequence[int]`): From [`ids_of`].
        token_ids (`Mapping[str, int]`): The placeholder of each modality.

    Returns:
        `torch.Tensor`: `(len(ids),)`, boolean.
    """
    return torch.isin(torch.tensor(ids), torch.tensor([*token_ids.values()]))


def in_order(
    runs: torch.Tensor, token_ids: Mapping[str, int], picture: torch.Tensor, sound: torch.Tensor | None
) -> torch.Tensor:
    """
    The embeddings of a video in the order of its placeholders.

    Args:
        runs (`torch.Tensor`): `(num_runs, 2)`, those of its plan.
        token_ids (`Mapping[str, int]`): The placeholder of each modality.
        picture (`torch.Tensor`): `(num_embeddings, hidden_size)`.
        sound (`torch.Tensor`, *optional*): `(num_vectors, hidden_size)`. `None`: it has none.

    Returns:
        `torch.Tensor`: `(num_embeddings + num_vectors, hidden_size)`.

    Raises:
        ValueError: the placeholders are more or fewer than the embeddings.
    """
    ids = runs[:, 0].repeat_interleave(runs[:, 1])
    ids = ids[(ids == token_ids["video"]) | (ids == token_ids["audio"])]
    is_sound = (ids == token_ids["audio"]).to(picture.device)
    counts = [len(ids) - int(is_sound.sum()), int(is_sound.sum())]
    found = [len(picture), 0 if sound is None else len(sound)]
    if counts != found:
        raise ValueError(
            f"A video has {counts[0]} placeholders of its picture and {counts[1]} of its sound, but {found[0]} and "
            f"{found[1]} embeddings."
        )
    if sound is None:
        return picture
    embeddings = picture.new_empty(len(ids), picture.shape[1])
    embeddings[~is_sound], embeddings[is_sound] = picture, sound
    return embeddings
