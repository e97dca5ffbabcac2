"""What was said and when, as text, JSON and subtitles."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TRANSCRIPT_FORMATS = ("txt", "srt", "vtt", "json")


@dataclass(frozen=True)
class Segment:
    """
    A stretch of speech.

    Attributes:
        start (`float`), end (`float`): In seconds of the sound.
        text (`str`): What was said.
    """

    start: float
    end: float
    text: str


def write_transcript(segments: Sequence[Segment], format: str, duration: float = 0.0) -> str:
    """
    Segments as a text that ends with a newline.

    Args:
        segments (`Sequence[Segment]`): In the order of time.
        format (`str`):
            `"txt"`: a line for each; `"srt"` and `"vtt"`: subtitles; `"json"`: an object with `text`, `duration` and
            `segments`.
        duration (`float`): Of the sound, in seconds.

    Raises:
        ValueError: there is no such format.
    """
    if format == "txt":
        return "".join(f"{one.text}\n" for one in segments)
    if format == "srt":
        parts = [
            f"{number}\n{_clock(one.start, ',')} --> {_clock(one.end, ',')}\n{one.text}\n"
            for number, one in enumerate(segments, 1)
        ]
        return "\n".join(parts)
    if format == "vtt":
        parts = [f"{_clock(one.start, '.')} --> {_clock(one.end, '.')}\n{one.text}\n" for one in segments]
        return "\n".join(["WEBVTT\n", *parts])
    if format == "json":
        return json.dumps(describe(segments, duration), ensure_ascii=False, indent=2) + "\n"
    raise ValueError(f"{format!r:.40} is no format of transcripts: {', '.join(TRANSCRIPT_FORMATS)} are accepted.")


def describe(segments: Sequence[Segment], duration: float) -> dict:
    """The object of a transcript, with the names of OpenAI's `verbose_json`."""
    told = [
        {"id": number, "start": round(one.start, 3), "end": round(one.end, 3), "text": one.text}
        for number, one in enumerate(segments)
    ]
    return {"duration": round(duration, 3), "text": join_text(segments), "segments": told}


def join_text(segments: Iterable[Segment]) -> str:
    """The whole text."""
    return " ".join(one.text for one in segments if one.text)


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"


_TIMES = re.compile(r"(?:(\d+):)?(\d\d):(\d\d)[.,](\d{3})\s+-->\s+(?:(\d+):)?(\d\d):(\d\d)[.,](\d{3})")


def read_transcript(content: str, name: str) -> list[Segment] | str:
    """
    The segments of subtitles or of a JSON transcript, or a plain text as it is. `name` is what errors call it.

    Raises:
        ValueError: a JSON object has neither `segments` nor `text`, or there is no text.
    """
    if content.lstrip().startswith("{"):
        try:
            told = json.loads(content)
            if "segments" in told:
                return [
                    Segment(float(one["start"]), float(one["end"]), one["text"].strip()) for one in told["segments"]
                ]
            return told["text"].strip()
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{name} is no transcript: an object with `text` or `segments` is accepted.") from error
    segments = []
    for block in re.split(r"\n\s*\n", content.replace("\r\n", "\n")):
        found = _TIMES.search(block)
        if found:
            numbers = [int(part or 0) for part in found.groups()]
            start, end = (((h * 60 + m) * 60_000 + s * 1000 + ms) / 1000 for h, m, s, ms in (numbers[:4], numbers[4:]))
            segments.append(Segment(start, end, " ".join(block[found.end() :].split())))
    if segments:
        return segments
    if not content.strip():
        raise ValueError(f"{name} is empty: the text of a transcript is accepted.")
    return " ".join(content.split())
