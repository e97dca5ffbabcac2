"""Whisper, or another model of transformers for speech recognition: what is spoken in a clip."""

from dataclasses import dataclass

from ..clip_media import SAMPLING_RATE, load_sound
from .process_model import ProcessModel
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


class Whisper(ProcessModel):
    """A [`Backend`] that answers with the transcript of the one sound in a request, whatever its text."""

    fails_to = "write down speech"
    task = "automatic-speech-recognition"

    def answer(self, request: Request) -> Reply:
        """What is spoken; an empty text if nothing is."""
        (medium,) = request.media
        sound = load_sound(medium.source, medium.start, medium.end)
        options = {"return_timestamps": True} if medium.end - medium.start > 30 else {}
        if self.options.language:
            options["generate_kwargs"] = {"language": self.options.language}
        answer = self.pipeline({"raw": sound, "sampling_rate": SAMPLING_RATE}, **options)
        return Reply(answer["text"].strip())
