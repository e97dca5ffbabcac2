"""Invariants of the plans of order and time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformers_omnivinci.planning import (
    Layout,
    MediumFacts,
    PromptPlan,
    choose_tile_grid,
    count,
    plan_medium,
    sample_at_fps,
    sample_uniformly,
)
from transformers_omnivinci.planning.sampling import plan_audio
from transformers_omnivinci.planning.sequence import (
    audio_sequence,
    count_audio_vectors,
    expand,
    grouped_sequence,
    image_sequence,
    video_sequence,
)
from transformers_omnivinci.planning.temporal_embedding_grouping import interleave, plan_groups

IMAGE, VIDEO, AUDIO, START, END, SEPARATOR, NEWLINE = range(101, 108)

rates = st.sampled_from([1.0, 12.5, 23.976023976, 24.0, 25.0, 29.97002997, 30.0, 59.94, 120.0])
group_durations = st.sampled_from([1.0, 2.5, 5.0, 30.0, 33.3])
poolings = st.sampled_from(["none", "max", "avg", "conv"])


@st.composite
def clips(draw):
    """(frame positions, fps, total_num_frames, group duration, audio duration or None, audio start)"""
    fps = draw(rates)
    total = draw(st.integers(1, 5000))
    num_frames = draw(st.integers(1, 40))
    variable = draw(st.booleans())
    if variable:
        times = sorted(draw(st.lists(st.floats(0, total / fps), min_size=num_frames, max_size=num_frames)))
        positions = [time * fps for time in times]
    else:
        positions = sample_uniformly(total, num_frames)
    audio = draw(st.none() | st.floats(0.01, 2 * total / fps + 1))
    start = draw(st.just(0.0) | st.floats(0, total / fps))
    return positions, fps, total, draw(group_durations), audio, start


def layout(**kwargs) -> Layout:
    return Layout({"image": IMAGE, "video": VIDEO, "audio": AUDIO}, **{"patches_per_side": 3, **kwargs})


@given(total=st.integers(1, 100_000), num_frames=st.integers(1, 300))
def test_uniform_sampling_is_a_rounded_linspace(total, num_frames):
    expected = np.round(np.linspace(0, total - 1, num_frames)).astype(int)
    assert sample_uniformly(total, num_frames) == expected.tolist()


@given(
    total=st.integers(1, 100_000), video_fps=rates, fps=st.floats(0.1, 60), max_frames=st.none() | st.integers(1, 99)
)
def test_sampling_at_a_rate(total, video_fps, fps, max_frames):
    indices = sample_at_fps(total, video_fps, fps, max_frames)
    assert indices == sorted(indices) and indices[0] == 0 and indices[-1] < total
    wanted = math.ceil(total / video_fps * fps)
    if max_frames is None or wanted <= max_frames:
        assert len(indices) == max(1, wanted)
        for step, index in enumerate(indices):
            assert index == total - 1 or abs(index / video_fps - step / fps) <= 0.5 / video_fps + 1e-9
    else:
        assert indices == sample_uniformly(total, max_frames)


@pytest.mark.parametrize("arguments", [(0, 4), (10, 0), (10, -1)])
def test_sampling_refuses_nothing(arguments):
    with pytest.raises(ValueError, match="must be positive"):
        sample_uniformly(*arguments)


@given(height=st.integers(1, 4000), width=st.integers(1, 4000), max_tiles=st.integers(9, 16))
def test_tile_grid_is_nearest_in_aspect_ratio(height, width, max_tiles):
    rows, columns = choose_tile_grid(height, width, [448, 896, 1344], max_tiles)
    assert 9 <= rows * columns <= max_tiles
    distance = abs(width / height - columns / rows)
    for other_rows in range(1, max_tiles + 1):
        for other_columns in range(1, max_tiles // other_rows + 1):
            if other_rows * other_columns >= 9:
                assert distance <= abs(width / height - other_columns / other_rows)


def test_of_equally_near_grids_a_large_image_takes_the_larger():
    # A ratio of 3/4 lies midway between those of one tile and of two above each other.
    assert choose_tile_grid(800, 600, [448], max_tiles=2) == (2, 1)
    assert choose_tile_grid(80, 60, [448], max_tiles=2) == (1, 1)


def test_tile_grid_refuses_what_cannot_be_tiled():
    with pytest.raises(ValueError, match="max_tiles=8"):
        choose_tile_grid(10, 10, [448, 896, 1344], 8)
    with pytest.raises(ValueError, match="height=0"):
        choose_tile_grid(0, 10, [448, 896, 1344], 12)


@given(
    num_samples=st.integers(1, 3_000_000),
    hop_length=st.sampled_from([60, 100, 160, 320]),
    limit=st.none() | st.floats(0.5, 200),
    fixed=st.none() | st.sampled_from([7.5, 30.0, 61.0]),
)
def test_audio_windows(num_samples, hop_length, limit, fixed):
    plan = plan_audio(num_samples, 16_000, hop_length, 3000, 30.0, limit, fixed)
    assert 0 < plan.num_samples <= min(num_samples, plan.padded_samples)
    assert plan.num_mel_frames == plan.padded_samples // hop_length
    assert (plan.num_windows - 1) * 3000 < plan.num_mel_frames <= plan.num_windows * 3000
    if fixed is not None:
        assert plan.padded_samples == fixed * 16_000
    else:
        assert plan.padded_samples % 480_000 == 0 and plan.padded_samples - plan.num_samples < 480_000
        assert plan.num_samples == (num_samples if limit is None else min(num_samples, round(limit * 16_000)))


@given(clips())
def test_every_frame_is_in_one_group_in_order(clip):
    positions, fps, total, group_duration, audio, start = clip
    groups = plan_groups(positions, fps, total, group_duration, audio, 100, start)
    assert len(groups) == max(1, math.ceil(total / fps / group_duration))
    assert [frame for group in groups for frame in group.frames] == list(range(len(positions)))
    for group in groups:
        assert group.end - group.start <= group_duration + 1e-9
        for frame in group.frames:
            assert group.start - 1e-6 <= positions[frame] / fps <= group.end + 1e-6


@given(clips())
def test_sounds_of_groups_follow_each_other(clip):
    positions, fps, total, group_duration, audio, start = clip
    groups = plan_groups(positions, fps, total, group_duration, audio, 100, start)
    end = 0
    for group in groups:
        assert group.mel_frames.start == end
        assert group.mel_frames.stop >= end
        end = group.mel_frames.stop
        if audio is None:
            assert not group.mel_frames
    if audio is not None:
        heard = max(0.0, min(total / fps, start + audio) - start)
        assert abs(end / 100 - heard) <= 0.005 + 1e-6


@given(clips(), poolings, st.integers(1, 3), st.booleans())
def test_grouped_tokens_are_those_of_both_media(clip, pooling, pool_frames, bracketed):
    positions, fps, total, group_duration, audio, start = clip
    audio = 3.0 if audio is None else audio
    marks = {"video_start": [START], "video_separator": [SEPARATOR], "audio_start": [START]} if bracketed else {}
    plan = layout(
        audio_pooling=pooling, video_pool_sizes=[[pool_frames, 1, 2]], audio_end=[END], group_end=[NEWLINE], **marks
    )
    windows = plan_audio(max(1, round(audio * 16_000)), 16_000, 160, 3000)
    groups = plan_groups(positions, fps, total, group_duration, windows.duration, 100, start)
    num_vectors = count_audio_vectors(windows.num_windows, 1500, pooling)
    parts = grouped_sequence(plan, groups, len(positions), windows.num_mel_frames, num_vectors)
    assert len(parts) == len(groups)
    runs = [run for part in parts for run in part]
    alone, sound = video_sequence(plan, len(positions)), audio_sequence(plan, num_vectors)
    # All of the picture is there, in order; the sound from its start on; two newlines a group.
    ids = expand(runs)
    assert [token for token in ids if token == VIDEO] == [VIDEO] * count(alone, VIDEO)
    assert len(ids) == count(runs)
    shares = interleave(groups, len(positions), count(alone), windows.num_mel_frames, count(sound))
    assert count(runs) == sum(len(video) + len(heard) for video, heard in shares) + 2 * len(groups)
    assert [index for video, _ in shares for index in video] == list(range(count(alone)))
    heard = [index for _, share in shares for index in share]
    assert heard == list(range(len(heard)))
    assert ids.count(NEWLINE) == 2 * len(groups)


@given(num_windows=st.integers(1, 200), positions=st.integers(2, 1500), pooling=poolings)
def test_audio_vectors_are_what_the_compression_gives(num_windows, positions, pooling):
    vectors = num_windows * (positions // 2)
    expected = {
        "none": vectors,
        "max": (vectors - 2) // 2 + 1,
        "avg": (vectors - 2) // 2 + 1,
        "conv": (vectors + 2 * 1 - 3) // 2 + 1,
    }
    assert count_audio_vectors(num_windows, positions, pooling) == expected[pooling]


def test_sequences():
    plan = layout(
        image_start=[START],
        image_end=[END],
        video_start=[START],
        video_end=[END],
        video_separator=[SEPARATOR],
        audio_end=[END],
        video_pool_sizes=[[1, 1, 1], [2, 3, 2]],
    )
    assert expand(image_sequence(plan, 18)) == [START] + [IMAGE] * 18 + [END]
    assert expand(audio_sequence(plan, 4)) == [AUDIO] * 4 + [END]
    whole, pooled = [START] + [VIDEO] * 9 + [END], [START] + [VIDEO] * 2 + [END]
    assert expand(video_sequence(plan, 3)) == whole * 3 + [SEPARATOR] + pooled * 2 + [SEPARATOR]


@st.composite
def media(draw):
    """Facts of a medium, also of videos without sound."""
    modality = draw(st.sampled_from(["image", "video", "audio"]))
    if modality == "image":
        return MediumFacts("image", draw(st.sampled_from([(1, 1), (3, 3), (2, 6), (4, 3)])))
    num_samples = draw(st.integers(1, 3_000_000))
    if modality == "audio":
        return MediumFacts("audio", num_samples=num_samples)
    positions, fps, total, *_ = draw(clips())
    seconds = [position / fps for position in positions]
    return MediumFacts("video", (1, 1), seconds, positions, fps, total, draw(st.sampled_from([0, num_samples])))


@given(st.lists(media(), max_size=4), poolings, st.booleans(), st.booleans(), group_durations, st.data())
def test_prompt_plan_is_the_text_with_media_in_the_place_of_placeholders(
    facts, pooling, interleave, bracketed, group_duration, data
):
    brackets = {"image": (1, 2), "video": (3, 4), "audio": (5, 6)} if bracketed else {}
    shared = layout(
        audio_pooling=pooling,
        interleave=interleave,
        group_duration=group_duration,
        brackets=brackets,
        audio_end=[END],
        group_end=[NEWLINE],
        s2_scales=(448, 896, 1344),
    )
    plans = [plan_medium(one, shared) for one in facts]
    texts = [data.draw(st.lists(st.integers(10, 20), max_size=3)) for _ in range(len(facts) + 1)]
    text_ids, slots, expected = list(texts[0]), [], list(texts[0])
    for plan, text in zip(plans, texts[1:], strict=True):
        slots.append(len(text_ids))
        text_ids += [shared.token_ids[plan.modality], *text]
        expected += [*expand(plan.runs), *text]
    prompt = PromptPlan(text_ids, slots, plans)
    assert prompt.ids() == expected and prompt.length == len(expected)
    # Every sound vector of the sequence has its second, every frame its own, every video its groups.
    assert sum(map(len, prompt.seconds("audio"))) == expected.count(AUDIO)
    videos = [one for one in facts if one.modality == "video"]
    assert prompt.seconds("video") == [one.timestamps for one in videos]
    for one, groups in zip(videos, prompt.groups, strict=True):
        assert bool(groups) == (interleave and one.num_samples > 0)
        assert [frame for group in groups for frame in group.frames] == (
            list(range(len(one.timestamps))) if groups else []
        )
    for one, plan in zip(facts, plans, strict=True):
        seconds = plan.sound_seconds
        assert list(seconds) == sorted(seconds)
        if seconds:
            assert seconds[0] > 0 and seconds[-1] < plan.windows.padded_duration
        opened = [token for token in expand(plan.runs) if token in (1, 3, 5)]
        assert len(opened) == (len(plan.modalities) if bracketed else 0)
        assert (plan.windows is not None) == bool(one.num_samples)


def test_sound_of_its_own_without_samples_is_refused():
    with pytest.raises(ValueError, match="no samples"):
        plan_medium(MediumFacts("audio"), layout())


@given(
    gaps=st.lists(st.floats(0.001, 20), min_size=1, max_size=60),
    fps=st.floats(0.1, 10),
    max_frames=st.none() | st.integers(1, 40),
)
def test_sampling_at_a_rate_follows_the_times_of_frames(gaps, fps, max_frames):
    times = np.cumsum([0, *gaps]).tolist()
    mean_rate = len(times) / (times[-1] + gaps[-1])
    indices = sample_at_fps(len(times), mean_rate, fps, max_frames, times)
    wanted = max(1, math.ceil(len(times) / mean_rate * fps))
    assert len(indices) == (wanted if max_frames is None else min(wanted, max_frames))
    is_cut = max_frames is not None and wanted > max_frames
    for step, index in enumerate(indices):
        second = times[-1] * step / max(max_frames - 1, 1) if is_cut else step / fps
        assert abs(times[index] - second) <= np.abs(np.array(times) - second).min() + 1e-9


@pytest.mark.parametrize(
    "call",
    [
        lambda: sample_uniformly(72, 10**9),
        lambda: sample_at_fps(72, 24.0, 1e9),
        lambda: sample_at_fps(72, 24.0, 1e300),
        lambda: sample_at_fps(72, 1e-9, 1.0),
        lambda: sample_at_fps(3, 1e-300, 1e300),
        lambda: sample_at_fps(72, 24.0, 1e9, 10**9),
        lambda: sample_at_fps(3, 1e-8, 1.0, None, [0.0, 1e8, 2e8]),
    ],
)
def test_sampling_is_bounded(call):
    with pytest.raises(ValueError, match="frames of a clip of"):
        call()


@pytest.mark.parametrize(
    "fps, total", [(1e-9, 10), (24.0, 2**40), (1e-300, 1e300), (float("nan"), 10), (0.0, 10), (24.0, float("inf"))]
)
def test_temporal_groups_are_bounded(fps, total):
    with pytest.raises(ValueError, match="at most 50000 groups of 30 s"):
        plan_groups([0], fps, total, 30.0, 1.0, 100)
