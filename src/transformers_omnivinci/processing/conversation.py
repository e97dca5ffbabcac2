"""What the content of messages may hold. All ways in which items are written become one, wherever chats come from."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from numbers import Integral, Real

from .prompts import PLACEHOLDER

MODALITIES = ("image", "video", "audio")

ITEM_OPTIONS = {
    "image": (),
    "video": ("num_frames", "fps", "max_frames", "video_start", "video_end"),
    "audio": (),
}
"""Options of the processor that an item may give for its medium alone."""

# Names that messages for other models have for them (qwen-vl-utils).
_OTHER_NAMES = {"nframes": "num_frames"}
# Types of OpenAI and of servers like it: what they are here, and what the entry of the same name may hold. Only one
# value of an entry is accepted where it has them: contents tell their format, and images are tiled as they need.
_OPENAI_TYPES = {
    "image_url": ("image", {"url": None, "detail": ("auto",)}),
    "video_url": ("video", {"url": None}),
    "audio_url": ("audio", {"url": None}),
    "input_audio": ("audio", {"data": None, "format": None}),
}


def read_conversations(conversation, refuse_placeholders: bool = False):
    """
    A list of messages, or a list of such lists, with items as of [`read_item`], whose errors it has; what was given is
    left as it is. `refuse_placeholders`: whether texts may hold no placeholder of a medium.
    """
    if not isinstance(conversation, (list, tuple)) or not conversation:
        raise ValueError(
            f"A conversation is a list of messages, got {type(conversation).__name__} {conversation!r:.80}."
        )
    return [
        [_read_message(message, refuse_placeholders) for message in entry]
        if isinstance(entry, (list, tuple))
        else _read_message(entry, refuse_placeholders)
        for entry in conversation
    ]


def _read_message(message, refuse_placeholders: bool) -> dict:
    message = _as_mapping(message)
    if not isinstance(message, Mapping):
        raise ValueError(f"A message has a role and a content, got {type(message).__name__} {message!r:.80}.")
    message = {key: value for key, value in message.items() if value is not None}  # templates would write None
    if isinstance(message.get("content"), (list, tuple)):
        message["content"] = items = [read_item(item) for item in message["content"]]
        for item in items if refuse_placeholders else ():
            match = PLACEHOLDER.search(item.get("text", ""))
            if match:
                raise ValueError(
                    f"A text item contains {match.group()!r}, which stands for a medium: give media as content items "
                    "of their own. `sanitize_control_tokens=True` reads it as plain text."
                )
    return message


def _as_mapping(entry):
    """A message or an item that a client gives as an object, such as OpenAI's; what is none stays as it is."""
    if is_dataclass(entry) and not isinstance(entry, type):
        return {field.name: getattr(entry, field.name) for field in fields(entry)}
    return entry.model_dump() if hasattr(entry, "model_dump") else entry


def read_item(item) -> dict:
    """
    Reads an item of the content of a message.

    | type | what it holds |
    |---|---|
    | `text` | `text` |
    | `image`, `video`, `audio` | its medium under one of its own name, `url`, `path` and `base64` |
    | `image_url` | `image_url`: a URL, or `{"url": ..., "detail": "auto"}` |
    | `video_url`, `audio_url` | the same name: a URL, or `{"url": ...}` |
    | `input_audio` | `input_audio`: `{"data": base64, "format": ...}` |

    Videos may also have options that are theirs alone: `num_frames` (or `nframes`), `fps`, `max_frames`, `video_start`
    and `video_end`. Entries that are `None` are as if they were not there.

    Returns:
        `dict`: `{"type": "text", "text": ...}`, or the modality as `type`, with the medium under its name, if it has
        one, and the options.

    Raises:
        ValueError, TypeError: the type, an entry or its value is not accepted, or there is no text or several media.
    """
    item = _as_mapping(item)
    kind = item.get("type") if isinstance(item, Mapping) else None
    if not isinstance(kind, str) or kind not in ("text", *MODALITIES, *_OPENAI_TYPES):
        raise ValueError(
            f"A content item of type {kind!r:.80} is not understood: use 'text', 'image', 'video' or 'audio', or "
            f"OpenAI's {', '.join(map(repr, _OPENAI_TYPES))}."
        )
    entries = {key: value for key, value in item.items() if key != "type" and value is not None}
    if kind == "text":
        _refuse_unknown("A content item of type 'text'", entries, ["text"])
        if not isinstance(entries.get("text"), str):
            raise ValueError(f"A content item of type 'text' has no text but {item.get('text')!r:.80}.")
        return {"type": "text", "text": entries["text"]}
    modality = kind if kind in MODALITIES else _OPENAI_TYPES[kind][0]
    sources = source_keys(kind)
    names = {name: name for name in ITEM_OPTIONS[modality]}
    names |= {other: name for other, name in _OTHER_NAMES.items() if name in names}
    _refuse_unknown(f"A content item of type {kind!r}", entries, [*sources, *names])
    given = [key for key in sources if key in entries]
    if len(given) > 1:
        raise ValueError(f"A content item of type {kind!r} gives its medium more than once, under {given}: once is.")
    read = {"type": modality}
    if given:
        read[modality] = _read_source(kind, given[0], entries[given[0]])
    options = {}
    for key, name in names.items():
        if key in entries:
            if name in options:
                raise ValueError(f"A content item of type {kind!r} gives `{name}` twice, under two names.")
            options[name] = _read_option(kind, key, name, entries[key])
    if "num_frames" in options and "fps" in options:
        raise ValueError(
            f"A content item of type {kind!r} has both `num_frames={options['num_frames']}` and "
            f"`fps={options['fps']}`: frames are sampled by one of them."
        )
    return {**read, **options}


