"""
The settings of a checkpoint that decide what stands where in the sequence. They are the processor's alone: the model
reads the finished sequence.
"""

from typing import TypedDict

from .strict import check_options


class SequenceSettings(TypedDict):
    """The settings and their types; [`OmniVinciProcessor`] describes them."""

    group_duration: float | int
    interleave_audio_in_video: bool
    image_start_tokens: str | None
    image_end_tokens: str | None
    video_start_tokens: str | None
    video_end_tokens: str | None
    video_separator_tokens: str | None
    audio_start_tokens: str | None
    audio_end_tokens: str | None


SEQUENCE_SETTINGS = tuple(SequenceSettings.__annotations__)


def check_sequence_settings(settings: SequenceSettings) -> None:
    """Raises a `TypeError` or `ValueError` for a value of a wrong type, or that is not supported or contradictory."""
    check_options(SequenceSettings, settings)
    seconds, end = settings["group_duration"], settings["video_end_tokens"]
    if not 0 < seconds < float("inf"):
        raise ValueError(f"`group_duration={seconds!r}` is not supported: it must be a positive number of seconds.")
    if settings["interleave_audio_in_video"] and end:
        raise ValueError(
            f"`video_end_tokens={end!r}` is not supported: it must be None while `interleave_audio_in_video` is True, "
            "because temporal groups end by themselves."
        )


def refuse_sequence_settings(options: dict) -> None:
    """Refuses, with a `ValueError`, settings of the processor among what a model is given but never reads."""
    given = [name for name in SEQUENCE_SETTINGS if name in options]
    if given:
        raise ValueError(
            f"{', '.join(f'`{name}`' for name in given)}: the model does not read settings of the processor. Give "
            "them to `OmniVinciProcessor.from_pretrained`."
        )
