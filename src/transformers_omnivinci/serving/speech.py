"""OpenAI's audio API: what is spoken, and answers of chats as sound."""

import base64
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence

from ..endpoint import RequestError
from ..endpoint.parameters import given_entries, read_number, read_object, refuse_others, refuse_unknown
from ..inference.speech import SPEECH_RATE, Spoken, Voice, join_spoken, make_voice
from ..media import SOUND_FORMATS, SoundEncoder, encode_sound
from .speaking_along import speak_along

MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
OPENAI_VOICES = ("alloy", "ash", "ballad", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer", "verse")
"""Names that clients send because OpenAI's API wants one: the first voice of the server speaks."""
LONGEST_INPUT = 4096
"""Characters that a request may have spoken, as in OpenAI's API."""


class VoiceError(OSError):
    """The voice of the server fails, which is no fault of the request."""


class Speech:
    """
    The voices of a server.

    Args:
        names (`Sequence[str]`):
            As [`~transformers_omnivinci.inference.speech.make_voice`] takes them; the first is the usual one. None:
            requests for speech are refused.

    Raises:
        ValueError, OSError: one of them cannot speak.
    """

    def __init__(self, names: Sequence[str] = ()):
        self.names = list(names)
        for name in self.names:
            make_voice(name)

    def find(self, name, speed: float = 1.0) -> Voice:
        """The voice that a request names. Raises a `RequestError` if the server has none of this name."""
        if not self.names:
            raise RequestError(422, "This server does not speak: `omnivinci serve --voice auto` starts one that does.")
        if isinstance(name, Mapping):
            name = name.get("id")  # as OpenAI has voices of one's own
        if name is not None and name not in (*OPENAI_VOICES, *self.names):
            raise RequestError(
                422, f"`voice` can be {', '.join(self.names)} here, or a name of OpenAI's, got {name!r:.80}."
            )
        try:
            return make_voice(name if name in self.names else self.names[0], speed)
        except (OSError, ValueError) as error:
            raise VoiceError(str(error)) from error

    # --------------------------------------------------------------------------------------------- /v1/audio/speech

    def read_request(self, body: Mapping) -> tuple[Iterator[Spoken], str, bool]:
        """
        The sentences for a request of `/v1/audio/speech`, of which the first has been spoken, their format, and
        whether they are sent as events. Raises a `RequestError` if it is refused, a `VoiceError` if the voice fails.
        """
        body = given_entries(body)
        known = ("model", "input", "voice", "response_format", "speed", "instructions", "stream_format")
        refuse_unknown("The request", body, known)
        text, format = body.get("input"), body.get("response_format", "mp3")
        if not isinstance(text, str) or not text.strip():
            raise RequestError(400, "`input` is the text that is spoken, and must not be empty.")
        if len(text) > LONGEST_INPUT:
            raise RequestError(413, f"`input` has {len(text)} characters: {LONGEST_INPUT} are accepted.")
        if body.get("instructions"):
            raise RequestError(422, "`instructions` is not supported: the voices of this server take none.")
        refuse_others("response_format", format, SOUND_FORMATS)
        refuse_others("stream_format", body.get("stream_format", "audio"), ("audio", "sse"))
        speed = read_number("speed", body.get("speed", 1.0), float, 0.25, 4.0)
        spoken = _guard(self.find(body.get("voice"), speed).synthesize([text]))
        first = next(spoken, None)
        if first is None:
            raise RequestError(422, f"There is nothing to say in {text!r:.80}: letters or digits are needed.")
        return _chain(first, spoken), format, body.get("stream_format") == "sse"

    # ------------------------------------------------------------------------------------------------------- chats

    def read_audio(self, chat: dict, is_streamed: bool) -> tuple[Voice, str] | None:
        """
        Who speaks the answer to a chat, and in which format; `None` if it is text alone. Takes `modalities` and
        `audio` out of the request. Raises a `RequestError` if what they ask for cannot be had.
        """
        modalities = chat.get("modalities")
        if not isinstance(modalities, list) or "audio" not in modalities:
            return None
        if sorted(map(str, modalities)) not in (["audio", "text"], ["audio"]):
            raise RequestError(422, f"`modalities` can be ['text'] or ['text', 'audio'], got {modalities!r:.80}.")
        options = read_object("audio", chat.get("audio"))
        refuse_unknown("`audio`", options, ("voice", "format"))
        formats = ("pcm16",) if is_streamed else ("wav", "aac", "mp3", "flac", "opus", "pcm16")
        format = options.get("format", formats[0])
        refuse_others("format", format, formats)
        if chat.get("n") not in (None, 1):
            raise RequestError(422, "`n` is 1 where the answer is spoken.")
        voice = self.find(options.get("voice"))
        del chat["modalities"]
        chat.pop("audio", None)
        return voice, "pcm" if format == "pcm16" else format

    def speak_completion(self, completion: dict, voice: Voice, format: str) -> dict:
        """A chat completion whose answer is spoken. One without any words stays as it is."""
        [choice] = completion["choices"]
        text = choice["message"]["content"]
        spoken = list(_guard(voice.synthesize([text])))
        if not spoken:
            return completion
        sound = encode_sound(join_spoken(spoken), SPEECH_RATE, format)
        audio = {**_audio(), "data": base64.b64encode(sound).decode(), "transcript": text}
        message = {**choice["message"], "content": None, "audio": audio}
        return {**completion, "choices": [{**choice, "message": message}]}

    def speak_chunks(self, chunks: Iterator[dict], voice: Voice) -> Iterator[dict]:
        """The chunks of a chat completion with `audio` in place of `content`, and the sound between them."""
        audio, encoder = _audio(), SoundEncoder("pcm", SPEECH_RATE)
        last: list[dict] = []

        def text_of(chunk: dict) -> str:
            return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])

        envelope: dict = {}
        for item in speak_along(chunks, text_of, lambda texts: _guard(voice.synthesize(texts))):
            if isinstance(item, Spoken):
                data = base64.b64encode(encoder.add(item.samples)).decode()
                yield _delta(envelope, {"audio": {**audio, "data": data}})
                continue
            envelope = {name: value for name, value in item.items() if name not in ("choices", "usage", "evidence")}
            if not item["choices"] or item["choices"][0]["finish_reason"] is not None:
                last.append(item)  # after all sound
            elif text := text_of(item):
                yield _delta(envelope, {"audio": {"id": audio["id"], "transcript": text}})
            else:
                yield item
        if rest := encoder.finish():
            yield _delta(envelope, {"audio": {**audio, "data": base64.b64encode(rest).decode()}})
        yield from last