def source_keys(kind: str) -> tuple[str, ...]:
    """Under which keys an item of a type may give its medium."""
    return (kind, "url", "path", "base64") if kind in MODALITIES else (kind,)


def item_options(item: Mapping) -> dict:
    """The options of an item that [`read_item`] has read."""
    return {name: item[name] for name in ITEM_OPTIONS.get(item["type"], ()) if name in item}


def _refuse_unknown(what: str, entries: Iterable[str], known: Iterable[str]) -> None:
    unknown = [f"{key!r:.40}" for key in entries if key not in known]
    if unknown:
        raise ValueError(f"{what} has unknown entries {', '.join(unknown)}: {', '.join(known)} are accepted.")


def _read_source(kind: str, key: str, source):
    if kind in _OPENAI_TYPES and isinstance(source, Mapping):
        known = _OPENAI_TYPES[kind][1]
        main = next(iter(known))
        source = {name: value for name, value in source.items() if value is not None}
        _refuse_unknown(f"`{kind}`", source, known)
        for name, values in known.items():
            if values is not None and name in source and source[name] not in values:
                raise ValueError(f"The `{name}` of `{kind}` can be {values[0]!r} alone, got {source[name]!r:.40}.")
        if main not in source:
            raise ValueError(f"`{kind}` has no `{main}`, which is where its medium is.")
        key, source = "base64" if main == "data" else main, source[main]
    elif kind == "input_audio":
        raise TypeError(f'`input_audio` is {{"data": ..., "format": ...}}, got {type(source).__name__}.')
    return _as_data_url(source) if key == "base64" else source


def _as_data_url(content):
    """Base64 as a source; of a list, its entries."""
    if isinstance(content, (list, tuple)):
        return [_as_data_url(entry) for entry in content]
    if isinstance(content, (bytes, bytearray)):
        content = bytes(content).decode("ascii", errors="replace")
    if not isinstance(content, str):
        raise TypeError(f"`base64` is a string, got {type(content).__name__}.")
    return content if content.lstrip()[:5].lower() == "data:" else f"data:;base64,{content}"


def _read_option(kind: str, key: str, name: str, value) -> int | float:
    is_count = name in ("num_frames", "max_frames")
    if isinstance(value, bool) or not isinstance(value, Integral if is_count else Real):
        what = "a whole number" if is_count else "a number"
        raise TypeError(
            f"`{key}` of a content item of type {kind!r} is {what}, got {type(value).__name__} {value!r:.40}."
        )
    value = int(value) if isinstance(value, Integral) else float(value)
    least = 1 if is_count else 0
    if not least <= value < math.inf or (name == "fps" and value == 0):
        limit = "a finite number from 0 on" if name.startswith("video_") else "positive"
        raise ValueError(f"`{key}={value}` of a content item of type {kind!r} is not accepted: it must be {limit}.")
    return value
