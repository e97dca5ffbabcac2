"""Whisper, or another model for speech recognition: what is spoken in a clip."""

from dataclasses import dataclass
from functools import cached_property

from ...inference.speech.recognisers import HEARING_RATE, WhisperRecogniser
from ..clip_media import load_sound
from .process_model import ProcessModel
from .protocol import Reply, Request


@dataclass(frozen=True)
class WhisperOptions:
    """
    Which model, and how.

    Attributes:
        model (`str`):
            A folder, or a repository of the Hub such as `"openai/whisper-large-v3"`; one with `model.bin` is read by
            faster-whisper.
        device (`str`), dtype (`str`): As transformers takes them.
        language (`str`, *optional*): Of the speech. `None`: the model finds out, if it knows several.
    """

    model: str
    device: str = "cpu"
    dtype: str = "auto"
    language: str | None = None


class Whisper(ProcessModel):
    """A [`Backend`] that answers with the transcript of the one sound in a request, whatever its text."""

    fails_to = "write down speech"

    @cached_property
    def recogniser(self) -> WhisperRecogniser:
        """The model, which is loaded when it first hears something."""
        options = self.options
        return WhisperRecogniser(options.model, options.language, options.device, options.dtype)

    def answer(self, request: Request) -> Reply:
        """What is spoken; an empty text if nothing is."""
        (medium,) = request.media
        sound = load_sound(medium.source, medium.start, medium.end, HEARING_RATE)
        return Reply(self.recogniser.transcribe(sound, medium.start))
