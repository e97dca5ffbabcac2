"""What answers rest on: that it agrees with the plan, with the inputs and with the files, wherever it is asked for."""

import base64
import io
import json
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import pipeline
from typer.testing import CliRunner

from transformers_omnivinci.cli import app
from transformers_omnivinci.endpoint import EndpointHandler
from transformers_omnivinci.pipelines import AnyToAnyWithoutTorchvisionPipeline
from transformers_omnivinci.planning import MediumFacts, MediumSource, PromptPlan, plan_medium, prompt_evidence
from transformers_omnivinci.serving import responses
from transformers_omnivinci.serving.streaming import stream_chat

from .conftest import CLIP, PARITY
from .media_files import Sound, write_video
from .media_samples import audio_item, image, image_item, sound, user, video_item
from .test_planning import AUDIO, IMAGE, VIDEO, group_durations, layout, media, poolings

TOKENS = {"image": IMAGE, "video": VIDEO, "audio": AUDIO}
CLIP_ITEM = {"type": "video", "path": CLIP}
CLIP_SECONDS, CLIP_FRAMES, CLIP_SIZE = 12.0, 300, (360, 480)


def inputs_of(processor, *content, **options):
    """The inputs of a question, and what its answer rests on."""
    inputs = processor.apply_chat_template(
        user(*content, "What happens?"),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        **{"return_evidence": True, "load_audio_from_video": True, **options},
    )
    [evidence] = inputs.pop("evidence")
    return inputs, evidence


def counted(processor, inputs) -> dict[str, int]:
    ids = inputs["input_ids"][0].tolist()
    counts = {name: ids.count(getattr(processor, f"{name}_token_id")) for name in TOKENS}
    return {"text": len(ids) - sum(counts.values()), **counts}


# ----------------------------------------------------------------------------------------------------- with the plan


@given(
    facts=st.lists(media(), max_size=4),
    pooling=poolings,
    interleave=st.booleans(),
    group_duration=group_durations,
    limit=st.none() | st.floats(1, 60),
    start=st.floats(0, 1000),
)
def test_it_agrees_with_the_plan(facts, pooling, interleave, group_duration, limit, start):
    shared = layout(
        audio_pooling=pooling,
        interleave=interleave,
        group_duration=group_duration,
        max_audio_duration=limit,
        audio_start=[9],
        group_end=[8],
    )
    plans = [plan_medium(one, shared) for one in facts]
    text_ids, slots = [1], []
    for one in facts:
        slots.append(len(text_ids))
        text_ids += [TOKENS[one.modality], 2]
    plan = PromptPlan(text_ids, slots, plans)
    sources = [
        MediumSource(one, start=start if one.modality == "video" else 0.0, sound=one.num_samples / 16_000)
        for one in facts
    ]
    evidence = prompt_evidence(plan, sources, shared)

    ids = plan.ids()
    counts = {name: ids.count(token) for name, token in TOKENS.items()}
    assert evidence.tokens == {"text": len(ids) - sum(counts.values()), **counts}
    assert json.loads(json.dumps(evidence.to_dict()))["tokens"] == evidence.tokens
    for one, planned, told, source in zip(facts, plans, evidence.media, sources, strict=True):
        assert sum(told.tokens.values()) == planned.length
        for spans in (told.seen, told.heard):
            assert all(first <= last for first, last in spans)
            assert all(before[1] < after[0] for before, after in zip(spans, spans[1:]))
        # Each sampled frame, and nothing but frames, lies in what was seen.
        frames = sorted({source.start + second for second in planned.frame_seconds})
        assert all(any(a - 1e-6 <= frame <= b + 1e-6 for a, b in told.seen) for frame in frames)
        assert told.seconds_seen <= len(frames) * (1 / one.fps if one.fps else 0) + 1e-3 * len(frames) + 1e-6
        assert {first for first, _ in told.seen} <= set(frames)
        # What is heard and what is left out is all the sound there is; the seconds of vectors lie in what is heard.
        left = told.left_out.sound_cut + told.left_out.sound_not_placed + told.left_out.sound_not_asked_for
        assert told.seconds_heard + left == pytest.approx(source.sound, abs=3e-3)
        if planned.sound_seconds and planned.windows.duration > planned.sound_seconds[-1]:
            assert told.heard[0][1] - source.start >= planned.sound_seconds[-1] - 1e-6
        if one.modality == "video":
            assert told.frames + told.left_out.frames >= one.total_num_frames - 1


