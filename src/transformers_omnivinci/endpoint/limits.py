"""What one request may ask for, and the error that refuses it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from http import HTTPStatus


class RequestError(ValueError):
    """
    A request that is refused. The inference toolkit answers every exception with `{"error": str(exception)}` and the
    status 400: the message therefore begins with the intended status. `reason` is the message without it.

    `status` is 400: malformed, or a URL that is not fetched; 413: too large; 415: not a medium of its kind; 422: a
    parameter that is unknown or out of range; 502, 504: a URL that does not answer, or not in time.
    """

    def __init__(self, status: int, reason: str):
        super().__init__(f"{status} {HTTPStatus(status).phrase}: {reason}")
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Limits:
    """
    What one request may ask for. Environment variables override the defaults: `OMNIVINCI_MAX_MEDIA_BYTES=50000000`.

    Attributes:
        max_media (`int`): Number of images, videos and sounds together.
        max_media_bytes (`int`), max_total_bytes (`int`): File size of one medium, and of all of them together.
        max_media_seconds (`float`): Total duration of videos and sounds; of a video, the part that is used.
        max_pixels (`int`): Pixels of an image or of a video frame.
        max_frames (`int`): Frames sampled from each video.
        max_text_characters (`int`): Characters of all texts together.
        max_new_tokens (`int`): Tokens of an answer.
        max_sequences (`int`): Number of answers, and of beams.
        max_redirects (`int`): Redirects followed for one URL.
        max_download_seconds (`float`): Total time of all downloads.

    Raises:
        ValueError: a limit is negative.
    """

    max_media: int = 16
    max_media_bytes: int = 100 * 2**20
    max_total_bytes: int = 200 * 2**20
    max_media_seconds: float = 3600.0
    max_pixels: int = 50_000_000
    max_frames: int = 512
    max_text_characters: int = 100_000
    max_new_tokens: int = 4096
    max_sequences: int = 8
    max_redirects: int = 3
    max_download_seconds: float = 60.0

    def __post_init__(self):
        for field in fields(self):
            if not getattr(self, field.name) >= 0:
                raise ValueError(f"The limit {field.name}={getattr(self, field.name)!r} is not a number from 0 on.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Limits":
        """The defaults, overridden by `OMNIVINCI_<LIMIT>`; a `ValueError` names what is no number or negative."""
        limits = {}
        for field in fields(cls):
            name, number_type = f"OMNIVINCI_{field.name.upper()}", type(field.default)
            if name in environment:
                try:
                    limits[field.name] = number_type(environment[name])
                except ValueError as error:
                    raise ValueError(f"{name}={environment[name]!r} is no {number_type.__name__}.") from error
        return cls(**limits)
