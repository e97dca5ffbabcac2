"""Which medium stands at which placeholder of which prompt: sorted before anything is read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .chat_template import AUDIO_TOKEN, IMAGE_TOKEN, VIDEO_TOKEN
from .video_inputs import flatten_videos
from .waveforms import is_clip

TOKENS = {"image": IMAGE_TOKEN, "video": VIDEO_TOKEN, "audio": AUDIO_TOKEN}
PLACEHOLDER = re.compile("|".join(f"(?P<{name}>{re.escape(token)})" for name, token in TOKENS.items()))
PAIR = re.compile(re.escape(AUDIO_TOKEN + VIDEO_TOKEN))


@dataclass(frozen=True)
class Placeholder:
    """A placeholder of a prompt: `"image"`, `"video"` or `"audio"`, and which of these media stands there."""

    modality: str
    index: int


@dataclass(frozen=True)
class PromptBatch:
    """Prompts with their media, sorted but not yet read."""

    prompts: list[str]  # with one placeholder for every medium
    placeholders: list[list[Placeholder]]  # of each prompt, in order
    images: list
    videos: list
    clips: list  # sounds with a placeholder of their own
    tracks: list  # for each video its sound where that is given, else `None`
    heard: list[bool]  # for each video whether its track is wanted

    @property
    def images_by_prompt(self) -> list[list]:
        """The images of every prompt that has any."""
        indices = [[slot.index for slot in slots if slot.modality == "image"] for slots in self.placeholders]
        return [[self.images[index] for index in prompt] for prompt in indices if prompt]


def sort_media(
    text,
    images,
    videos,
    audio,
    audio_from_video_indices: Sequence[int | None] | None,
    load_audio_from_video: bool,
    is_said: bool = True,
) -> PromptBatch:
    """
    Assigns media to the placeholders of prompts; the arguments are those of [`OmniVinciProcessor.__call__`], and
    whether the call says itself that videos are heard. Where the checkpoint does, `audio` are clips of their own.

    Raises:
        ValueError: there are more or fewer media than placeholders, or `text` is no prompt.
    """
    prompts = [text] if isinstance(text, str) else text
    if not isinstance(prompts, (list, tuple)) or not prompts or not all(isinstance(p, str) for p in prompts):
        raise ValueError(f"`text` must be a prompt or a list of prompts, got {type(text).__name__} {text!r:.80}.")
    nested = isinstance(images, (list, tuple)) and bool(images) and all(isinstance(i, (list, tuple)) for i in images)
    images_given = [len(flatten_images(item)) for item in images] if nested else []
    images = flatten_images(images)
    videos = [] if videos is None else flatten_videos(videos)
    clips, tracks, heard = _assign_audio(
        flatten_audio(audio), audio_from_video_indices, len(videos), load_audio_from_video, is_said
    )
    prompts = _strip_pairs(prompts, len(clips)) if any(heard) else list(prompts)

    placeholders, found = [], dict.fromkeys(TOKENS, 0)
    for prompt in prompts:
        placeholders.append([])
        for match in PLACEHOLDER.finditer(prompt):
            placeholders[-1].append(Placeholder(match.lastgroup, found[match.lastgroup]))
            found[match.lastgroup] += 1
    for modality, given in (("image", images), ("video", videos), ("audio", clips)):
        if found[modality] != len(given):
            tracks_left = modality == "audio" and videos and not load_audio_from_video
            hint = " The track of a video is taken along with `load_audio_from_video=True`." if tracks_left else ""
            token = TOKENS[modality]
            raise ValueError(
                f"The prompts have {found[modality]} {token} placeholders, but {len(given)} {modality} inputs were "
                f"given: the number of {token} tokens in the prompts should be the same as the number of {modality} "
                f"inputs.{hint}"
            )
    for prompt, (slots, given) in enumerate(zip(placeholders, images_given)):
        wanted = sum(slot.modality == "image" for slot in slots)
        if len(images_given) == len(prompts) and wanted != given:
            raise ValueError(
                f"Prompt {prompt} has {wanted} {IMAGE_TOKEN} placeholders, but {given} images were given."
            )
    return PromptBatch(prompts, placeholders, images, videos, clips, tracks, heard)


def flatten_images(images) -> list:
    """The images of a batch, one after another."""
    if images is None:
        return []
    if isinstance(images, (list, tuple)):
        return [image for item in images for image in flatten_images(item)]
    return list(images) if getattr(images, "ndim", 3) == 4 else [images]


def flatten_audio(audio) -> list:
    """The clips of a batch, one after another: sources, arrays, tensors or lists of samples, what `is_clip` knows."""
    if audio is None:
        return []
    if is_clip(audio) or not isinstance(audio, (list, tuple)) or (audio and isinstance(audio[0], (int, float))):
        return [audio]
    return [clip for item in audio for clip in flatten_audio(item)]


def _strip_pairs(prompts: Sequence[str], num_clips: int) -> list[str]:
    """Takes out the `<sound>` of the release's `<sound><vila/video>` if, by their numbers, it stands for a track."""
    num_sounds = sum(match.lastgroup == "audio" for prompt in prompts for match in PLACEHOLDER.finditer(prompt))
    num_pairs = sum(len(PAIR.findall(prompt)) for prompt in prompts)
    if num_sounds == num_clips + num_pairs:
        return [PAIR.sub(VIDEO_TOKEN, prompt) for prompt in prompts]
    return list(prompts)


def _assign_audio(
    audio: list,
    audio_from_video_indices: Sequence[int | None] | None,
    num_videos: int,
    load_audio_from_video: bool,
    is_said: bool,
) -> tuple[list, list, list[bool]]:
    """Sorts `audio` into clips of their own and tracks of videos; says for each video whether it is heard."""
    tracks, heard = [None] * num_videos, [False] * num_videos
    if not load_audio_from_video or not num_videos:
        return audio, tracks, heard
    if audio_from_video_indices is None:
        if audio and is_said:
            raise ValueError("Mixing `audio` with `load_audio_from_video=True` needs `audio_from_video_indices`.")
        return audio, tracks, [True] * num_videos
    links = [index for index in audio_from_video_indices if index is not None]
    if len(set(links)) < len(links) or any(not 0 <= index < num_videos for index in links):
        raise ValueError(
            f"`audio_from_video_indices={list(audio_from_video_indices)}` must name each of the {num_videos} videos "
            "at most once, from 0 on."
        )
    for index in links:
        heard[index] = True
    if len(audio) == len(audio_from_video_indices):
        slots = list(zip(audio, audio_from_video_indices))
        for clip, index in slots:
            if index is not None:
                tracks[index] = clip
        return [clip for clip, index in slots if index is None], tracks, heard
    num_clips = len(audio_from_video_indices) - len(links)
    if len(audio) != num_clips:
        raise ValueError(
            f"`audio_from_video_indices` has {num_clips} slots for clips of their own and {len(links)} for tracks, "
            f"but {len(audio)} audio inputs were given: pass the clips, or the clips and the tracks."
        )
    return audio, tracks, heard
