"""
What lmms-eval hands over, as chats for [`OmniVinciProcessor`].

Tasks give media as PIL images, paths, URLs, audio objects of `datasets` or decoders of torchcodec, and either one text
or messages. Nothing here imports lmms-eval.
"""

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
import PIL.Image

from ... import media
from ...processing.chat_template import IMAGE_TOKEN

SAMPLING_RATE = 16_000
"""The rate in Hz of samples that come without one, as the audio models of lmms-eval take them."""
SPAN = {"start_time": "video_start", "end_time": "video_end"}
"""Options of a video in messages of lmms-eval, and what they are called here."""


def task_chat(text: str, visuals, system_prompt: str | None = None) -> list[dict]:
    """
    A question with its media, which stand in front of it. If the text has as many `<image>` as there are images, they
    stand there, as in the data sets of LLaVA; otherwise `<image>` is text.

    Args:
        text (`str`): What is asked.
        visuals: What `doc_to_visual` of a task returned: one medium, a list of them, or `None`. See [`medium_items`].
        system_prompt (`str`, *optional*): Default: that of the chat template.
    """
    items = list(medium_items(visuals))
    parts = text.split(IMAGE_TOKEN)
    images = [item for item in items if item["type"] == "image"]
    if not images or len(images) != len(parts) - 1:
        return _with_system([{"role": "user", "content": [*items, _text(text)]}], system_prompt)
    content = [item for item in items if item["type"] != "image"]
    for part, image in zip(parts, [*images, None], strict=True):
        content += [_text(part)] if part else []
        content += [image] if image else []
    return _with_system([{"role": "user", "content": content}], system_prompt)


def message_chat(messages: list[Mapping], system_prompt: str | None = None) -> list[dict]:
    """
    Messages as tasks of lmms-eval write them, whose items hold their medium as `url`.

    Args:
        messages (`list[Mapping]`): Each with `role` and `content`, a string or items of the types `text`, `image`,
            `video` and `audio`.
        system_prompt (`str`, *optional*): Stands in front, or in the place of the task's own. Default: that.

    Raises:
        ValueError: an item is not understood.
    """
    chat = []
    for message in messages:
        content = message["content"]
        items = [_text(content)] if isinstance(content, str) else [one for item in content for one in _read(item)]
        chat.append({"role": message["role"], "content": items})
    return _with_system(chat, system_prompt)


def medium_items(visuals) -> Iterable[dict]:
    """
    Media as content items.

    Args:
        visuals: A PIL image; a path or URL, whose content tells what it is; bytes, or `{"bytes": ..., "path": ...}`,
            likewise; `{"array": ..., "sampling_rate": ...}`, a decoder of torchcodec or what it has decoded; an array
            of samples at 16 kHz; `{"type": ..., "path": ...}`, for a video also with `video_start` and `video_end`; or
            a list of these. `None`: there are none.

    Raises:
        ValueError, OSError: a medium is not understood, or cannot be read.
    """
    if visuals is None:
        return
    if isinstance(visuals, (list, tuple)):
        for visual in visuals:
            if visual is None:
                raise ValueError("a medium is missing: it is None")
            yield from medium_items(visual)
    elif isinstance(visuals, PIL.Image.Image):
        yield {"type": "image", "image": visuals}
    elif isinstance(visuals, (str, os.PathLike)):
        yield _file(os.fspath(visuals))
    elif isinstance(visuals, (bytes, bytearray)):
        yield _content(bytes(visuals))
    elif isinstance(visuals, Mapping):
        yield _mapping(visuals)
    else:
        yield _sound(visuals)


def _read(item: Mapping) -> Iterable[dict]:
    """An item of a message of lmms-eval."""
    kind = item.get("type")
    if kind == "text":
        return [_text(item["text"])]
    if kind not in ("image", "video", "audio"):
        raise ValueError(f"a content item of type {kind!r:.40} is not understood")
    source, options = item.get("url"), {SPAN[name]: item[name] for name in SPAN if item.get(name) is not None}
    if isinstance(source, Mapping):  # a video with its span, or a sound, which lmms-eval takes for a video
        return [{**found, **options} for found in medium_items(source)]
    if source is None:
        raise ValueError(f"a content item of type {kind!r} has no medium")
    if isinstance(source, (str, os.PathLike, bytes)) or kind != "audio":
        return [{"type": kind, kind: source, **options}]
    return list(medium_items(source))


def _mapping(visual: Mapping) -> dict:
    if visual.get("array") is not None:
        return {"type": "audio", "audio": dict(visual)}
    kind = visual.get("type")
    sources = [visual[name] for name in ("url", "path", kind) if name and visual.get(name) is not None]
    if kind in ("image", "video", "audio") and len(sources) == 1:
        unknown = sorted(visual.keys() - {"type", "url", "path", kind, "video_start", "video_end"})
        if not unknown:
            options = {name: visual[name] for name in ("video_start", "video_end") if visual.get(name) is not None}
            return {"type": kind, kind: sources[0], **options}
    elif kind is None and visual.keys() <= {"bytes", "path"}:
        if visual.get("bytes") is not None:
            return _content(visual["bytes"])
        if visual.get("path") is not None:
            return _file(visual["path"])
    raise ValueError(
        f"a medium with the entries {sorted(map(str, visual))} is not understood: `array` and `sampling_rate`, "
        "`bytes` or `path`, or `type` with `url` or `path` are"
    )


def _file(path: str) -> dict:
    content = _download(path) if media.is_url(path) else path
    kind = _kind_of_file(path) if content is path else media.kind_of(content)
    return {"type": kind, kind: content}


def _content(content: bytes) -> dict:
    kind = media.kind_of(content)
    return {"type": kind, kind: content}


def _sound(visual) -> dict:
    if hasattr(visual, "get_all_samples"):
        return {"type": "audio", "audio": visual}
    if hasattr(visual, "data") and hasattr(visual, "sample_rate"):  # what a decoder of torchcodec returns
        return {"type": "audio", "audio": {"array": np.asarray(visual.data), "sampling_rate": visual.sample_rate}}
    if getattr(visual, "ndim", None) == 1:
        return {"type": "audio", "audio": {"array": visual, "sampling_rate": SAMPLING_RATE}}
    shape = f" of shape {tuple(visual.shape)}" if hasattr(visual, "shape") else ""
    raise ValueError(
        f"a medium of type {type(visual).__name__}{shape} is not understood: images of PIL, paths, URLs, bytes, "
        "samples and decoders of sounds are"
    )


@lru_cache(maxsize=4096)
def _kind_of_file(path: str) -> str:
    return media.kind_of(path)


@lru_cache(maxsize=8)
def _download(url: str) -> bytes:
    return media.download(url)


def _text(text: str) -> dict:
    return {"type": "text", "text": text}


def _with_system(chat: list[dict], system_prompt: str | None) -> list[dict]:
    if system_prompt is None:
        return chat
    rest = chat[1:] if chat and chat[0]["role"] == "system" else chat
    return [{"role": "system", "content": [_text(system_prompt)]}, *rest]
