"""What a request asks of the processor, out of the four places where vLLM takes options. Nothing here imports vLLM."""

from collections.abc import Iterable, Mapping, Sequence

HEARS = ("load_audio_from_video", "use_audio_in_video")
"""The option for the sound of videos, and what users of Qwen's models call it."""
RATES = ("num_frames", "fps")
"""Of these the one that is given last counts."""
OF_VIDEOS = (*RATES, "max_frames", "video_start", "video_end", "do_sample_frames")
READ_BY_VLLM = ("video_backend", "backend", "frames_indices", "total_num_frames", "duration")
"""Options of `media_io_kwargs` for the decoders of vLLM, which are not used, and for frames given as `video/jpeg`."""


def merge_options(
    media_io: Sequence[Mapping[str, Mapping]], processor_options: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    """
    One set of options for the processor.

    Args:
        media_io (`Sequence[Mapping]`): `media_io_kwargs` of the engine and of the request, later ones win.
        processor_options (`Sequence[Mapping]`): `mm_processor_kwargs` of the same; these win over `media_io_kwargs` of
            the same origin.

    Returns:
        `dict`: options of [`OmniVinciProcessor`]; those of videos in `videos_kwargs`, so that they do not count for
        the identity of other media.

    Raises:
        ValueError: an option is not known, or given twice with different values.
    """
    merged: dict[str, object] = {}
    videos: dict[str, object] = {}
    for io_options, options in zip(media_io, processor_options, strict=True):
        _update_videos(videos, _of_media_io(io_options.get("video") or {}))
        options = dict(options)
        own = dict(options.pop("videos_kwargs", None) or {})
        own |= _take_hearing([options, own])
        for name in OF_VIDEOS:
            if name in options:
                if name in own:
                    raise ValueError(f"Got `{name}` both in `videos_kwargs` and beside it.")
                own[name] = options.pop(name)
        _update_videos(videos, own)
        for name, value in options.items():
            if isinstance(value, Mapping):
                value = {**(merged.get(name) or {}), **value}
            merged[name] = value
    return merged | ({"videos_kwargs": videos} if videos else {})


def _update_videos(videos: dict, new: Mapping) -> None:
    if any(new.get(name) is not None for name in RATES):
        for name in RATES:
            videos.pop(name, None)
    videos.update({name: value for name, value in new.items() if value is not None})


def _take_hearing(places: Iterable[dict]) -> dict[str, bool]:
    """The option for sound, by the name of this package; taken out of the places where it may stand."""
    said = {}
    for place in places:
        said |= {name: place.pop(name) for name in HEARS if name in place}
    said = {name: value for name, value in said.items() if value is not None}
    if not all(isinstance(value, bool) for value in said.values()) or len(set(said.values())) > 1:
        raise ValueError(f"Got {said}: True or False is accepted, and one of the two names is enough.")
    return {HEARS[0]: next(iter(said.values()))} if said else {}


def _of_media_io(options: Mapping) -> dict[str, object]:
    """
    `media_io_kwargs` of videos as options of the processor. In vLLM -1 frames are all of them, and a rate of -1 or 0
    is none.
    """
    unknown = sorted(options.keys() - {*OF_VIDEOS, *READ_BY_VLLM})
    if unknown:
        names = ", ".join(f"`{name}`" for name in OF_VIDEOS)
        raise ValueError(f"`media_io_kwargs` for videos has {unknown}: {names} are accepted.")
    found = {name: value for name, value in options.items() if name not in READ_BY_VLLM}
    if isinstance(found.get("fps"), (int, float)) and found["fps"] <= 0:
        del found["fps"]
    if found.get("num_frames") == -1:
        del found["num_frames"]
        if "fps" not in found:
            found["do_sample_frames"] = False
    return found


def sort_sounds(
    ids: Sequence[int], token_ids: Mapping[str, int], num_sounds: int, hears: bool
) -> tuple[list[int], list[int | None]]:
    """
    Which sounds of a prompt are clips of their own, and which are tracks of its videos.

    Sounds beyond the placeholders are tracks, one for each video, in the order of the prompt: so Qwen's models take
    them. The release's `<sound><vila/video>` for a video with its track is understood, too.

    Args:
        ids (`Sequence[int]`): The prompt, with a placeholder for each medium.
        token_ids (`Mapping[str, int]`): The placeholder of each modality.
        num_sounds (`int`): How many sounds were given.
        hears (`bool`): Whether videos take their track along.

    Returns:
        `tuple[list[int], list[int | None]]`: the prompt with a placeholder for every medium and none for tracks; and
        for each sound the video whose track it is, `None` for a clip of its own.
    """
    ids, sound, video = list(ids), token_ids["audio"], token_ids["video"]
    num_videos = ids.count(video)
    if not hears or not num_videos:
        return ids, [None] * num_sounds
    pairs = [place for place in range(len(ids) - 1) if ids[place] == sound and ids[place + 1] == video]
    if pairs and ids.count(sound) in (num_sounds + len(pairs), num_sounds - num_videos + len(pairs)):
        ids = [token for place, token in enumerate(ids) if place not in set(pairs)]
    if num_sounds != ids.count(sound) + num_videos:
        return ids, [None] * num_sounds
    links, videos = [], 0
    for token in ids:
        if token == video:
            links.append(videos)
            videos += 1
        elif token == sound:
            links.append(None)
    return ids, links


def check_counts(ids: Sequence[int], token_ids: Mapping[str, int], given: Mapping[str, int]) -> None:
    """
    Raises a `ValueError` unless a prompt has as many placeholders as media.

    Args:
        ids (`Sequence[int]`), token_ids (`Mapping[str, int]`): As of [`sort_sounds`].
        given (`Mapping[str, int]`): How many media of each modality were given.
    """
    for modality, token_id in token_ids.items():
        placeholders, num_media = list(ids).count(token_id), given.get(modality, 0)
        if placeholders != num_media:
            hint = ""
            if modality == "audio" and given.get("video") and num_media > placeholders:
                hint = " The track of a video is taken along with `load_audio_from_video`."
            raise ValueError(
                f"The prompt has {placeholders} placeholders of {modality}, but {num_media} were given: one for each "
                f"is accepted.{hint}"
            )
