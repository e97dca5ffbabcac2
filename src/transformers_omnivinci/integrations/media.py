"""
Media of a prompt that a framework has tokenized: what stands in the place of each, and the tensors of all.

Frameworks write prompts by templates of their own, with one placeholder for each medium. What takes its place is read
off the processor's plan here, and no places or times are computed.
"""

from collections.abc import Mapping, Sequence

from ..planning.sequence import expand
from ..processing.batch import MediaInputs, select_media
from ..processing.options import hears_videos
from ..processing.prompts import TOKENS

Media = Sequence[tuple[str, object]]
"""The media of one prompt in order: `"image"`, `"video"` or `"audio"`, and a source as the processor takes it."""


def placeholder_ids(processor) -> dict[int, str]:
    """The tokens that stand for media, and the modality of each."""
    return {token_id: modality for modality, token_id in processor.layout.token_ids.items()}


def plan_media(processor, media: Media, **options) -> list[list[int]]:
    """
    What stands in the place of each medium of a prompt, from their headers: nothing is decoded.

    Args:
        processor ([`OmniVinciProcessor`]): What plans.
        media ([`Media`]): Those of the prompt.
        options: Of the processor, such as `num_frames` and `load_audio_from_video`.

    Returns:
        `list[list[int]]`: for each medium its token ids, placeholders and boundary tokens.
    """
    if not media:
        return []
    plan = processor.plan(**_arguments(processor, media, options))
    return [expand(medium.runs) for medium in plan.media]


def encode_media(processor, media: Media, **options) -> tuple[list[list[int]], MediaInputs]:
    """
    What stands in the place of each medium of a prompt, and the tensors of all: they are decoded.

    Args:
        processor, media, options: As in [`plan_media`].

    Returns:
        `tuple[list[list[int]], MediaInputs]`: for each medium its token ids, and the inputs of the model.
    """
    if not media:
        return [], {}
    encoded = processor(**_arguments(processor, media, options), return_tensors="pt")
    # The prompt has nothing but placeholders with a token between them that no medium has.
    ids, end, places = encoded["input_ids"][0].tolist(), processor.tokenizer.eos_token_id, [[]]
    for token in ids:
        if token == end:
            places.append([])
        else:
            places[-1].append(token)
    if len(places) != len(media):
        raise ValueError(
            f"The boundary tokens of media hold {processor.tokenizer.eos_token!r}, the end of a turn, which they "
            "cannot be told from: choose other boundary tokens."
        )
    return places, select_media(encoded)


def _arguments(processor, media: Media, options: dict) -> dict:
    """The arguments of a call of the processor: a prompt of the media alone, told apart by the end of a turn."""
    options = dict(options)
    hears, _ = hears_videos(processor, options)
    sources = {modality: [source for kind, source in media if kind == modality] for modality in TOKENS}
    links, num_videos = [], 0
    for modality, _ in media:
        if modality == "audio":
            links.append(None)
        elif modality == "video":
            if hears:
                links.append(num_videos)
            num_videos += 1
    return {
        "text": processor.tokenizer.eos_token.join(TOKENS[modality] for modality, _ in media),
        "images": sources["image"] or None,
        "videos": sources["video"] or None,
        "audio": sources["audio"] or None,
        "audio_from_video_indices": links,
        "load_audio_from_video": hears,
        **options,
    }


def find_slots(ids: Sequence[int], num_media: int, placeholders: Mapping[int, str]) -> list[int]:
    """
    Where the placeholders of media stand in a tokenized prompt.

    Args:
        ids (`Sequence[int]`): Its tokens, with one placeholder for each medium.
        num_media (`int`): How many media the prompt has.
        placeholders (`Mapping[int, str]`): See [`placeholder_ids`].

    Raises:
        ValueError: there are more or fewer placeholders than media.
    """
    slots = [slot for slot, token in enumerate(ids) if token in placeholders]
    if len(slots) != num_media:
        raise ValueError(
            f"{len(slots)} placeholders are in the tokenized text, but {num_media} media are given: one for each "
            "medium is accepted."
        )
    return slots


def fill_slots(row: Sequence, slots: Sequence[int], places: Sequence[Sequence[int]], value=None) -> list:
    """
    Puts what stands for media into the place of their placeholders.

    Args:
        row (`Sequence`): Tokens, or what belongs to each token, such as labels.
        slots (`Sequence[int]`): Where the placeholders are, ascending.
        places (`Sequence[Sequence[int]]`): The tokens of each medium.
        value (*optional*): What is put there for each of these tokens. `None`: the tokens.
    """
    filled, end = [], 0
    for slot, place in zip(slots, places, strict=True):
        filled += row[end:slot]
        filled += place if value is None else [value] * len(place)
        end = slot + 1
    return [*filled, *row[end:]]


def order_media(
    ids: Sequence[int], places: Mapping[str, Sequence[Sequence[int]]], placeholders: Mapping[int, str]
) -> list[str]:
    """
    In which order the media of a prompt stand in it, by what has taken the place of each. A video can have
    placeholders of sound, too, so that these alone do not tell.

    Args:
        ids (`Sequence[int]`): Tokens of the prompt, with its media in place.
        places (`Mapping[str, Sequence[Sequence[int]]]`): The tokens of the media of each modality, in their order.
        placeholders (`Mapping[int, str]`): See [`placeholder_ids`].

    Returns:
        `list[str]`: the modality of the first medium, of the second, and so on.

    Raises:
        ValueError: these media do not fill the placeholders.
    """
    ids = list(ids)
    cores = {modality: [_core(place, placeholders) for place in found] for modality, found in places.items()}
    found = _match(ids, 0, cores, dict.fromkeys(cores, 0), placeholders)
    if found is None:
        given = ", ".join(f"{len(found)} {modality} inputs" for modality, found in places.items() if found)
        raise ValueError(
            f"The placeholders in a row of {len(ids):,} tokens are not those of its media ({given or 'none'}): a row "
            "that is cut to a maximum length loses some."
        )
    return found


def _match(ids: list, start: int, cores: Mapping, taken: dict[str, int], placeholders: Mapping) -> list[str] | None:
    """The order of the media that are left, from a position on."""
    slot = next((slot for slot in range(start, len(ids)) if ids[slot] in placeholders), None)
    if slot is None:
        return [] if all(taken[modality] == len(found) for modality, found in cores.items()) else None
    for modality, found in cores.items():
        if taken[modality] == len(found):
            continue
        core = found[taken[modality]]
        if ids[slot : slot + len(core)] != core:
            continue
        rest = _match(ids, slot + len(core), cores, {**taken, modality: taken[modality] + 1}, placeholders)
        if rest is not None:
            return [modality, *rest]
    return None


def _core(place: Sequence[int], placeholders: Mapping[int, str]) -> list[int]:
    """Without the boundary tokens in front of the first placeholder and behind the last one."""
    marks = [mark for mark, token in enumerate(place) if token in placeholders]
    return list(place[marks[0] : marks[-1] + 1])
