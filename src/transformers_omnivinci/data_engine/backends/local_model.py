"""A model of transformers in this process: OmniVinci itself, or any `image-text-to-text` or `any-to-any` model."""

import warnings
from dataclasses import dataclass
from typing import Literal

import PIL.Image

from ..clip_media import load_clip, load_sound
from .process_model import ProcessModel
from .protocol import Medium, Reply, Request

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


class LocalModel(ProcessModel):
    """A [`Backend`] around a pipeline of transformers that writes text."""

    fails_to = "answer"

    @property
    def task(self) -> str:
        """As the config names it."""
        return self.options.pipeline

    def answer(self, request: Request) -> Reply:
        """The text that the model writes, greedily or by the seed of the request."""
        import torch

        chat = [{"role": "user", "content": [*self._items(request), {"type": "text", "text": request.text}]}]
        if self.task == "text-generation":
            chat[0]["content"] = request.text
        options = {"max_new_tokens": request.max_tokens, "do_sample": request.temperature > 0}
        if request.temperature > 0:
            options["temperature"] = request.temperature
            torch.manual_seed(request.seed)
        if self.task == "video-text-to-text":
            options["load_audio_from_video"] = any(medium.senses == "both" for medium in request.media)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what differs between a config and these options
            (answer,) = self.pipeline(chat, return_full_text=False, **options)
        text, tokenizer = answer["generated_text"], self.pipeline.tokenizer
        num_tokens = len(tokenizer.encode(text))
        return Reply(text, len(tokenizer.encode(request.text)), num_tokens, is_cut=num_tokens >= request.max_tokens)

    def _items(self, request: Request) -> list[dict]:
        return [item for medium in request.media for item in self._items_of(medium)]

    def _items_of(self, medium: Medium) -> list[dict]:
        items = []
        is_own = self.task == "video-text-to-text"
        if self.task == "text-generation":
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