def test_spans_of_neighbouring_frames_are_one():
    positions = [0, 1, 2, 10, 11, 11, 49]  # a frame may repeat
    facts = MediumFacts("video", (1, 1), [one / 10 for one in positions], positions, 10.0, 50)
    plan = PromptPlan([VIDEO], [0], [plan_medium(facts, layout())])
    [told] = prompt_evidence(plan, [MediumSource(facts, duration=7.0)], layout()).media
    assert np.array(told.seen) == pytest.approx(np.array([(0.0, 0.3), (1.0, 1.2), (4.9, 5.0)]))
    assert (told.frames, told.left_out.frames, told.left_out.seconds_after) == (6, 44, pytest.approx(2.0))


# ------------------------------------------------------------------------------------------------------- with files


@pytest.mark.parametrize("num_frames", (1, 7, CLIP_FRAMES))
def test_of_a_video_with_its_sound(processor, num_frames):
    inputs, evidence = inputs_of(processor, CLIP_ITEM, num_frames=num_frames)
    [told] = evidence.media
    assert evidence.tokens == counted(processor, inputs)
    assert (told.frames, told.left_out.frames) == (num_frames, CLIP_FRAMES - num_frames)
    assert told.seconds_seen == pytest.approx(num_frames / 25, abs=1e-3)
    assert told.heard == ((0.0, pytest.approx(CLIP_SECONDS, abs=0.05)),)
    assert told.left_out.scaled_from == CLIP_SIZE
    assert told.left_out.scaled_to == tuple(inputs["pixel_values_videos"].shape[-2:])
    starts = [first for first, _ in told.seen]
    assert starts[0] == 0 and (num_frames == CLIP_FRAMES) == (len(starts) == 1 < num_frames)


def test_of_a_part_of_a_video(processor):
    _, evidence = inputs_of(processor, CLIP_ITEM, num_frames=3, video_start=2.0, video_end=5.0)
    [told] = evidence.media
    assert told.duration == CLIP_SECONDS
    assert told.seen[0][0] == pytest.approx(2.0) and told.seen[-1][1] == pytest.approx(5.0)
    assert told.heard == ((2.0, pytest.approx(5.0, abs=0.05)),)
    assert told.left_out.seconds_before == pytest.approx(2.0)
    assert told.left_out.seconds_after == pytest.approx(CLIP_SECONDS - 5.0)
    assert told.left_out.frames == 75 - 3


def test_of_sound_that_is_not_asked_for(processor):
    inputs, evidence = inputs_of(processor, CLIP_ITEM, num_frames=3, load_audio_from_video=False)
    [told] = evidence.media
    assert "input_features" not in inputs and evidence.tokens["audio"] == 0
    assert told.heard == () and told.left_out.sound_not_asked_for == pytest.approx(CLIP_SECONDS, abs=0.05)
    assert not told.left_out.sound_cut and not told.left_out.sound_not_placed


