"""OpenAI's `/v1/audio/transcriptions`: speech that the model writes down, window by window."""

import base64
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ..endpoint import EndpointHandler, RequestError
from ..endpoint.generation import Cancelled
from ..endpoint.parameters import refuse_others, refuse_unknown
from ..inference.speech.recognisers import HEARING_RATE
from ..inference.speech.transcribing import load_speech, transcribe
from ..inference.speech.transcripts import Segment, describe, join_text, write_transcript
from ..media import encode_sound, probe_audio
from .second_opinion import SecondOpinion

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
MEDIA_TYPES = {"text": "text/plain", "srt": "text/plain", "vtt": "text/vtt"}
FIELDS = (
    "file",
    "model",
    "language",
    "prompt",
    "response_format",
    "temperature",
    "timestamp_granularities",
    "stream",
    "chunking_strategy",
)


class Transcription:
    """
    A request, read from its form. Raises a `RequestError` if it is refused, before anything is heard.

    Args:
        fields (`Mapping[str, list]`): Of the form, see [`read_form`].
        handler ([`EndpointHandler`]): What writes it down, within its limits.
        opinion ([`SecondOpinion`], *optional*): The recognisers beside it.
    """

    def __init__(self, fields: Mapping[str, list], handler: EndpointHandler, opinion: SecondOpinion | None = None):
        refuse_unknown("The form", fields, FIELDS)
        for name, values in fields.items():
            if len(values) > 1 and name != "timestamp_granularities":
                raise RequestError(400, f"The field {name!r} stands in the form {len(values)} times.")
        given = {name: values[0] for name, values in fields.items()}
        if files := sorted(name for name, value in given.items() if isinstance(value, bytes) and name != "file"):
            raise RequestError(400, f"The field {files[0]!r} of the form is a text, not a file.")
        content = given.get("file")
        if not isinstance(content, bytes) or not content:
            raise RequestError(400, "The form has no `file` with sound.")
        self.handler, self.content, self.opinion = handler, content, opinion or SecondOpinion()
        self.format = given.get("response_format", "json")
        refuse_others("response_format", self.format, FORMATS)
        for granularity in fields.get("timestamp_granularities", []):
            refuse_others("timestamp_granularities", granularity, ("segment",))
        refuse_others("stream", given.get("stream", "false"), ("false", "False", "true", "True"))
        self.is_streamed = given.get("stream", "false").lower() == "true"
        if given.get("prompt"):
            raise RequestError(422, "`prompt` is not supported: windows are written down one by one.")
        self.language = given.get("language") or ""
        self.temperature = self._temperature(given.get("temperature") or "0")
        try:
            self.seconds = probe_audio(content)
        except (ValueError, OSError) as error:
            raise RequestError(415, f"The file is not accepted as sound: {error}") from error
        if self.seconds > (most := handler.limits.max_media_seconds):
            raise RequestError(
                413, f"The sound lasts {self.seconds:.0f} s: {most:g} s are accepted here, `omnivinci transcribe` "
                "takes any."
            )  # fmt: skip

    @staticmethod
    def _temperature(given: str) -> float:
        try:
            return float(given)
        except ValueError as error:
            raise RequestError(422, f"`temperature` is a number, got {given!r:.40}.") from error

    def segments(self, cancelled: Cancelled | None = None) -> Iterator[Segment]:
        """What is said; a `RequestError` if the file cannot be decoded, a `RecogniserError` if another one fails."""
        try:
            samples = load_speech(self.content)
        except (ValueError, OSError) as error:
            raise RequestError(415, f"The file is not accepted as sound: {error}") from error
        recogniser = self.opinion.recogniser(self._asker(cancelled), self.handler)
        try:
            for segment in transcribe(samples, recogniser):
                yield segment
                if cancelled is not None and cancelled.is_set:
                    return
        except ValueError as error:
            raise error if isinstance(error, RequestError) else RequestError(422, str(error)) from error

    def _asker(self, cancelled: Cancelled | None) -> Callable[[np.ndarray, str], str]:
        def ask(samples: np.ndarray, prompt: str) -> str:
            sound = base64.b64encode(encode_sound(samples, HEARING_RATE, "wav")).decode()
            audio = {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}
            chat = {
                "messages": [{"role": "user", "content": [audio, {"type": "text", "text": prompt}]}],
                "temperature": self.temperature,
            }
            return self.handler.complete_chat(chat, cancelled)["choices"][0]["message"]["content"]

        return ask

    def write(self, segments: list[Segment]) -> dict | str:
        """The body of the answer: an object or, for texts and subtitles, a text."""
        if self.format in ("srt", "vtt"):
            return write_transcript(segments, self.format)
        text = join_text(segments)
        if self.format == "text":
            return text + "\n"
        usage = {"type": "duration", "seconds": round(self.seconds)}
        if self.format == "json":
            return {"text": text, "usage": usage}
        # OpenAI's objects have entries on how sure the model was, which are not known here.
        unknown = {"seek": 0, "tokens": [], "temperature": self.temperature}
        unknown |= {"avg_logprob": 0.0, "compression_ratio": 0.0, "no_speech_prob": 0.0}
        told = describe(segments, self.seconds)
        told["segments"] = [{**one, **unknown} for one in told["segments"]]
        return {"task": "transcribe", "language": self.language, **told, "usage": usage}

    def events(self) -> Iterator[dict]:
        """The events of a streamed answer, one for each segment and the last with all text."""
        segments: list[Segment] = []
        for segment in self.segments():
            delta = f" {segment.text}" if segments else segment.text
            segments.append(segment)
            yield {"type": "transcript.text.delta", "delta": delta}
        yield {"type": "transcript.text.done", "text": join_text(segments)}