def _audio() -> dict:
    """What an object of sound begins with. Nothing is stored: it has expired when it is sent."""
    return {"id": f"audio_{uuid.uuid4().hex}", "expires_at": int(time.time())}


def _delta(envelope: Mapping, delta: Mapping) -> dict:
    return {**envelope, "choices": [{"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}]}


def _guard(spoken: Iterator[Spoken]) -> Iterator[Spoken]:
    """The same, with the errors of a voice as `VoiceError`."""
    try:
        yield from spoken
    except OSError as error:
        raise VoiceError(str(error)) from error


def _chain(first: Spoken, spoken: Iterator[Spoken]) -> Iterator[Spoken]:
    yield first
    yield from spoken


def encode_pieces(spoken: Iterator[Spoken], format: str) -> Iterator[bytes]:
    """The bytes of a sound file, sentence by sentence."""
    encoder = SoundEncoder(format, SPEECH_RATE)
    for one in spoken:
        yield encoder.add(one.samples)
    yield encoder.finish()


def encode_events(spoken: Iterator[Spoken], format: str) -> Iterator[dict]:
    """The events of `stream_format: "sse"`."""
    for piece in encode_pieces(spoken, format):
        if piece:
            yield {"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()}
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}  # no voice counts any
    yield {"type": "speech.audio.done", "usage": usage}
