"""What the plug-ins of all frameworks share beside media: their tags in texts, and checks."""

import importlib.metadata
import re
from collections.abc import Mapping, Sequence

from packaging.specifiers import SpecifierSet

TAGS = {"image": "<image>", "video": "<video>", "audio": "<audio>"}
"""Where media stand in the texts of both frameworks."""

COLUMNS = {"image": "images", "video": "videos", "audio": "audios"}
"""The columns of both frameworks that name the media, in the order of their tags."""

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
        ValueError: it has more or fewer.
    """
    tags = tags_in(texts)
    for modality, tag in TAGS.items():
        given, wanted = len(media.get(modality) or ()), tags.count(modality)
        if given != wanted:
            raise ValueError(
                f"{row} has {wanted} {tag} in its messages, but {given} in `{COLUMNS[modality]}`: one for each tag "
                "is accepted."
            )


def describe_row(texts: Sequence[str], media: Mapping[str, Sequence]) -> str:
    """What a row without an id is called in messages: by its first text and its media."""
    sources = [str(source) for sources in media.values() for source in sources or () if isinstance(source, str)]
    first = next((text for text in texts if text), "")
    return f"The row {first!r:.80}" + (f" about {', '.join(sources)[:200]}" if sources else "")
