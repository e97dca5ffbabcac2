"""What answers of sessions rest on: as the processor tells it, and without what was forgotten."""

import json

import numpy as np
import pytest

from transformers_omnivinci import Session
from transformers_omnivinci.planning import MediumFacts, plan_medium
from transformers_omnivinci.sessions import Policy
from transformers_omnivinci.sessions.account import _still_seen

from .conftest import CLIP
from .media_samples import audio_item, image_item, user, video_item
from .test_evidence import CLIP_FRAMES, CLIP_SECONDS, CLIP_SIZE, inputs_of
from .test_planning import layout
from .test_sessions import OPTIONS
from .test_sessions_live import RATE, nano, scene

__all__ = ["nano"]

SHORT = {"max_new_tokens": 2, "do_sample": False, "return_evidence": True}
WATCHED = {
    "a file": [{"type": "video", "path": CLIP}],
    "an image, tiled": [image_item(height=60, width=240)],
    "two images, and given frames": [image_item(), video_item(num_frames=4), image_item(seed=2)],
    "sound": [audio_item(seconds=1.5)],
}


@pytest.mark.parametrize("items", WATCHED.values(), ids=WATCHED)
def test_it_is_what_the_processor_tells(model, processor, tmp_path, items):
    options = {"num_frames": 3, "load_audio_from_video": True} if items[0].get("path") else {}
    session = Session(model, processor)
    for item in items:
        session.watch(item, **options)
    _, evidence = inputs_of(processor, *items, **{"load_audio_from_video": False, **options})
    assert session.ask("What happens?", max_new_tokens=2).evidence is None
    assert session.ask("What happens?", **SHORT).evidence == evidence
    with session.ask("What happens?", stream=True, **SHORT) as stream:
        list(stream)
    assert stream.answer.evidence == evidence
    session.save(tmp_path / "session")
    for one in (session.fork(), Session.load(tmp_path / "session", model, processor)):
        told = one.ask("What happens?", **SHORT)
        assert told.evidence == evidence and sum(told.evidence.tokens.values()) == told.prompt_tokens
    assert json.loads(json.dumps(evidence.to_dict())) == evidence.to_dict()


def test_a_conversation_has_the_media_of_all_its_turns(model, processor):
    session = Session(model, processor)
    session.watch(image_item())
    kept = session.ask("Who?", keep=True, **SHORT)
    assert [one.modality for one in kept.evidence.media] == ["image"]
    session.watch(audio_item())
    session.watch(image_item(seed=3))
    answer = session.ask("And?", **SHORT)
    chat = [*user(image_item(), "Who?"), {"role": "assistant", "content": str(kept)}]
    chat += user(audio_item(), image_item(seed=3), "And?")
    inputs = processor.apply_chat_template(chat, return_evidence=True, **OPTIONS)
    assert answer.evidence == inputs["evidence"][0]


def test_what_was_forgotten_is_left_out(model, processor, tmp_path):
    session = Session(model, processor)
    session.watch(CLIP, num_frames=7, load_audio_from_video=True)
    [whole] = session.ask("What?", **SHORT).evidence.media
    session.forget(before=5.0)
    answer = session.ask("What?", **SHORT)
    [told] = answer.evidence.media
    [watched] = session.timeline()
    assert told.seen == tuple(span for span in whole.seen if span[0] >= 5.0) and told.frames == len(told.seen) == 4
    assert told.seen[0][0] == watched.seen[0][0]
    assert told.heard == ((pytest.approx(5.0, abs=0.03), pytest.approx(CLIP_SECONDS, abs=0.05)),)
    left = told.left_out
    assert (left.frames, left.frames_forgotten) == (CLIP_FRAMES - 7, 3) and told.sampled_fps == whole.sampled_fps
    assert left.sound_forgotten + told.seconds_heard == pytest.approx(whole.seconds_heard)
    assert sum(told.tokens.values()) == watched.num_tokens < sum(whole.tokens.values())
    assert sum(answer.evidence.tokens.values()) == answer.prompt_tokens
    session.save(tmp_path / "session")
    assert Session.load(tmp_path / "session", model, processor).ask("What?", **SHORT).evidence == answer.evidence
    session.forget(before=100.0)
    [told] = session.ask("What?", **SHORT).evidence.media
    assert (told.seen, told.heard, told.frames, told.left_out.frames_forgotten) == ((), (), 0, 7)
    assert told.left_out.scaled_from == CLIP_SIZE


