"""Whisper, or another model of transformers for speech recognition: what is spoken in a clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..clip_media import SAMPLING_RATE, load_sound
from .local_model import check_name
from .protocol import Reply, Request


@dataclass(frozen=True)
class WhisperOptions:
    """
    Which model, and how.

    Attributes:
        model (`str`): A folder, or a repository of the Hub such as `"openai/whisper-large-v3"`.
        device (`str`), dtype (`str`): As transformers takes them.
        language (`str`, *optional*): Of the speech. `None`: the model finds out, if it knows several.
    """

    model: str
    device: str = "cpu"
    dtype: str = "auto"
    language: str | None = None


class Whisper:
    """A [`Backend`] that answers with the transcript of the one sound in a request, whatever its text."""

    def __init__(self, options: WhisperOptions):
        self.options, self.model = options, options.model

    @cached_property
    def _pipeline(self):
        from transformers import pipeline

        options = self.options
        return pipeline(
            "automatic-speech-recognition", model=options.model, device=options.device, dtype=options.dtype
        )

    def check(self) -> None:
        """A ValueError if there is no such folder, and the name cannot be that of a repository of the Hub."""
        check_name(self.options.model)

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._complete(request) for request in requests]

    def _complete(self, request: Request) -> Reply:
        try:
            (medium,) = request.media
            sound = load_sound(medium.source, medium.start, medium.end)
            options = {"return_timestamps": True} if medium.end - medium.start > 30 else {}
            if self.options.language:
                options["generate_kwargs"] = {"language": self.options.language}
            answer = self._pipeline({"raw": sound, "sampling_rate": SAMPLING_RATE}, **options)
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            return Reply(error=f"The model {self.model} cannot write down speech: {' '.join(str(error).split())}")
        return Reply(answer["text"].strip())
