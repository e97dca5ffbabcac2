"""Servers that speak OpenAI's chat completions: vLLM, `omnivinci serve`, or any API."""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

from ...compat import http_library
from ..clip_media import data_url, jpeg, load_clip, load_sound, mp4, wav
from ..patience import GiveUp, Patience, RateLimit, TryAgain
from .protocol import Medium, Reply, Request

PASSING = (408, 409, 425, 429)
"""Codes of answers that may be others later, beside those of errors of the server, from 500 on."""
OWN_ENTRIES = ("model", "messages", "max_tokens", "temperature", "seed", "stream", "response_format")
"""Entries of requests that come from elsewhere in the config, or must be as they are."""
MAX_SAID = 200
"""Characters of a server's message that errors repeat."""


@dataclass(frozen=True)
class ServerOptions:
    """
    How a server is asked.

    Attributes:
        url (`str`): Up to and with `/v1`.
        model (`str`): The name of the model there.
        api_key_env (`str`, *optional*): The environment variable that holds the key.
        video (`"frames"` or `"mp4"`): Whether a picture is sent as images or as one video without sound.
        audio (`"input_audio"` or `"audio_url"`): As which kind of part a sound is sent, a WAV in base64.
        fps (`float`), max_frames (`int`): Frames of a clip that are sent, a second and at most.
        max_side (`int`): The longer side of images, in pixels.
        structured (`"json_schema"`, `"json_object"` or `"none"`): How the server is told of wanted structures.
        parameters (`dict`): Further entries of each request, such as `{frequency_penalty: 0.3}`.
        concurrency (`int`): Requests at a time, of each process.
        requests_per_minute (`float`, *optional*): Of each process.
        timeout (`float`): Seconds until an attempt counts as failed.
        retries (`int`): After it has, or the server was busy or down.
        prompt_price (`float`), completion_price (`float`): Of a million tokens.
    """

    url: str
    model: str
    api_key_env: str | None = None
    video: Literal["frames", "mp4"] = "frames"
    audio: Literal["input_audio", "audio_url"] = "input_audio"
    fps: float = 1.0
    max_frames: int = 32
    max_side: int = 768
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"
    parameters: dict = field(default_factory=dict)
    concurrency: int = 8
    requests_per_minute: float | None = None
    timeout: float = 300.0
    retries: int = 5
    prompt_price: float = 0.0
    completion_price: float = 0.0

    def __post_init__(self):
        for name in ("fps", "max_frames", "max_side", "concurrency", "timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` of the server {self.url} is {getattr(self, name)}: it must be positive.")
        if self.retries < 0 or (self.requests_per_minute is not None and self.requests_per_minute <= 0):
            raise ValueError(f"`retries` and `requests_per_minute` of the server {self.url} must not be negative.")
        if own := [name for name in self.parameters if name in OWN_ENTRIES]:
            raise ValueError(f"`parameters` of the server {self.url} has {own[0]!r}, which the engine sets itself.")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"The server {self.url!r:.80} is no http or https URL.")