def test_of_sound_that_is_cut(processor, monkeypatch, tmp_path):
    path = tmp_path / "long.wav"
    with wave.open(str(path), "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes((sound(5.0) * 32767).astype(np.int16).tobytes())
    monkeypatch.setattr(processor, "max_audio_duration", 2.0)
    for content in (CLIP_ITEM, {"type": "audio", "path": str(path)}, audio_item(seconds=5.0)):
        inputs, evidence = inputs_of(processor, content, num_frames=2)
        whole = CLIP_SECONDS if content is CLIP_ITEM else 5.0
        assert evidence.media[0].heard == ((0.0, pytest.approx(2.0, abs=0.05)),)
        assert evidence.media[0].left_out.sound_cut == pytest.approx(whole - 2.0, abs=0.06)
        assert evidence.tokens == counted(processor, inputs)


@pytest.mark.filterwarnings("ignore:The sound of:UserWarning")
def test_of_sound_that_outlasts_the_picture(processor, tmp_path):
    path = write_video(tmp_path / "late.mp4", num_frames=24, sound=Sound(seconds=4.0))
    _, evidence = inputs_of(processor, {"type": "video", "path": str(path)}, num_frames=2)
    [told] = evidence.media
    assert told.seconds_heard + told.left_out.sound_not_placed == pytest.approx(4.0, abs=0.1)
    assert told.left_out.sound_not_placed > 2.5


def test_of_images(processor):
    scales = processor.image_processor.s2_scales
    for content in ([image_item()], [image_item(), image_item(height=scales[0], width=scales[0])]):
        inputs, evidence = inputs_of(processor, *content)
        assert evidence.tokens == counted(processor, inputs)
        for told, grid in zip(evidence.media, inputs["image_grid_hw"].tolist(), strict=True):
            assert list(told.tiles) == grid
        assert evidence.media[0].left_out.scaled_from == (90, 160)
        assert evidence.media[0].left_out.scaled_to == tuple(scales[0] * side for side in evidence.media[0].tiles)
    assert evidence.media[1].left_out.scaled_from is None


def test_of_opened_files(processor):
    picture = io.BytesIO()
    image().save(picture, "PNG")
    with open(CLIP, "rb") as clip:
        content = [{"type": "image", "image": picture}, {"type": "video", "video": clip}]
        inputs, evidence = inputs_of(processor, *content, num_frames=2)
    assert evidence.tokens == counted(processor, inputs)
    assert [told.left_out.scaled_from for told in evidence.media] == [(90, 160), CLIP_SIZE]


def test_of_frames_of_a_part(processor):
    metadata = {"total_num_frames": 20, "fps": 10.0, "start": 5.0, "clip_duration": 9.0}
    frames = np.zeros((20, 32, 32, 3), np.uint8)
    options = {"videos": [frames], "num_frames": 20, "load_audio_from_video": False, "return_evidence": True}
    text = f"{processor.video_token} What?"
    [evidence] = processor(text, video_metadata=[metadata], **options)["evidence"]
    [told] = evidence.media
    assert told.seen == ((5.0, pytest.approx(7.0)),)
    assert (told.left_out.seconds_before, told.left_out.seconds_after) == (5.0, pytest.approx(2.0))
    with pytest.raises(ValueError, match="start"):
        processor(text, video_metadata=[metadata | {"start": -1.0}], **options)
    with pytest.raises(TypeError, match="clip_duration"):
        processor(text, video_metadata=[metadata | {"clip_duration": "long"}], **options)


def test_of_several_prompts_and_given_frames(processor):
    chats = [user(CLIP_ITEM, audio_item(), "What?"), user("Hi"), user(video_item(num_frames=4), "Who?")]
    inputs = processor.apply_chat_template(
        chats, tokenize=True, return_dict=True, return_tensors="pt", num_frames=2, return_evidence=True
    )
    lengths = inputs["attention_mask"].sum(1).tolist()
    assert [sum(one.tokens.values()) for one in inputs["evidence"]] == lengths
    assert [[told.modality for told in one.media] for one in inputs["evidence"]] == [["video", "audio"], [], ["video"]]


def test_of_text_that_is_truncated(processor):
    text = "one two three four five six"
    [evidence] = processor(text, truncation=True, max_length=3, return_evidence=True)["evidence"]
    assert evidence.tokens["text"] == 3
    assert evidence.text_cut == len(processor(text)["input_ids"][0]) - 3 > 0


def test_it_is_not_told_unless_asked_for(processor):
    assert "evidence" not in processor("Hi")


# ------------------------------------------------------------------------------------------------- in answers


@pytest.mark.compat
def test_in_the_pipeline(model, processor):
    pipe = pipeline("video-text-to-text", model=model, processor=processor, device="cpu")
    options = {"max_new_tokens": 2, "num_frames": 3, "return_full_text": False}
    [plain] = pipe(CLIP, text="What?", **options)
    [told] = pipe(CLIP, text="What?", return_evidence=True, **options)
    assert told.pop("evidence")["media"][0]["frames"] == 3 and told == plain
    several = pipe([CLIP, CLIP], text=["What?", "Who is it?"], return_evidence=True, batch_size=2, **options)
    counts = [answer[0]["evidence"]["tokens"]["text"] for answer in several]
    assert counts[1] > counts[0]
    sampled = pipe(CLIP, text="What?", return_evidence=True, do_sample=True, num_return_sequences=2, **options)
    assert len(sampled) == 2 and all(record["evidence"] == sampled[0]["evidence"] for record in sampled)


@pytest.mark.compat
def test_in_the_pipeline_of_the_library_without_torchvision(model, processor):
    pipe = AnyToAnyWithoutTorchvisionPipeline(model=model, processor=processor, device="cpu")
    chat = user(CLIP_ITEM, image_item(), "What?")
    [told] = pipe(text=chat, max_new_tokens=2, return_evidence=True)
    assert [medium["modality"] for medium in told["evidence"]["media"]] == ["video", "image"]


@pytest.fixture(scope="module")
def handler():
    """One without a cache, so that the usage of a request does not depend on those before."""
    return EndpointHandler(str(PARITY / "published-tiny"), device="cpu", trust_remote_code=False, cache_gb=0)


def chat_request(**options) -> dict:
    url = "data:video/mp4;base64," + base64.b64encode(Path(CLIP).read_bytes()).decode()
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "What?"}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 3, "num_frames": 4, **options}


