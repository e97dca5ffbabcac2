"""What sessions forget, what is left of it, and what they tell."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformers_omnivinci import Session
from transformers_omnivinci.sessions import Policy
from transformers_omnivinci.sessions.policy import Track, choose, spans_of
from transformers_omnivinci.sessions.turns import Turn

from .conftest import CLIP
from .media_samples import audio_item, image_item, user
from .test_sessions import GREEDY, generate
from .test_sessions import nano as nano_as_it_is
from .test_sessions_live import RATE, nano, scene

__all__ = ["nano", "nano_as_it_is"]

# ------------------------------------------------------------------------------------------------------ what is kept


@st.composite
def tracks(draw):
    """Clips one after another, of some embeddings per frame and some sound."""
    made, start = [], 0.0
    for _ in range(draw(st.integers(1, 3))):
        duration, per_frame = draw(st.integers(1, 60)), draw(st.integers(1, 5))
        frames = np.repeat(np.arange(0, duration, draw(st.sampled_from([0.5, 1, 4]))), per_frame)
        sound = np.arange(0, duration, 0.2) + 0.1 if draw(st.booleans()) else np.zeros(0)
        seconds = np.concatenate((frames, sound)) + start
        order = np.argsort(seconds, kind="stable")
        made.append(Track(seconds[order], (np.arange(len(seconds)) >= len(frames))[order]))
        start += duration
    return made, start


@given(
    made=tracks(),
    max_tokens=st.none() | st.integers(20, 400),
    max_seconds=st.none() | st.integers(1, 100),
    recent=st.integers(0, 50),
    share=st.floats(0.3, 1.0),
)
def test_limits_hold_and_the_newest_is_kept(made, max_tokens, max_seconds, recent, share):
    made, end = made
    policy = Policy(max_tokens, max_seconds, recent_seconds=recent, older_every=5.0, share=share)
    fixed = 6
    kept = choose(policy, made, fixed, end)
    assert [len(mask) for mask in kept] == [len(track.seconds) for track in made]
    left, sound = (
        np.concatenate([getattr(track, name)[mask] for track, mask in zip(made, kept, strict=True)])
        for name in ("seconds", "is_sound")
    )
    whole = np.concatenate([track.seconds for track in made])
    if max_seconds is not None:
        assert (left >= end - max_seconds).all()
    within = np.concatenate([np.zeros(0), whole[whole >= end - (max_seconds or end)]])
    if max_tokens is None or fixed + len(within) <= max_tokens:
        assert len(left) == len(within)
        return
    assert fixed + len(left) <= max_tokens
    # What is new enough is whole up to where it is not kept any more, and what is old has a frame in 5 s and no sound.
    if len(left):
        recent_whole = within[within >= max(left.min(), end - recent)]
        assert len(left[left >= end - recent]) == len(recent_whole)
    old = left[left < end - recent]
    assert not sound[left < end - recent].any()
    assert len(np.unique(old)) <= len(np.unique(np.floor(old / 5.0)))
    rest = [Track(track.seconds[mask], track.is_sound[mask]) for track, mask in zip(made, kept, strict=True)]
    again = choose(policy, rest, fixed, end)
    assert all(mask.all() for mask in again)


def test_what_always_stays_may_be_too_much():
    with pytest.raises(ValueError, match="take 500 positions by themselves"):
        choose(Policy(max_tokens=400), [Track(np.zeros(2), np.zeros(2, bool))], 500, 1.0)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_tokens": 0}, ValueError),
        ({"share": 1.5}, ValueError),
        ({"older_every": "10"}, TypeError),
        ({"max_seconds": -1}, ValueError),
        ({"max_tokens": float("nan")}, ValueError),
        ({"max_seconds": float("inf")}, ValueError),
        ({"recent_seconds": float("nan")}, ValueError),
        ({"max_tokens": True}, TypeError),
    ],
)
def test_policies_that_cannot_be_followed_are_refused(options, error):
    with pytest.raises(error, match=f"`{next(iter(options))}"):
        Policy(**options)


def test_spans_tell_rates():
    assert spans_of([]) == [] and spans_of([3.0]) == [(3.0, 3.0, 0.0)]
    assert spans_of([0, 0.5, 1, 1.5]) == [(0, 1.5, 2.0)]
    assert spans_of([0, 10, 20, 30, 31, 32, 33]) == [(0, 20, 0.1), (30, 33, 1.0)]
    # 48 of 60 frames, and 40: in both, gaps of one and of two frames alternate.
    for kept in (48, 40, 33):
        sampled = [index * 60 // kept / 8 for index in range(kept)]
        assert spans_of(sampled) == [(0, sampled[-1], (kept - 1) / sampled[-1])]
    assert spans_of([0, 1, 2, 3, 5, 7, 9]) == [(0, 3, 1.0), (5, 9, 0.5)]
    assert spans_of([0.1, 0.3, 0.5, 5.1, 5.3]) == [(0.1, 0.5, 5.0), (5.1, 5.3, pytest.approx(5.0))]


# ------------------------------------------------------------------------------------------------------- in a session


def answer_from_scratch(session, question) -> list[int]:
    """What one `generate` says to all that a session still has."""
    prompt = session._prompt((*session._turns, Turn(session._open.media, question)))
    ids = torch.from_numpy(prompt.ids)[None]
    output = session.model.generate(ids, mm_encoder_outputs=prompt.media(0), **GREEDY)
    return output[0, ids.shape[1] :].tolist()


def test_a_file_is_forgotten_up_to_a_second(nano_as_it_is):
    model, processor = nano_as_it_is
    session = Session(model, processor)
    session.watch(CLIP)
    [whole] = session.timeline()
    assert whole.kind == "video" and CLIP in whole.name and (whole.start, whole.duration) == (0, 12)
    assert whole.seen == [(0, pytest.approx(11.96), pytest.approx(3.93, abs=0.01))]
    session.watch(image_item())
    before = session.ask("What is seen?", **GREEDY)
    session.forget(before=3.0)
    clip, image = session.timeline()
    assert clip.seen[0][0] >= 3.0 and clip.heard[0][0] >= 3.0 and clip.num_tokens < whole.num_tokens
    assert clip.seen[-1][1] == whole.seen[-1][1] and clip.heard[-1][1] == whole.heard[-1][1]
    assert (image.kind, image.seen, image.heard) == ("image", [], []) and image.num_tokens > 0
    after = session.ask("What is seen?", keep=True, **GREEDY)
    assert after.token_ids and after.prompt_tokens < before.prompt_tokens
    assert session.ask("And?", **GREEDY).token_ids == answer_from_scratch(session, "And?")
    session.forget(before=100.0)
    assert [one.seen for one in session.timeline()] == [[], []]
    chat = [*user(image_item(), "What is seen?"), {"role": "assistant", "content": str(after)}, *user("And?")]
    assert session.ask("And?", **GREEDY).token_ids == generate(model, processor, chat)
    told = session.timeline()
    for before, error in (
        (float("nan"), ValueError),
        (float("-inf"), ValueError),
        ("3", TypeError),
        (None, TypeError),
    ):
        with pytest.raises(error, match="`before"):
            session.forget(before=before)
    assert session.timeline() == told


def test_nothing_is_forgotten_before_the_first_second(nano_as_it_is):
    session = Session(*nano_as_it_is, policy=Policy(max_tokens=10_000, max_seconds=1000))
    session.watch(CLIP)
    session.watch(audio_item())
    told, answer = session.timeline(), session.ask("What?", **GREEDY)
    session.forget(before=0.0)
    assert session.timeline() == told and session.ask("What?", **GREEDY).cached_tokens == answer.cached_tokens
    assert told[1].start == told[0].duration


def test_a_live_clip_stays_within_the_limit_for_as_long_as_it_is_fed(nano):
    policy = Policy(max_tokens=200, recent_seconds=8.0, older_every=4.0)
    session, held = Session(*nano, policy=policy), []
    for start in range(0, 120, 2):
        frames, timestamps, samples = scene(2.0, seed=start, loud_at=1.0 if start == 80 else None)
        session.feed(frames, [second + start for second in timestamps], samples, start=start)
        if start % 18 == 0:
            answer = session.ask("What?", **GREEDY)
            assert answer.prompt_tokens < 240
            assert answer.token_ids == answer_from_scratch(session, "What?")
        [clip] = session._open.media
        held.append(sum(window.features is not None for window in clip.windows))
        held[-1] += sum(len(block) for blocks in clip.pictures for block in blocks)
    assert max(held) < 80
    [told] = session.timeline()
    assert told.duration == 120 and told.num_tokens <= 200
    assert told.seen[-1][1] == 119.5 and told.seen[-1][2] == 2.0 and told.heard[-1][1] > 119
    assert told.heard[0][0] > 100 and 0 < told.seen[0][2] <= 0.5
    # Without a limit it goes on from there.
    fork = session.fork()
    fork.policy = None
    fork.feed(samples=samples[:RATE])
    assert fork.ask("What?", **GREEDY).token_ids == answer_from_scratch(fork, "What?")
    assert session.timeline() == [told]


def test_a_limit_that_text_alone_exceeds_leaves_the_session_as_it_was(nano):
    session = Session(*nano, system="Be brief. " * 50, policy=Policy(max_tokens=100))
    frames, timestamps, samples = scene(2.0)
    with pytest.raises(ValueError, match="`max_tokens` of the session's policy is 100"):
        session.feed(frames, timestamps, samples)
    assert session.timeline() == []
