"""Which option of a call goes to which part of the processor."""

import copy
import difflib
from functools import cache
from itertools import chain
from typing import TypedDict

from ..strict import check_options

PARTS = {
    "text_kwargs": "tokenizer",
    "images_kwargs": "image_processor",
    "videos_kwargs": "video_processor",
    "audio_kwargs": "feature_extractor",
}
"""The groups of options, and the part of the processor that each of them is for."""


def sort_options(processor, kwargs: dict) -> dict:
    """
    Sorts the keyword arguments of a call by the parts that they are for. Transformers does the same in a method that
    is its own affair, and that takes and gives other things from version to version.

    Of the same option, what the call gives wins over what the tokenizer was saved with, and that over the processor's
    attributes `text_kwargs`, `images_kwargs`, `videos_kwargs` and `audio_kwargs`.

    Args:
        processor ([`OmniVinciProcessor`]): Its `valid_processor_kwargs` and the `valid_kwargs` of its parts name the
            options.
        kwargs (`dict`): Options, flat or in `text_kwargs`, `images_kwargs`, ... A flat one goes to every part that
            knows it.

    Returns:
        `dict`: a dictionary for each group of [`PARTS`], and the options of the processor itself, by default its
        attributes of the same names.

    Raises:
        ValueError: an option is given twice, or has a value that is not accepted.
        TypeError: an option is not known, or has a value of the wrong type.
    """
    annotations = processor.valid_processor_kwargs.__annotations__
    accepted = {group: _options_of(processor, group) for group in PARTS}
    known = {group: options.__annotations__ for group, options in accepted.items()}
    options = {group: dict(getattr(processor, group, None) or {}) for group in PARTS}
    own = {name: getattr(processor, name, None) for name in annotations if name not in PARTS}
    for group in PARTS:
        for name in known[group].keys() & processor.tokenizer.init_kwargs.keys():
            options[group][name] = getattr(processor.tokenizer, name, processor.tokenizer.init_kwargs[name])
        options[group] |= kwargs.get("common_kwargs") or {}
    for name, value in kwargs.items():
        if name in PARTS:
            twice = sorted((value or {}).keys() & kwargs.keys() & known[name].keys())
            if twice:
                raise ValueError(f"Got {', '.join(f'`{one}`' for one in twice)} both in `{name}` and beside it.")
            options[name] |= copy.deepcopy(value or {})
        elif name in own:
            own[name] = value
        elif any(name in names for names in known.values()):
            for group in PARTS:
                if name in known[group]:
                    options[group][name] = copy.deepcopy(value)
        elif name != "common_kwargs":
            similar = difflib.get_close_matches(name, sorted({*own, *chain(*known.values())}), n=1)
            hint = f"; `{similar[0]}` is" if similar else ""
            raise TypeError(f"`{name}` is not an option of the processor{hint}.")
    for name in own:  # which may come as options of the text, too
        own[name] = options["text_kwargs"].pop(name, own[name])
    for group, part in PARTS.items():
        if getattr(getattr(processor, part, None), "valid_kwargs", None) is not None:
            check_options(accepted[group], options[group])
    return own | options


def hears_videos(processor, options: dict) -> tuple[bool, bool]:
    """
    Whether videos take their track along, and whether a call says so itself.

    Args:
        processor ([`OmniVinciProcessor`]): Its `load_audio_from_video` decides where a call does not say.
        options (`dict`): Of the call; `load_audio_from_video` is taken out, also of `videos_kwargs`.
    """
    said = [options.pop("load_audio_from_video", None)]
    if "load_audio_from_video" in (options.get("videos_kwargs") or {}):
        options["videos_kwargs"] = dict(options["videos_kwargs"])
        said.append(options["videos_kwargs"].pop("load_audio_from_video"))
    said = [bool(value) for value in said if value is not None]
    return (said[0], True) if said else (processor.load_audio_from_video, False)


def option_names(processor) -> set[str]:
    """All names that [`sort_options`] understands."""
    options = (_options_of(processor, group).__annotations__ for group in PARTS)
    return set(processor.valid_processor_kwargs.__annotations__).union(*options)


def _options_of(processor, group: str) -> type:
    """The options of a group: those that the part itself accepts, and those of the processor's class."""
    part = getattr(processor, PARTS[group], None)
    own = getattr(part, "valid_kwargs", None)
    return _join(group, own, processor.valid_processor_kwargs.__annotations__[group])


@cache
def _join(name: str, *options: type | None) -> type:
    """One `TypedDict` of several, made once: whatever checks values by it is then made once too."""
    annotations = [getattr(one, "__annotations__", {}) for one in options]
    return TypedDict(name, dict(chain.from_iterable(one.items() for one in annotations)), total=False)