def test_in_chat_completions(handler):
    plain = handler.complete_chat(chat_request())
    told = handler.complete_chat(chat_request(return_evidence=True))
    assert "evidence" not in plain and told["choices"] == plain["choices"] and told["usage"] == plain["usage"]
    assert sum(told["evidence"]["tokens"].values()) == told["usage"]["prompt_tokens"]
    assert told["evidence"]["media"][0]["frames"] == 4


@pytest.mark.parametrize("options", ({}, {"stream_options": {"include_usage": True}}))
def test_in_streamed_answers(handler, options):
    chunks = list(stream_chat(handler, chat_request(return_evidence=True, **options)))
    assert [chunk["usage"] is not None for chunk in chunks if "evidence" in chunk] == [True]
    assert "evidence" not in chunks[0] and chunks[-1]["evidence"]["media"][0]["frames"] == 4


def test_in_responses(handler):
    whole = handler.complete_chat(chat_request(return_evidence=True))
    assert responses.as_response(whole, {})["evidence"] == whole["evidence"]
    *_, last = responses.as_events(stream_chat(handler, chat_request(return_evidence=True)), "nano", {})
    assert last["response"]["evidence"] == whole["evidence"]


def test_in_the_answers_of_endpoints(handler):
    [answer] = handler({"inputs": "Hi", "parameters": {"return_evidence": True, "max_new_tokens": 2}})
    assert answer["evidence"]["media"] == [] and answer["evidence"]["tokens"]["text"] > 0


def test_in_the_command(tmp_path):
    picture = tmp_path / "picture.png"
    image().save(picture)
    result = CliRunner().invoke(
        app,
        ["ask", CLIP, str(picture), "What?", "--evidence", "--no-audio", "--num-frames", "4"]
        + ["--model", str(PARITY / "published-tiny"), "--device", "cpu", "--max-new-tokens", "2"],
    )
    assert result.exit_code == 0, result.output
    assert f"{CLIP}\n  seen: 4 of 300 frames, 0.333 of 25 a second" in result.output
    assert "heard: nothing" in result.output and "12.00 s of sound that was not asked for" in result.output
    assert f"{picture}\n  seen: as one tile" in result.output or "tiles" in result.output
    assert "tokens: " in result.output
