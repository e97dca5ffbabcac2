"""
What the stages ask of a model, whatever it is and wherever it runs.

A back end gets requests and returns replies, one for each and in their order. What one request met with is an error in
its reply; whatever would meet all requests is raised.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Senses = Literal["picture", "sound", "both"]


@dataclass(frozen=True)
class Medium:
    """
    A stretch of a video, or one of its two sides.

    Attributes:
        source (`str`): Path or URL of the video.
        start (`float`), end (`float`): In seconds of the video.
        senses (`str`): `"picture"` is shown without its sound, and `"sound"` without its picture.
    """

    source: str
    start: float
    end: float
    senses: Senses


@dataclass(frozen=True)
class Request:
    """
    What a model is asked.

    Attributes:
        task (`str`): The name of the stage that asks.
        text (`str`): The prompt, complete.
        media (`tuple[Medium, ...]`): What is shown before the text.
        schema (`dict`, *optional*):
            JSON schema of the answer. `None`: plain text, or what follows from the type that is wanted.
        fields (`dict`): What the prompt was made of, for back ends that follow rules instead of reading it.
        seed (`int`): For whatever is random.
        max_tokens (`int`), temperature (`float`): As servers take them.
    """

    task: str
    text: str
    media: tuple[Medium, ...] = ()
    schema: dict | None = None
    fields: dict = field(default_factory=dict)
    seed: int = 0
    max_tokens: int = 1024
    temperature: float = 0.0


@dataclass(frozen=True)
class Reply:
    """
    What came back.

    Attributes:
        text (`str`): The answer; empty with an error.
        prompt_tokens (`int`), completion_tokens (`int`): As the model counts them; 0 where it does not.
        seconds (`float`): From the request to its answer, with all attempts.
        sound (`bytes`): A WAV file, of voices, which speak the text of a request.
        is_cut (`bool`): Whether the answer ended because it had as many tokens as it may have.
        error (`str`): One sentence on why there is no answer.
    """

    text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    sound: bytes = b""
    is_cut: bool = False
    error: str = ""


class Backend(Protocol):
    """
    A model that answers requests. It is made in the process that uses it, of its options alone, which are a dataclass.

    Attributes:
        model (`str`): What the provenance of a sample calls it.
    """

    model: str

    def check(self) -> None:
        """Raises an error of one sentence if there is no hope that requests are answered. Nothing large is loaded."""

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        """A reply to each request."""
