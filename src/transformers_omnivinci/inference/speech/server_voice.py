"""Voices of servers that speak OpenAI's `/v1/audio/speech`: Magpie, Kokoro, vLLM-Omni, or any API."""

import os

import numpy as np

from ...compat import http_library
from ...media import load_audio
from .voice import SPEECH_RATE, SentenceVoice, check_speed

MAX_SAID = 200
"""Characters of a server's message that errors repeat."""


class AudioServer:
    """
    A server of OpenAI's audio API.

    Args:
        url (`str`): Up to and with `/v1`.
        api_key_env (`str`, *optional*): The environment variable that holds the key.
        timeout (`float`, defaults to 60.0): Seconds that the server may be silent.

    Raises:
        ValueError: it is no http or https URL.
        OSError: the environment variable is not set.
    """

    def __init__(self, url: str, api_key_env: str | None = None, timeout: float = 60.0):
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"The server {url!r:.80} is no http or https URL.")
        if api_key_env and not os.environ.get(api_key_env):
            raise OSError(f"The environment variable {api_key_env}, for the key of {url}, is not set.")
        self.url, self.timeout = url.rstrip("/"), timeout
        self._httpx = http_library()
        headers = {"Authorization": f"Bearer {os.environ[api_key_env]}"} if api_key_env else {}
        self._client = self._httpx.Client(timeout=timeout, headers=headers, follow_redirects=True)

    def post(self, path: str, **options) -> bytes:
        """The body of an answer. Raises an OSError of one sentence if there is none, or it breaks off."""
        try:
            response = self._client.post(f"{self.url}/{path}", **options)
        except self._httpx.TimeoutException as error:
            raise OSError(f"The server {self.url} did not answer for {self.timeout:g} s.") from error
        except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
            raise OSError(f"The server {self.url} cannot be asked: {str(error) or type(error).__name__}.") from error
        if response.status_code != 200:
            said = " ".join(response.text.split())[:MAX_SAID]
            raise OSError(f"The server {self.url} answers {response.status_code}: {said}")
        return response.content


class ServerVoice(SentenceVoice):
    """
    A voice of a server.

    Args:
        server ([`AudioServer`]): Where it speaks.
        model (`str`, defaults to `"tts-1"`), voice (`str`, defaults to `"alloy"`): As the server calls them.
        speed (`float`, defaults to 1.0): How fast, 1 being the voice's own.
        language (`str`, defaults to `"en"`), reads_out (`bool`, defaults to `True`): As in [`SentenceVoice`].
    """

    def __init__(
        self,
        server: AudioServer,
        model: str = "tts-1",
        voice: str = "alloy",
        speed: float = 1.0,
        language: str = "en",
        reads_out: bool = True,
    ):
        super().__init__(server.url, language, reads_out)
        self.server, self.model, self.voice, self.speed = server, model, voice, check_speed(speed)

    def speak(self, text: str) -> np.ndarray:
        body = {"model": self.model, "input": text, "voice": self.voice, "response_format": "wav"}
        if self.speed != 1:
            body["speed"] = self.speed
        content = self.server.post("audio/speech", json=body)
        try:
            return load_audio(content, sampling_rate=SPEECH_RATE)
        except ValueError as error:
            raise OSError(f"The server {self.server.url} sent no sound for {text!r:.80}: {error}") from error