class OpenAIServer:
    """A [`Backend`] that asks a server, several requests at a time."""

    def __init__(self, options: ServerOptions, patience: Patience | None = None):
        self.options, self.model = options, options.model
        self._patience = patience or Patience(options.retries)
        self._limit = RateLimit(options.requests_per_minute)
        self._httpx = http_library()
        headers = {}
        if options.api_key_env:
            key = os.environ.get(options.api_key_env)
            if not key:
                raise ValueError(f"The environment has no {options.api_key_env}, the key for {options.url}.")
            headers["Authorization"] = f"Bearer {key}"
        limits = self._httpx.Limits(max_connections=options.concurrency)
        self._client = self._httpx.Client(timeout=options.timeout, headers=headers, limits=limits)

    def check(self) -> None:
        """A ConnectionError if nothing answers at the URL; what it answers does not matter."""
        try:
            self._client.get(f"{self.options.url.rstrip('/')}/models", timeout=min(10.0, self.options.timeout))
        except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
            raise ConnectionError(
                f"The server {self.options.url} does not answer: {error or type(error).__name__}."
            ) from error

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        with ThreadPoolExecutor(self.options.concurrency) as pool:
            return list(pool.map(self._complete, requests))

    def _complete(self, request: Request) -> Reply:
        started = time.monotonic()
        try:
            body = self._body(request)
            reply = self._patience(lambda: self._attempt(body))
        except (GiveUp, OSError, ValueError) as error:
            reply = Reply(error=" ".join(str(error).split()))
        return replace(reply, seconds=time.monotonic() - started)

    def _body(self, request: Request) -> dict:
        parts = [part for medium in request.media for part in self._parts(medium)]
        body = {
            **self.options.parameters,
            "model": self.model,
            "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": request.text}]}],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if request.schema is not None and self.options.structured != "none":
            body["response_format"] = {"type": self.options.structured}
            if self.options.structured == "json_schema":
                named = {"name": request.task, "schema": request.schema, "strict": True}
                body["response_format"]["json_schema"] = named
        return body

    def _parts(self, medium: Medium) -> list[dict]:
        options, parts = self.options, []
        if medium.senses != "sound":
            silent = replace(medium, senses="picture")
            frames = load_clip(silent, options.fps, options.max_frames).frames.permute(0, 2, 3, 1).numpy()
            if options.video == "mp4":
                content = mp4(frames, len(frames) / (medium.end - medium.start), None)
                parts.append({"type": "video_url", "video_url": {"url": data_url(content, "video/mp4")}})
            else:
                urls = [data_url(jpeg(frame, options.max_side), "image/jpeg") for frame in frames]
                parts += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        if medium.senses != "picture":
            url = data_url(wav(load_sound(medium.source, medium.start, medium.end)), "audio/wav")
            if options.audio == "audio_url":
                parts.append({"type": "audio_url", "audio_url": {"url": url}})
            else:
                sound = {"data": url.partition(",")[2], "format": "wav"}
                parts.append({"type": "input_audio", "input_audio": sound})
        return parts

    def _attempt(self, body: dict) -> Reply:
        self._limit.wait()
        url = f"{self.options.url.rstrip('/')}/chat/completions"
        try:
            response = self._client.post(url, json=body)
        except self._httpx.TimeoutException as error:
            raise TryAgain(f"The server {self.options.url} did not answer for {self.options.timeout:g} s.") from error
        except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise TryAgain(f"The server {self.options.url} cannot be asked: {reason}.") from error
        if response.status_code != 200:
            said = " ".join(response.text.split())[:MAX_SAID]
            told = f"The server {self.options.url} answers {response.status_code}: {said}"
            if response.status_code in PASSING or response.status_code >= 500:
                raise TryAgain(told, _seconds(response.headers.get("retry-after")))
            raise GiveUp(told)
        return self._read(response)

    def _read(self, response) -> Reply:
        try:
            content = response.json()
            choice = content["choices"][0]
            message, usage = choice["message"], content.get("usage") or {}
            text, refusal = message.get("content"), message.get("refusal")
            tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            said = " ".join(response.text.split())[:MAX_SAID]
            raise TryAgain(f"The server {self.options.url} answers what is no chat completion: {said!r}.") from error
        if refusal or choice.get("finish_reason") == "content_filter":
            said = str(refusal or "its answer was filtered").rstrip(".")
            return Reply("", *tokens, error=f"The model refuses: {said}.")
        if not isinstance(text, str):
            return Reply("", *tokens, error=f"The model {self.model} answers no text.")
        return Reply(text, *tokens, is_cut=choice.get("finish_reason") == "length")


def _seconds(retry_after: str | None) -> float | None:
    """The seconds of the header `Retry-After`, which may be a date as well."""
    try:
        return None if retry_after is None else max(0.0, float(retry_after))
    except ValueError:
        return None
