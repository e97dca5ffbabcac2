"""
`omnivinci timeline`: shows the temporal groups of a clip.

- `plot`: draws them.
"""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlparse

import typer

from ..options import Audio, End, Fps, NumFrames, Start, Traceback
from ..sources import check_model, content_item
from ..terminal import count_decoded, plain_errors, print_table, show_progress

MOST_LISTED = 10
"""The table lists only the first and the last times of groups with more frames than this."""


def timeline(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="Video: a file, a URL or a folder of frames.")],
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Checkpoint to plan for. Default: the 9B model.")
    ] = None,
    num_frames: NumFrames = None,
    fps: Fps = None,
    start: Start = None,
    end: End = None,
    audio: Audio = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the timeline to a .png, .svg or .pdf file.")
    ] = None,
    traceback: Traceback = False,
) -> None:
    """
    Show the temporal groups of a clip and their tokens.

    A group holds the frames and the sound of the same seconds, side by side in the prompt.
    """
    with plain_errors(traceback):
        item = content_item(clip)
        kind, source = item["type"], item[item["type"]]
        if kind != "video":
            raise ValueError(f"{clip!r} is {'an image' if kind == 'image' else 'a sound'}: a video is accepted.")
        if model is not None:
            check_model(model)
        from ...media import is_url
        from ...planning import timeline_of

        processor = _processor_of(model)
        hears = processor.load_audio_from_video if audio is None else audio
        sampling_rate = processor.feature_extractor.sampling_rate
        options = {"num_frames": num_frames, "fps": fps, "video_start": start, "video_end": end}
        if plot is None:
            metadata = processor.video_processor.probe_video(source, **options)
            num_samples = round((metadata.audio_duration or 0) * sampling_rate)
        else:
            with show_progress() as progress, count_decoded(processor.video_processor, progress):
                (video,) = processor.video_processor.load_videos(
                    source,
                    load_audio=hears,
                    sampling_rate=sampling_rate,
                    size={"height": 256, "width": 256},
                    **options,
                )
            metadata, num_samples = video.metadata, 0 if video.waveform is None else len(video.waveform)
        medium = processor.plan_video(metadata, num_samples if hears else None)
        plan = timeline_of(medium, processor.layout, metadata.duration)
        name = Path(urlparse(clip).path if is_url(clip) else clip).name
        facts = f"{metadata.width} x {metadata.height}, {metadata.duration:.2f} s at {metadata.fps:.2f} fps"
        typer.echo(f"{typer.style(name, bold=True)}  {facts}, {'sound' if plan.has_sound else 'no sound'}")
        _show_groups(plan)
        numbers = plan.num_tokens
        parts = ", ".join(f"{number:,} {kind}" for kind, number in numbers.items())
        typer.echo(f"{sum(numbers.values()):,} tokens: {parts}")
        if model is None:
            typer.secho("Planned for the 9B model; --model plans for another checkpoint.", dim=True)
        if plot is not None:
            from .plot import plot_timeline

            figure = plot_timeline(
                plan,
                video.frames,
                video.waveform if plan.has_sound else None,
                sampling_rate,
                aspect_ratio=metadata.width / metadata.height,
                title=name,
            )
            figure.savefig(plot)
            typer.echo(f"The timeline is drawn in {plot}.")


def _processor_of(model: str | None):
    """The processor of a checkpoint; for `None`, one that plans like that of the 9B model."""
    from ...processing import OmniVinciImageProcessor, OmniVinciProcessor, OmniVinciVideoProcessor

    if model is not None:
        return OmniVinciProcessor.from_pretrained(model)
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

    from ...configuration_omnivinci import OmniVinciConfig
    from ...processing.chat_template import AUDIO_TOKEN, IMAGE_TOKEN, VIDEO_TOKEN

    # Plans only need a tokenizer in which placeholders and newlines are one token each.
    words = ("<unk>", "\n", IMAGE_TOKEN, VIDEO_TOKEN, AUDIO_TOKEN)
    vocabulary = WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    config = OmniVinciConfig()
    return OmniVinciProcessor(
        OmniVinciImageProcessor(s2_scales=config.s2_scales),
        OmniVinciVideoProcessor(),
        WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins),
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer(vocabulary), unk_token="<unk>"),
        load_audio_from_video=True,
        **OmniVinciProcessor.settings_of(config),
    )


def _show_groups(plan) -> None:
    """A row for each group, and the totals."""
    groups = plan.groups
    columns = {
        "group": [group.name.removeprefix("group ") for group in groups],
        "seconds": [f"{group.start:.1f} - {group.end:.1f}" for group in groups],
        "frames": [len(group.frames) for group in groups],
        "seconds of the frames": [_list_seconds(plan.timestamps, group.frames) for group in groups],
        "mel frames": [len(group.mel_frames) for group in groups],
        "video tokens": [group.num_video_tokens for group in groups],
        "audio tokens": [group.num_audio_tokens for group in groups],
    }
    totals = {name: sum(cells) for name, cells in columns.items() if isinstance(cells[0], int)}
    for name in totals:
        columns[name] = [f"{number:,}" for number in columns[name]]
    footer = [f"{totals[name]:,}" if name in totals else "total" if name == "group" else "" for name in columns]
    print_table(columns, numbers=list(totals), footer=footer)


def _list_seconds(timestamps: list[float], frames: range) -> str:
    words = [f"{timestamps[index]:.2f}" for index in frames]
    if len(words) > MOST_LISTED:
        words[MOST_LISTED // 2 : -MOST_LISTED // 2] = ["..."]
    return " ".join(words)