def test_a_frame_is_seen_as_long_as_an_embedding_shows_it():
    """Embeddings that are pooled over frames are when the first of these is."""
    shared = layout(video_pool_sizes=((1, 1, 1), (3, 1, 1)))
    plan = plan_medium(MediumFacts("video", (1, 1), [0.0, 1.0, 2.0, 3.0], [0, 1, 2, 3], 1.0, 4), shared)
    assert _still_seen(plan, shared, frozenset([2.0, 3.0])) == {2.0, 3.0}
    assert _still_seen(plan, shared, frozenset([0.0])) == {0.0, 1.0, 2.0}


def test_a_live_clip_tells_what_was_not_used_and_what_the_policy_dropped(nano):
    session, policy = Session(*nano), Policy(max_tokens=120, recent_seconds=4.0, older_every=4.0)
    bounded = Session(*nano, policy=policy)
    for start in range(0, 24, 2):
        frames, timestamps, samples = scene(2.0, fps=4.0, seed=start)
        for one in (session, bounded):
            one.feed(frames, [second + start for second in timestamps], samples, start=start, fps=2.0)
    [told] = session.ask("What?", **SHORT).evidence.media
    assert (told.modality, told.duration, told.fps, told.sampled_fps) == ("video", 24.0, 4.0, 2.0)
    assert (told.frames, told.left_out.frames) == (48, 48) and told.heard == ((0.0, 24.0),)
    assert told.seen[:2] == ((0.0, 0.25), (0.5, 0.75)) and told.left_out.scaled_from == (48, 64)
    answer = bounded.ask("What?", **SHORT)
    [told], [watched] = answer.evidence.media, bounded.timeline()
    assert told.left_out.frames == 48 and told.frames + told.left_out.frames_forgotten == 48
    assert told.seen[0][0] == watched.seen[0][0] and told.seen[-1] == (23.5, 23.75)
    assert told.heard[0][0] == pytest.approx(watched.heard[0][0], abs=0.2) and told.heard[-1][1] == 24.0
    assert told.left_out.sound_forgotten + told.seconds_heard == pytest.approx(24.0)
    assert sum(answer.evidence.tokens.values()) == answer.prompt_tokens
    fork = bounded.fork()
    fork.forget(before=23.0)
    [less] = fork.ask("What?", **SHORT).evidence.media
    assert less.frames == 2 and bounded.ask("What?", **SHORT).evidence == answer.evidence


def test_frames_that_were_taken_from_more_tell_so(nano, tmp_path):
    session = Session(*nano)
    session.feed(np.zeros((1, 48, 64, 3), np.uint8), [0.0])
    [told] = session.ask("What?", **SHORT).evidence.media
    assert (told.seen, told.duration, told.frames, told.fps) == (((0.0, 0.0),), 0.0, 1, 0.0)
    frames, timestamps, samples = scene(5.0, fps=1.0)
    session.feed(frames[1:], timestamps[1:], samples, source_fps=25.0)
    session.save(tmp_path / "session")
    for one in (session, Session.load(tmp_path / "session", *nano)):
        [told] = one.ask("What?", **SHORT).evidence.media
        assert (told.frames, told.left_out.frames, told.fps) == (5, 120, 25.0)
        assert told.seen == tuple((second, pytest.approx(second + 0.04)) for second in timestamps)
    with pytest.raises(ValueError, match="`source_fps=-1`"):
        session.feed(frames, timestamps, source_fps=-1)
    sound = Session(*nano)
    sound.feed(samples=samples[:RATE])
    [told] = sound.ask("What?", **SHORT).evidence.media
    assert (told.modality, told.heard, told.seen, told.duration) == ("audio", ((0.0, 1.0),), (), 1.0)


def test_a_plan_has_none(processor):
    for ask in (processor.plan, processor.count_tokens):
        with pytest.raises(ValueError, match="A plan has no evidence"):
            ask("Hi", return_evidence=True)
