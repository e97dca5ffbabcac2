"""A model of transformers in this process: OmniVinci itself, or any `image-text-to-text` or `any-to-any` model."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import PIL.Image

from ...hub_options import may_be_repository
from ...nano import NANO
from ..clip_media import load_clip, load_sound
from .protocol import Medium, Reply, Request

OWN = "nano"
"""What configs call the small model that comes with the package."""

PIPELINES = Literal["video-text-to-text", "image-text-to-text", "any-to-any", "text-generation"]


@dataclass(frozen=True)
class LocalModelOptions:
    """
    Which model, and how.

    Attributes:
        model (`str`): A folder, or a repository of the Hub; `"nano"` is the small model that comes with the package.
        pipeline (`str`):
            The pipeline of transformers. `"video-text-to-text"` is OmniVinci's, which reads stretches of videos where
            they are; the others are shown frames as images, and sound as samples. `"text-generation"` reads no media.
        device (`str`), dtype (`str`): As transformers takes them.
        fps (`float`), max_frames (`int`): Frames of a clip, a second and at most. OmniVinci samples its own number.
        sampling_rate (`int`): Of the sound that other models are given, in Hz.
    """

    model: str
    pipeline: PIPELINES = "video-text-to-text"
    device: str = "cpu"
    dtype: str = "auto"
    fps: float = 1.0
    max_frames: int = 32
    sampling_rate: int = 16_000


def check_name(model: str) -> None:
    """A ValueError unless a model is a folder, or may be a repository of the Hub."""
    if model != OWN and not os.path.isdir(model) and not may_be_repository(model):
        raise ValueError(f"There is no folder {model!r}: a folder, or a repository such as owner/name, is accepted.")


class LocalModel:
    """A [`Backend`] around a pipeline of transformers. Requests are answered one after another."""

    def __init__(self, options: LocalModelOptions):
        self.options, self.model = options, options.model

    @cached_property
    def _pipeline(self):
        from transformers import pipeline

        path = NANO if self.options.model == OWN else self.options.model
        return pipeline(self.options.pipeline, model=path, device=self.options.device, dtype=self.options.dtype)

    def check(self) -> None:
        """A ValueError if there is no such folder, and the name cannot be that of a repository of the Hub."""
        check_name(self.options.model)

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._complete(request) for request in requests]

    def _complete(self, request: Request) -> Reply:
        import torch

        try:
            chat = [{"role": "user", "content": [*self._items(request), {"type": "text", "text": request.text}]}]
            if self.options.pipeline == "text-generation":
                chat[0]["content"] = request.text
            options = {"max_new_tokens": request.max_tokens, "do_sample": request.temperature > 0}
            if request.temperature > 0:
                options["temperature"] = request.temperature
                torch.manual_seed(request.seed)
            if self.options.pipeline == "video-text-to-text":
                options["load_audio_from_video"] = any(medium.senses == "both" for medium in request.media)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what differs between a config and these options
                (answer,) = self._pipeline(chat, return_full_text=False, **options)
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            return Reply(error=f"The model {self.model} cannot answer: {' '.join(str(error).split())}")
        text = answer["generated_text"]
        tokenizer = self._pipeline.tokenizer
        return Reply(text, len(tokenizer.encode(request.text)), len(tokenizer.encode(text)))

    def _items(self, request: Request) -> list[dict]:
        return [item for medium in request.media for item in self._items_of(medium)]

    def _items_of(self, medium: Medium) -> list[dict]:
        items = []
        is_own = self.options.pipeline == "video-text-to-text"
        if self.options.pipeline == "text-generation":
            raise ValueError("it reads text alone, and was shown a clip.")
        if medium.senses != "sound":
            if is_own:
                span = {"video_start": medium.start, "video_end": medium.end}
                items.append({"type": "video", "path": medium.source, **span})
            else:
                frames = load_clip(medium, self.options.fps, self.options.max_frames).frames
                pictures = (PIL.Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames)
                items += [{"type": "image", "image": picture} for picture in pictures]
        if medium.senses == "sound" or (medium.senses == "both" and not is_own):
            rate = 16_000 if is_own else self.options.sampling_rate
            sound = load_sound(medium.source, medium.start, medium.end, rate)
            items.append({"type": "audio", "audio": sound})
        return items
