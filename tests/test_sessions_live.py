"""Live clips: answers are those about a video of the same frames, seconds and samples, in whatever pieces."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoProcessor

from transformers_omnivinci import NANO, Session
from transformers_omnivinci.media import LoadedVideo, OmniVinciVideoMetadata
from transformers_omnivinci.sessions.feeding import Clock

from .media_samples import image_item, user
from .test_sessions import GREEDY, OPTIONS

RATE = 16_000


def scene(seconds: float, fps: float = 2.0, seed: int = 0, sound: float | None = None, loud_at: float | None = None):
    """Frames, their seconds and samples of a clip."""
    random = np.random.default_rng(seed)
    num_frames = max(1, round(seconds * fps))
    frames = random.integers(0, 256, (num_frames, 48, 64, 3), dtype=np.uint8)
    time = np.arange(round((seconds if sound is None else sound) * RATE)) / RATE
    samples = (0.02 * np.sin(2 * np.pi * (300 + 40 * np.floor(time)) * time)).astype(np.float32)
    samples *= np.sin(time) > -0.5  # with silence, where the floor of a spectrogram shows
    if loud_at is not None:
        samples[round(loud_at * RATE) :] *= 40
    return frames, [index / fps for index in range(num_frames)], samples


def as_video(frames, timestamps, samples, end=None) -> dict:
    """The same as a content item."""
    heard = samples is not None and len(samples)
    duration = max(end or 0, timestamps[-1], len(samples) / RATE if heard else 0)
    metadata = OmniVinciVideoMetadata(
        total_num_frames=len(frames),
        fps=1.0,
        duration=duration,
        frames_indices=list(range(len(frames))),
        frame_times=list(timestamps),
    )
    pixels = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    return {"type": "video", "video": LoadedVideo(pixels, metadata, samples if heard else None)}


def expected(model, processor, chat) -> list[int]:
    inputs = processor.apply_chat_template(chat, load_audio_from_video=True, **OPTIONS)
    return model.generate(**inputs, **GREEDY)[0, inputs["input_ids"].shape[1] :].tolist()


def feed_in_pieces(session, frames, timestamps, samples, cuts, ask_between=False):
    """Feeds a clip cut at seconds; sound comes a little behind the picture."""
    first_frame = first_sample = 0
    for cut in [*sorted(cuts), None]:
        last_frame = len(frames) if cut is None else sum(second < cut for second in timestamps)
        last_sample = len(samples) if cut is None else max(first_sample, min(len(samples), round((cut - 0.3) * RATE)))
        if last_frame > first_frame:
            session.feed(frames[first_frame:last_frame], timestamps[first_frame:last_frame])
        if last_sample > first_sample:
            session.feed(samples=samples[first_sample:last_sample], start=first_sample / RATE)
        first_frame, first_sample = max(first_frame, last_frame), last_sample
        if ask_between:
            session.ask("What?", **GREEDY)


@pytest.fixture(scope="module")
def nano():
    """With windows and groups of 3 s and 1 s, and sound padded to 6 s: what 30 s are in the published model."""
    processor = AutoProcessor.from_pretrained(NANO, audio_pad_to_multiple_of=6.0)
    return AutoModel.from_pretrained(NANO, dtype=torch.float32), processor


@pytest.mark.slow
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_chunking_gives_the_answer_about_the_whole(nano, data):
    seconds = data.draw(st.integers(1, 28)) / 2
    clip = scene(
        seconds,
        fps=data.draw(st.sampled_from([1.0, 2.0, 3.0])),
        seed=data.draw(st.integers(0, 9)),
        sound=data.draw(st.sampled_from([None, seconds / 2, 0])),
        loud_at=data.draw(st.sampled_from([None, seconds / 2])),
    )
    cuts = data.draw(st.lists(st.floats(0.1, seconds), max_size=6))
    session = Session(*nano)
    feed_in_pieces(session, *clip, cuts, ask_between=data.draw(st.booleans()))
    chat = user(as_video(*clip), "What happens?")
    assert session.ask("What happens?", **GREEDY).token_ids == expected(*nano, chat)


def test_inputs_of_the_language_model_are_those_of_the_whole(nano):
    """Also where tokens would not tell a difference."""
    model, processor = nano
    clip = scene(13.3, loud_at=9.0)
    session = Session(model, processor)
    feed_in_pieces(session, *clip, [2.0, 2.2, 7.7, 10.1], ask_between=True)
    prompt = session._prompt([type(session._open)(session._open.media, "What?")])
    inputs = processor.apply_chat_template(user(as_video(*clip), "What?"), load_audio_from_video=True, **OPTIONS)
    assert prompt.ids.tolist() == inputs["input_ids"][0].tolist()
    with torch.no_grad():
        encoded = model.encode_media(**{name: inputs[name] for name in inputs if name in _media(inputs)})
    for modality, output in prompt.media(0).items():
        assert torch.cat(output.pooler_output).shape == encoded[modality].pooler_output[0].shape
        assert (torch.cat(output.pooler_output) - encoded[modality].pooler_output[0]).abs().max() < 1e-4


def _media(inputs):
    return [name for name in inputs if name not in ("input_ids", "attention_mask")]


LAYOUTS = {
    "published-tiny-short-groups": {},
    "published-tiny-maxpool": {},
    "sound before picture": {"interleave_audio_in_video": False},
    "text around frames": {"video_start_tokens": "a", "video_separator_tokens": "\n"},
    "brackets": {"use_media_brackets": True},
    "windows completed with nothing": {"audio_pad_to_multiple_of": 8.0},
    "sound cut": {"max_audio_duration": 4.0},
    "sound of one length": {"fixed_audio_duration": 6.0},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_other_layouts(load_checkpoint, nano, name):
    if name.startswith("published") or name == "brackets":
        model, processor = load_checkpoint("published-tiny-short-groups" if name == "brackets" else name)
        processor = copy.deepcopy(processor)
        processor.use_media_brackets = name == "brackets"
        clip = scene(37.0, fps=1.0, loud_at=33.0)
    else:
        model, processor = nano[0], copy.deepcopy(nano[1])
        for option, value in LAYOUTS[name].items():
            setattr(processor, option, value)
        clip = scene(7.4)
    session = Session(model, processor)
    feed_in_pieces(session, *clip, [1.3, 2.0, 5.0, 6.6, 34.0], ask_between=True)
    chat = user(as_video(*clip), "What?")
    assert session.ask("What?", **GREEDY).token_ids == expected(model, processor, chat)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings_", "audio"),
    [([[2, 1, 1]], "avg"), ([[1, 1, 1], [2, 1, 1]], "none"), ([[1, 3, 1]], "conv"), ([[1, 2, 2]], "conv")],
)
def test_poolings(make_fresh, load_checkpoint, settings_, audio):
    processor = copy.deepcopy(load_checkpoint("published-tiny-short-groups")[1])
    config = copy.deepcopy(make_fresh("published-tiny-short-groups").config)
    config.video_pool_sizes = processor.video_pool_sizes = settings_
    config.audio_pooling = processor.audio_pooling = audio
    torch.manual_seed(0)
    model = type(make_fresh())(config).eval()
    clip = scene(33.0, fps=1.0)
    session = Session(model, processor)
    feed_in_pieces(session, *clip, [3.0, 7.5, 31.0], ask_between=True)
    assert session.ask("What?", **GREEDY).token_ids == expected(model, processor, user(as_video(*clip), "What?"))


def test_most_of_a_long_clip_was_read_before_the_question(nano):
    session, lengths = Session(*nano), []
    for start in range(0, 60, 4):
        frames, timestamps, samples = scene(4.0, seed=start)
        session.feed(frames, [second + start for second in timestamps], samples, start=start)
        answer = session.ask("What?", **GREEDY)
        lengths.append(answer.prompt_tokens - answer.cached_tokens)
    assert answer.prompt_tokens > 400 and max(lengths) < 60


def test_sound_alone_then_pictures_then_other_media_and_turns(nano):
    model, processor = nano
    frames, timestamps, samples = scene(8.0)
    session = Session(model, processor)
    session.feed(samples=samples[: 3 * RATE])
    chat = user({"type": "audio", "audio": samples[: 3 * RATE]}, "What?")
    assert session.ask("What?", **GREEDY).token_ids == expected(model, processor, chat)
    session.feed(frames[:6], timestamps[:6])
    session.watch(image_item())
    clip = as_video(frames[:6], timestamps[:6], samples[: 3 * RATE])
    kept = session.ask("What?", keep=True, **GREEDY)
    assert kept.token_ids == expected(model, processor, user(clip, image_item(), "What?"))
    # The clip goes on where it stands.
    session.feed(frames[6:], timestamps[6:], samples[3 * RATE :])
    session.watch(image_item(seed=7))
    chat = user(as_video(frames, timestamps, samples), image_item(), "What?")
    chat += [{"role": "assistant", "content": str(kept)}, *user(image_item(seed=7), "And?")]
    fork = session.fork()
    assert session.ask("And?", **GREEDY).token_ids == expected(model, processor, chat)
    fork.feed(samples=samples[:RATE])
    assert session.ask("And?", **GREEDY).token_ids == expected(model, processor, chat)


def test_gaps_are_silence_and_a_limit_of_frames_is_the_same_in_any_chunking(nano):
    model, processor = nano
    frames, timestamps, samples = scene(6.0, fps=5.0)
    session = Session(model, processor)
    for index, second in enumerate(timestamps):
        session.feed([frames[index]], [second], fps=2.0)
    session.feed(samples=samples[:RATE], start=0.01)
    session.feed(samples=samples[2 * RATE : 5 * RATE], start=2.0, end=7.0)
    heard = np.concatenate((samples[:RATE], np.zeros(RATE, np.float32), samples[2 * RATE : 5 * RATE]))
    used = [index for index in range(len(frames)) if index % 3 == 0]
    clip = as_video([frames[index] for index in used], [timestamps[index] for index in used], heard, end=7.0)
    assert session.ask("What?", **GREEDY).token_ids == expected(model, processor, user(clip, "What?"))


def test_what_a_clip_cannot_be_fed_is_refused_and_the_session_stays_usable(nano):
    frames, timestamps, samples = scene(4.0)
    session = Session(*nano)
    with pytest.raises(ValueError, match="Nothing was watched yet"):
        session.ask("What?")
    session.feed(frames, timestamps, samples)
    answer = session.ask("What?", **GREEDY)
    for error, message, arguments in (
        (ValueError, "seconds must ascend", {"frames": frames[:1], "timestamps": [3.5]}),
        (ValueError, "seconds must ascend", {"frames": frames[:2], "timestamps": [5.0, 4.5]}),
        (ValueError, "seconds from 0 on", {"frames": frames[:1], "timestamps": [float("nan")]}),
        (ValueError, "overlaps what was fed up to 4 s", {"samples": samples, "start": 3.0}),
        (ValueError, "Sound from -1.0 s", {"samples": samples, "start": -1.0}),
        (ValueError, "all frames of a clip have one size", {"frames": frames[:1, :40], "timestamps": [9.0]}),
        (ValueError, "1 frames with 2 timestamps", {"frames": frames[:1], "timestamps": [9.0, 10.0]}),
        (ValueError, "array of uint8", {"frames": frames[:1] / 255, "timestamps": [9.0]}),
        (ValueError, "both `frames` and `timestamps`", {"frames": frames}),
        (ValueError, "`start` is the second", {"start": 3.0}),
        (ValueError, "lasts 4 s already", {"end": 1.0}),
        (ValueError, "`fps=0`", {"fps": 0, "frames": frames, "timestamps": timestamps}),
        (TypeError, "resample the whole stream", {"samples": (samples, 8000)}),
        (ValueError, "NaN", {"samples": samples * np.nan}),
        (ValueError, "seconds from 0 on", {"frames": frames[:1], "timestamps": [float("inf")]}),
        (ValueError, "A frame at -1.0 s", {"frames": frames[:1], "timestamps": [-1]}),
        (TypeError, "A timestamp is a number, got str '9'", {"frames": frames[:1], "timestamps": ["9"]}),
        (TypeError, "A timestamp is a number, got bool", {"frames": frames[:1], "timestamps": [True]}),
        (TypeError, "sequences of the same length", {"frames": frames[:1], "timestamps": 9.0}),
        (TypeError, "sequences of the same length", {"frames": 3, "timestamps": [9.0]}),
        (ValueError, "0 frames with 1 timestamps", {"frames": [], "timestamps": [9.0]}),
        (ValueError, "holds no image", {"frames": [frames[0][:0]], "timestamps": [9.0]}),
        (ValueError, "got float32", {"frames": frames[:1].astype(np.float32), "timestamps": [9.0]}),
        (ValueError, "got str", {"frames": ["a.png"], "timestamps": [9.0]}),
        (ValueError, "at most 50000 groups", {"frames": frames[:1], "timestamps": [1e9]}),
        (ValueError, "infinite", {"samples": samples + np.inf}),
        (ValueError, "is not mono", {"samples": np.stack((samples, samples))}),
        (ValueError, "has no samples", {"samples": samples[:0]}),
        (TypeError, "`complex64` is not accepted", {"samples": samples.astype(np.complex64)}),
        (TypeError, "is not accepted: floats", {"samples": "sound.wav"}),
        (ValueError, "Sound from nan s", {"samples": samples, "start": float("nan")}),
        (ValueError, "at most 86400 s of silence", {"samples": samples, "start": 1e9}),
        (TypeError, "`start` is a number", {"samples": samples, "start": "9"}),
        (TypeError, "`end` is a number", {"end": "9"}),
        (ValueError, "`end=nan`", {"end": float("nan")}),
        (TypeError, "`fps` is a number", {"fps": "2", "frames": frames[:1], "timestamps": [9.0]}),
        # The picture is not taken where the sound is refused.
        (ValueError, "overlaps", {"frames": frames[:1], "timestamps": [9.0], "samples": samples, "start": 1.0}),
    ):
        with pytest.raises(error, match=message):
            session.feed(**arguments)
        assert session.ask("What?", **GREEDY).token_ids == answer.token_ids


# ------------------------------------------------------------------------------------------------------- the clock


@given(
    seconds=st.lists(st.integers(0, 300), unique=True).map(lambda values: sorted(value / 10 for value in values)),
    fps=st.none() | st.sampled_from([0.5, 1.0, 2.0, 7.0]),
    cut=st.integers(0, 300),
)
def test_which_frames_are_used_does_not_depend_on_the_pieces(seconds, fps, cut):
    whole, chosen = Clock().show(seconds, fps)
    first, before = Clock().show(seconds[:cut], fps)
    second, after = first.show(seconds[cut:], fps)
    assert second == whole and before + [index + len(seconds[:cut]) for index in after] == chosen
    assert whole.timestamps == tuple(seconds[index] for index in chosen)
    if fps is None:
        assert whole.timestamps == tuple(seconds)
    else:
        assert all(after - before > 1 / fps - 1e-5 for before, after in pairwise(whole.timestamps))


@given(pieces=st.lists(st.tuples(st.integers(1, 50_000), st.none() | st.integers(-400, 30_000)), max_size=8))
def test_sound_follows_sound(pieces):
    clock = Clock()
    for number, gap in pieces:
        start = None if gap is None else max(0, clock.num_samples + gap) / RATE
        if gap is not None and max(gap, -clock.num_samples) < -320:  # no second is before 0
            with pytest.raises(ValueError, match="overlaps"):
                clock.hear(number, start, RATE)
            continue
        after, silence = clock.hear(number, start, RATE)
        assert after.num_samples == clock.num_samples + silence + number
        assert silence == (gap if gap is not None and gap > 320 else 0)
        assert after.end >= clock.end and after.end == after.num_samples / RATE
        clock = after
