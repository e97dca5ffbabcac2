"""What the plug-ins of all frameworks share beside media: their tags in texts, options, and checks."""

import importlib.metadata
import os
import re
from collections.abc import Mapping, Sequence

from packaging.specifiers import SpecifierSet

from ..processing.chat_template import AUDIO_TOKEN, VIDEO_TOKEN

TAGS = {"image": "<image>", "video": "<video>", "audio": "<audio>"}
"""Where media stand in the texts of both frameworks."""

COLUMNS = {"image": "images", "video": "videos", "audio": "audios"}
"""The columns of both frameworks that name the media, in the order of their tags."""

OPTIONS = {
    "load_audio_from_video": bool,
    "use_audio_in_video": bool,
    "num_frames": int,
    "fps": float,
    "max_frames": int,
}
"""Options of media, and their types. `use_audio_in_video` is Qwen's name of `load_audio_from_video`."""

_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_TAG = re.compile("|".join(f"(?P<{modality}>{re.escape(tag)})" for modality, tag in TAGS.items()))


def require_framework(distribution: str, supported: str) -> None:
    """
    Checks the version of a framework, whose plug-in interface changes between its releases.

    Args:
        distribution (`str`): Its name among the installed packages.
        supported (`str`): The versions that the plug-in is tested with, such as `">=4.6,<4.7"`.

    Raises:
        ImportError: it is not installed, or in another version.
    """
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(
            f"{distribution} is not installed: pip install '{distribution}{supported}', in an environment of its own."
        ) from None
    if not SpecifierSet(supported).contains(version, prereleases=True):
        raise ImportError(
            f"{distribution} {version} is not supported by the plug-in of OmniVinci: {distribution} {supported} is."
        )


def read_options(*layers: Mapping) -> dict:
    """
    Options of media for the processor.

    Args:
        layers (`Mapping`): Settings by the names of [`OPTIONS`]; `None` is none. Later ones win over earlier ones, and
            all of them over the environment variables of the same names in capitals, such as `NUM_FRAMES`.

    Raises:
        ValueError: a value is not of the option's type, or the two names of `load_audio_from_video` disagree.
    """
    options = {}
    for layer in ({name: os.environ.get(name.upper()) for name in OPTIONS}, *layers):
        given = {name: _read_option(name, layer[name]) for name in OPTIONS if layer.get(name) is not None}
        same = given.pop("use_audio_in_video", None)
        if same is not None and given.setdefault("load_audio_from_video", same) != same:
            raise ValueError("`use_audio_in_video` and `load_audio_from_video` are one option: give one of them.")
        options |= given
    return options


def _read_option(name: str, value):
    kind = OPTIONS[name]
    try:
        if kind is bool:
            return value if isinstance(value, bool) else _TRUTH[str(value).lower()]
        return kind(value)
    except (KeyError, TypeError, ValueError):
        accepted = {bool: "true and false", int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"`{name}` is {value!r}: {accepted} is accepted.") from None


def tags_in(texts: Sequence[str]) -> list[str]:
    """The modality of each tag in the texts of a row, in order."""
    return [match.lastgroup for text in texts for match in _TAG.finditer(text)]


def check_media(texts: Sequence[str], media: Mapping[str, Sequence], row: str) -> None:
    """
    Checks that a row has a medium for each tag.

    Args:
        texts (`Sequence[str]`): Those of its messages.
        media (`Mapping[str, Sequence]`): Its media of each modality.
        row (`str`): What the row is called in the message.

    Raises:
        ValueError: it has more or fewer, or a text holds a placeholder of the model.
    """
    for token in (VIDEO_TOKEN, AUDIO_TOKEN):
        if any(token in text for text in texts):
            raise ValueError(f"{row} holds {token} in a text: media are named by {', '.join(TAGS.values())} there.")
    tags = tags_in(texts)
    for modality, tag in TAGS.items():
        given, wanted = len(media.get(modality) or ()), tags.count(modality)
        if given != wanted:
            raise ValueError(
                f"{row} has {wanted} {tag} in its messages, but {given} in `{COLUMNS[modality]}`: one for each tag "
                "is accepted."
            )


def describe_row(texts: Sequence[str], media: Mapping[str, Sequence], row_id: str | None = None) -> str:
    """What a row is called in messages: by its id or, as frameworks drop that, by its first text and its media."""
    if row_id is not None:
        return f"The row {row_id}"
    first = next((text for text in texts if text), None)
    sources = [source for found in media.values() for source in found or () if isinstance(source, str)]
    asks = "" if first is None else f" {first!r:.80}"
    return f"The row{asks}" + (f" about {', '.join(sources)[:200]}" if sources else "")
