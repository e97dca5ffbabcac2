"""Arithmetic of live sources: seconds never go back, sound fits without gap or overlap, thinning keeps the newest."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformers_omnivinci.media.live.clock import (
    MIN_SETBACK,
    LiveClock,
    Sampler,
    complete_until,
    fit_sound,
    thin,
)

STEP = 0.04


def place_all(clock, times, track="video", now=0.0):
    return [clock.place(track, time, STEP, now) for time in times]


def seconds_of(clock, times, **options):
    return [placed.second for placed in place_all(clock, times, **options)]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.data())
def test_no_clock_whatever_takes_the_line_back(times, data):
    clock = LiveClock()
    clock.restart(data.draw(st.none() | st.floats(-1e6, 1e6)))
    last, now = {}, 0.0
    for time in times:
        if data.draw(st.booleans()):
            clock.restart(data.draw(st.none() | st.floats(-1e6, 1e6)))
        now += data.draw(st.floats(0, 100))
        track = data.draw(st.sampled_from(["video", "audio"]))
        end = clock.end
        second, _ = clock.place(track, time, STEP, now)
        # Unless a clock only rounds, or two tracks of one clock are joined, which may start apart from each other.
        assert second >= last.get(track, second) - clock.max_gap - 1e-6
        assert clock.end >= end
        assert second <= end + max(clock.max_gap, now) + 100 + 1e-6
        last[track] = second


@given(st.floats(-1e5, 1e5), st.integers(1, 100))
def test_a_steady_clock_starts_at_zero_wherever_it_stands(start, length):
    times = [start + STEP * number for number in range(length)]
    placed = place_all(LiveClock(), times)
    assert not any(jump for _, jump in placed)
    assert [second for second, _ in placed] == pytest.approx([STEP * number for number in range(length)], abs=1e-6)


@given(st.floats(20, 1e5), st.sampled_from([-1, 1]), st.floats(0, 0.5), st.booleans())
def test_what_follows_a_jump_continues_and_keeps_picture_and_sound_together(jump, way, lead, is_picture_first):
    clock, base = LiveClock(), 2e5
    tracks = {"video": 0.0, "audio": lead}
    for number in range(50):
        for track, offset in tracks.items():
            clock.place(track, base + offset + STEP * number, STEP, 0.0)
    end, jumps, after = clock.end, [], {}
    for track in sorted(tracks, reverse=is_picture_first):
        placed = clock.place(track, base + way * jump + tracks[track], STEP, 0.0)
        jumps.append(placed.jump)
        after[track] = placed.second
    assert all(math.copysign(1, jump) == way for jump in jumps) and jumps[0] == pytest.approx(jumps[1])
    assert after["audio"] - after["video"] == pytest.approx(lead, abs=1e-6)
    assert max(after.values()) >= end - 1e-6 and min(after.values()) >= end - lead - 1e-6


def test_a_pause_of_one_track_is_no_jump_while_the_other_goes_on():
    clock = LiveClock()
    place_all(clock, [0.0])
    place_all(clock, [STEP * number for number in range(1000)], track="audio")
    assert place_all(clock, [39.0]) == [(39.0, 0.0)]


def test_a_pause_that_passed_on_the_wall_clock_is_no_jump():
    clock = LiveClock()
    assert clock.place("video", 5.0, STEP, 100.0) == (0.0, 0.0)
    assert clock.place("video", 35.0, STEP, 130.0) == (30.0, 0.0)
    assert clock.place("video", 65.0, STEP, 131.0) == (30.04, 30.0 - STEP)


def test_small_gaps_are_kept():
    assert seconds_of(LiveClock(), [3.0, 4.0, 12.0]) == [0.0, 1.0, 9.0]


def test_a_source_that_is_opened_again_continues_on_the_wall_clock():
    clock = LiveClock()
    clock.place("video", 50.0, STEP, 100.0)
    clock.restart(7.0)
    assert clock.place("audio", 7.0, STEP, 103.0) == (pytest.approx(3.0 + STEP), 0.0)
    assert clock.place("video", 7.5, STEP, 103.0) == (pytest.approx(3.5 + STEP), 0.0)


def test_what_a_demuxer_gives_late_does_not_shorten_the_time_that_a_source_had_stalled():
    clock = LiveClock()
    clock.place("video", 50.0, STEP, 100.0)
    clock.place("video", 50.5, STEP, 110.0)
    clock.restart(0.0, since=101.0)
    assert clock.place("video", 0.0, STEP, 111.0) == (pytest.approx(10.5 + STEP), 0.0)


def test_a_source_whose_own_clock_went_on_keeps_it():
    clock = LiveClock()
    clock.place("video", 50.0, STEP, 100.0)
    clock.restart()
    assert clock.place("video", 53.5, STEP, 103.0) == (3.5, 0.0)


def test_a_source_that_repeats_seconds_is_placed_where_they_were():
    clock = LiveClock()
    place_all(clock, [50.0 + number for number in range(9)])
    clock.restart(replay=120.0)
    assert clock.place("video", 54.0, STEP, 1.0) == (4.0, 0.0)
    clock.restart()
    assert clock.place("video", 54.0, STEP, 1.0) == (pytest.approx(8.0 + STEP), 0.0)


@given(st.lists(st.floats(0, 100), max_size=200), st.floats(0.1, 60))
def test_samples_of_a_stream_are_ascending_and_no_more_than_asked_for(seconds, fps):
    sampler = Sampler(fps)
    wanted = [second for second in seconds if sampler.wants(second)]
    cells = [math.floor(second * fps + 1e-6) for second in wanted]
    assert cells == sorted(set(cells))


def test_evenly_spaced_frames_are_sampled_evenly():
    sampler = Sampler(2.0)
    assert [number for number in range(100) if sampler.wants(number / 25)] == [0, 13, 25, 38, 50, 63, 75, 88]


@given(st.integers(1, 1000))
def test_thinning_keeps_the_newest_and_every_second_one(num_frames):
    kept = list(thin(num_frames))
    assert kept[-1] == num_frames - 1 and len(kept) == math.ceil(num_frames / 2) and kept[0] in (0, 1)
    assert all(after - before == 2 for before, after in zip(kept, kept[1:]))


@given(st.floats(0, 1e5), st.floats(0, 1e5))
def test_sound_is_filled_up_or_cut_to_where_it_belongs(clock, second):
    silence, overlap = fit_sound(clock, second)
    assert silence >= 0 and overlap >= 0 and 0 in (silence, overlap)
    assert abs(clock + silence - overlap - second) <= MIN_SETBACK


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=50), st.floats(0, 20))
def test_nothing_that_is_complete_becomes_incomplete(steps, max_lag):
    picture = sound = complete = 0.0
    for is_sound, seconds in steps:
        picture, sound = (picture, sound + seconds) if is_sound else (picture + seconds, sound)
        now = complete_until(picture, sound, max_lag)
        assert complete <= now <= max(picture, sound) and now >= min(picture, sound)
        complete = now
    assert complete_until(picture, None, max_lag) == picture
