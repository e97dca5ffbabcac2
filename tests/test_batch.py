"""The tensors of media: joined, split again, and refused where they do not match."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformers_omnivinci.planning import tile_grids
from transformers_omnivinci.processing.batch import (
    MEDIA_INPUTS,
    NAMES_OF,
    NO_TIME,
    count_rows,
    join,
    pad_seconds,
    select_media,
    split,
)

from .conftest import CLIP
from .media_samples import audio_item, image_item, user, video_item

SCALES = [2, 4, 6]
OPTIONAL = {"video": ("video_has_audio",), "audio": ("audio_num_windows", "audio_from_video")}
"""What a batch of each modality may leave out."""


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype and torch.equal(actual[name], tensor), name


# ---------------------------------------------------------------------------------------------------------- properties

seconds = st.lists(st.floats(0, 1e5, width=32), min_size=1, max_size=5)
flags = st.booleans()


@st.composite
def one_medium(draw, modality, optional):
    """The tensors of a medium; what its encoder sees is numbered, so that order shows."""
    times = [draw(seconds)]
    if modality == "image":
        grid = draw(st.sampled_from([(1, 1), (1, 2), (3, 2), (2, 6)]))
        rows = sum(height * width for height, width in tile_grids(SCALES, *grid))
        told = {"image_grid_hw": torch.tensor([grid])}
    elif modality == "video":
        rows = len(times[0])
        told = {"video_timestamps": pad_seconds(times), "video_has_audio": torch.tensor([draw(flags)])}
    else:
        rows = draw(st.integers(1, 3)) if "audio_num_windows" in optional else 1
        told = {"audio_timestamps": pad_seconds(times), "audio_num_windows": torch.tensor([rows])}
        told["audio_from_video"] = torch.tensor([draw(flags)])
    seen, left_out = NAMES_OF[modality][0], {*OPTIONAL.get(modality, ())} - optional
    start = draw(st.integers(0, 10_000))
    pixels = torch.arange(start, start + rows * 6, dtype=torch.float32).reshape(rows, 1, 2, 3)
    return {seen: pixels} | {name: value for name, value in told.items() if name not in left_out}


@st.composite
def media(draw):
    """Some media of each of some modalities; a tensor that may be missing is missing of all of a modality, or none."""
    optional = {name for names in OPTIONAL.values() for name in names if draw(flags)}
    return {
        modality: draw(st.lists(one_medium(modality, optional), min_size=1, max_size=3))
        for modality in NAMES_OF
        if draw(flags)
    }


def all_of(found):
    return [medium for media in found.values() for medium in media]


@given(media())
def test_what_is_joined_is_split_into_what_it_was(media):
    found = split(join(all_of(media)), SCALES)
    assert found.keys() == media.keys()
    for modality, expected in media.items():
        assert len(found[modality]) == len(expected)
        for actual, medium in zip(found[modality], expected):
            assert_equal(actual, medium)


@given(media())
def test_what_is_split_is_joined_into_what_it_was(media):
    batch = join(all_of(media))
    assert_equal(join(all_of(split(batch, SCALES))), batch)


@given(media(), st.randoms(use_true_random=True))
def test_a_batch_of_batches_is_a_batch_of_their_media(media, random):
    """
    Media may be joined in any number of steps, as long as those of a modality stay in order.

    The steps are drawn from a seed: a step may take nothing, so that their number has no bound of its own.
    """
    batches, rest = [], {modality: list(those) for modality, those in media.items()}
    while any(rest.values()):
        taken = {modality: random.randint(0, len(those)) for modality, those in rest.items()}
        batches.append(join([medium for modality, number in taken.items() for medium in rest[modality][:number]]))
        rest = {modality: those[taken[modality] :] for modality, those in rest.items()}
    assert_equal(join(batches), join(all_of(media)))


@given(media())
def test_the_names_keep_their_order_whatever_comes_first(media):
    batch = join(all_of(media)[::-1])
    assert list(batch) == [name for name in MEDIA_INPUTS if name in batch]
    assert_equal(select_media({"input_ids": 1, **batch, "image_grid_hw": batch.get("image_grid_hw")}), batch)


@given(st.lists(st.lists(st.floats(0, 1e5, width=32), max_size=6), max_size=5))
def test_seconds_are_padded_with_what_is_no_time(rows):
    padded = pad_seconds(rows)
    assert padded.dtype == torch.float32
    assert padded.shape == (len(rows), max(map(len, rows), default=0))
    for row, expected in zip(padded.tolist(), rows):
        assert row == expected + [NO_TIME] * (padded.shape[1] - len(expected))
    assert torch.equal(pad_seconds([torch.tensor(row, dtype=torch.float64) for row in rows]), padded)


def test_no_media_are_no_tensors():
    assert join([]) == {} == join([{}, {"pixel_values": None}]) and split({}, SCALES) == {}
    empty = {"pixel_values": torch.zeros(0, 3, 2, 2), "image_grid_hw": torch.zeros(0, 2, dtype=torch.long)}
    assert split(empty, SCALES) == {"image": []}


# -------------------------------------------------------------------------------------------------------------- errors

BATCH = {
    "pixel_values": torch.zeros(1 + 4 + 6 + 1, 3, 2, 2),
    "image_grid_hw": torch.tensor([[2, 3], [1, 1]]),
    "pixel_values_videos": torch.zeros(5, 3, 2, 2),
    "video_timestamps": pad_seconds([[0, 1, 2], [0, 1]]),
    "input_features": torch.zeros(3, 4, 10),
    "audio_timestamps": pad_seconds([[0.5], [0.5, 1.5]]),
    "audio_num_windows": torch.tensor([2, 1]),
}
COUNTS = {"image": [11, 1], "video": [3, 2], "audio": [2, 1]}


@pytest.mark.parametrize("modality", COUNTS)
def test_rows_are_counted(modality):
    assert count_rows(modality, BATCH, SCALES) == COUNTS[modality]


def test_a_sound_that_does_not_say_has_one_window():
    assert count_rows(
        "audio", BATCH | {"audio_num_windows": None, "input_features": torch.zeros(2, 4, 10)}, SCALES
    ) == [1, 1]


@pytest.mark.parametrize(
    ("modality", "cut", "message"),
    [
        ("image", {"pixel_values": 2}, "`image_grid_hw` describes 12 tiles, but `pixel_values` has 2."),
        ("image", {"image_grid_hw": 1}, "`image_grid_hw` describes 11 tiles, but `pixel_values` has 12."),
        (
            "video",
            {"pixel_values_videos": 4},
            "`video_timestamps` describes 5 frames, but `pixel_values_videos` has 4.",
        ),
        ("video", {"video_timestamps": 1}, "`video_timestamps` describes 3 frames, but `pixel_values_videos` has 5."),
        ("audio", {"input_features": 2}, "`audio_num_windows` describes 3 windows, but `input_features` has 2."),
        ("audio", {"audio_num_windows": 1}, "`audio_num_windows` describes 2 windows, but `input_features` has 3."),
        (
            "audio",
            {"audio_num_windows": None},
            "`audio_timestamps` describes 2 windows, but `input_features` has 3.",
        ),
        ("image", {"image_grid_hw": None}, "`pixel_values` is given without `image_grid_hw`,"),
        ("video", {"video_timestamps": None}, "`pixel_values_videos` is given without `video_timestamps`,"),
        ("audio", {"audio_timestamps": None}, "`input_features` is given without `audio_timestamps`,"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_batch_that_was_cut_names_its_tensors(modality, cut, message):
    batch = BATCH | {name: rows and BATCH[name][:rows] for name, rows in cut.items()}
    for refuse in (lambda: count_rows(modality, batch, SCALES), lambda: split(batch, SCALES)):
        with pytest.raises(ValueError, match="^" + re.escape(message)) as raised:
            refuse()
        assert ("dispatch_batches=False" in str(raised.value)) is ("describes" in message)


# ------------------------------------------------------------------------------------------------------- the processor


@pytest.mark.compat
def test_what_the_processor_makes_of_several_prompts_is_what_it_makes_of_each(processor, model):
    chats = [
        user({"type": "video", "path": CLIP, "num_frames": 4}, image_item(), "What?"),
        user(image_item(), "What?"),
        user("Nothing."),
        user(audio_item(), {**video_item(num_frames=3), "num_frames": 3}, audio_item(seconds=31.0), "What?"),
    ]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    batch = select_media(processor.apply_chat_template(chats, **options))
    assert batch.keys() == {*MEDIA_INPUTS}
    alone = [select_media(processor.apply_chat_template(chat, **options)) for chat in chats]
    assert [len(media) for media in alone] == [9, 2, 0, 7]
    assert_equal(join(alone), batch)
    found = split(batch, model.config.s2_scales)
    assert {modality: len(media) for modality, media in found.items()} == {"image": 2, "video": 2, "audio": 3}
    assert [len(medium["pixel_values_videos"]) for medium in found["video"]] == [4, 3]
    assert [len(medium["input_features"]) for medium in found["audio"]] == [1, 1, 2]
    assert [medium["audio_from_video"].tolist() for medium in found["audio"]] == [[True], [False], [False]]
    assert_equal(join(all_of(found)), batch)
