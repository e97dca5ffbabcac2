"""Finished segments as chats, which `omnivinci train` reads as they are."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from ..media import is_url
from .columns import OmniCaption, Provenance, QuestionAnswer, Questions, Segment
from .config import WriteConfig
from .typed import hints, read

LETTERS = "ABCDEFGHIJ"
CAPTION_PROMPTS = (
    "Describe in detail what is seen and heard in this video.",
    "What happens in this video? Tell of picture and sound, in the order of time.",
    "Write a caption of this video that covers what is visible and what is audible.",
)


def name_of(source: str, folder: Path) -> str:
    """How a chat in `folder` names a source: a URL as it is, a path relative to the folder."""
    return source if is_url(source) else Path(os.path.relpath(source, os.path.abspath(folder))).as_posix()


def clip_item(segment: Segment, folder: Path) -> dict:
    """The item of a chat that shows a segment where it is in its source."""
    name = "url" if is_url(segment.source) else "path"
    span = {"video_start": segment.start, "video_end": segment.end}
    return {"type": "video", name: name_of(segment.source, folder), **span}


def written_question(question: QuestionAnswer) -> str:
    """A question with its options and their letters, if it has any."""
    lines = [question.question, *(f"{letter}. {one}" for letter, one in zip(LETTERS, question.options))]
    return "\n".join(lines)


def written_answer(question: QuestionAnswer, with_reasoning: bool) -> str:
    """The answer, after its reasoning if that is wanted; of a multiple choice, the letter of the option."""
    answer = LETTERS[question.options.index(question.answer)] if question.options else question.answer
    return f"{question.reasoning}\n\nAnswer: {answer}" if with_reasoning and question.reasoning else answer


def kept_questions(row: dict, config: WriteConfig) -> list[tuple[int, QuestionAnswer]]:
    """The questions of a segment that have no mark with which they are left out, with their numbers."""
    questions = _columns(row, Questions).questions if "questions" in row else []
    return [(number, one) for number, one in enumerate(questions) if {*one.marks}.isdisjoint(config.drop)]


def chats_of(
    row: dict, config: WriteConfig, folder: Path, seed: int | None = None, left_out: Collection[int | str] = ()
) -> Iterator[dict]:
    """
    The chats of a finished segment.

    Args:
        row (`dict`): With the columns of all stages.
        config ([`WriteConfig`]): What is wanted.
        folder (`Path`): Where the chats are, to which paths are relative.
        seed (`int`, *optional*): That of the run, from which those of all requests follow.
        left_out (`Collection[int | str]`, *optional*): Numbers of questions, and `"caption"`, that are not written.

    Yields:
        `dict`: `id`, `messages`, `category` (`"caption"` or that of the question) and `provenance`: the source, its
        seconds, the seed, and the back end, model and prompt of each stage.
    """
    segment = segment_of(row)
    item = clip_item(segment, folder)
    provenance = {"source": name_of(segment.source, folder), "start": segment.start, "end": segment.end}
    provenance |= {} if seed is None else {"seed": seed}
    provenance["stages"] = [_told(read(Provenance, one, "the provenance")) for one in row.get("provenance", [])]
    if config.captions and "omni_caption" in row and "caption" not in left_out:
        prompt = CAPTION_PROMPTS[sum(segment.id.encode()) % len(CAPTION_PROMPTS)]
        caption = _columns(row, OmniCaption).omni_caption
        yield _chat(f"{segment.id}-caption", [item, _text(prompt)], caption, "caption", provenance)
    for number, question in kept_questions(row, config):
        if number in left_out:
            continue
        content = [item, _text(written_question(question))]
        if question.speech:
            content[1] = {"type": "audio", "path": question.speech}
        answer = written_answer(question, config.reasoning)
        chat = _chat(f"{segment.id}-{number}", content, answer, question.category, provenance)
        yield chat | ({"marks": question.marks} if question.marks else {})


def segment_of(row: dict) -> Segment:
    """The segment that a row is."""
    return _columns(row, Segment)


def without_media(chat: dict, span: dict[str, float]) -> tuple[dict, str | None]:
    """
    A chat whose media come along under no name: items of media are places for them, in their order.

    Args:
        chat (`dict`): One of [`chats_of`].
        span (`dict[str, float]`): `video_start` and `video_end` in the video that comes along.

    Returns:
        `tuple[dict, str | None]`: the chat, and the path of its spoken question, relative to the output.
    """
    items, speech = [], None
    for item in chat["messages"][0]["content"]:
        if item["type"] == "audio":
            items, speech = [*items, {"type": "audio"}], item["path"]
        else:
            items.append({"type": "video", **span} if item["type"] == "video" else item)
    question, *others = chat["messages"]
    return chat | {"messages": [question | {"content": items}, *others]}, speech


def _chat(name: str, content: list[dict], answer: str, category: str, provenance: dict) -> dict:
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": [_text(answer)]}]
    return {"id": name, "messages": messages, "category": category, "provenance": provenance}


def _text(text: str) -> dict:
    return {"type": "text", "text": text}


def _columns(row: dict, kind: type):
    return read(kind, {name: row[name] for name in hints(kind)}, f"the segment {row.get('id')}")


def _told(provenance: Provenance) -> dict:
    return {name: getattr(provenance, name) for name in ("stage", "backend", "model", "prompt")}
