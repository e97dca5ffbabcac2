"""Media that are encoded piece by piece while they are read: as if all of them had been read first."""

import copy
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel, AutoProcessor

from transformers_omnivinci import NANO, Session, media
from transformers_omnivinci.media.samples import SampleArray, SampleFile
from transformers_omnivinci.planning import AudioWindows
from transformers_omnivinci.processing.batch import take_media
from transformers_omnivinci.processing.log_mel import extract_log_mel
from transformers_omnivinci.sessions import prefix
from transformers_omnivinci.sessions.prefix import positions_at_once

from .conftest import CLIP
from .media_clips import pick
from .media_files import Sound, read_numbers, write_audio, write_video, zero_media_data
from .media_samples import audio_item, image, image_item, user, video_item

OPTIONS = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
GREEDY = {"max_new_tokens": 6, "do_sample": False}


class Pieces(list):
    """Notes the pieces that it is given, and keeps of each picture a row of it."""

    def __call__(self, pictures):
        self.append(pictures)
        return pictures[:, :, 0].float()


# ------------------------------------------------------------------------------------------------------------ frames


@pytest.mark.usefixtures("no_leftovers")
@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("name", ["plain.mp4", "open_gop.ts", "reordered.avi", "refresh.mkv", "turned.mp4"])
def test_frames_are_converted_piece_by_piece(clip, many_seeks, name, num_threads):
    chosen = [*range(0, 50, 3), 50, 50, 50, 71]
    options = {"sample_indices_fn": pick(chosen), "num_threads": num_threads, "load_audio": True}
    whole, pieces = media.load_video(clip(name), **options), Pieces()
    made = media.load_video(clip(name), convert=pieces, piece_size=4, **options)
    assert torch.equal(made.frames, whole.frames[:, :, 0].float())
    assert made.metadata == whole.metadata
    if name not in ("reordered.avi", "refresh.mkv"):  # of which frames are decoded twice
        assert sorted(map(len, pieces)) == [3, 4, 4, 4, 4] and len(set(chosen)) == 19
        shown = sorted(read_numbers(piece) for piece in pieces)
        assert shown == [chosen[:4], chosen[4:8], chosen[8:12], chosen[12:16], [48, 50, 71]]
    assert (made.waveform is None) == (whole.waveform is None)
    assert whole.waveform is None or np.array_equal(made.waveform[:], whole.waveform)


@pytest.mark.usefixtures("no_leftovers")
def test_frames_that_fail_are_left_out_of_their_pieces(clip):
    content, pieces = zero_media_data(clip("pyramid.mp4").read_bytes(), 0.4, 0.55), Pieces()
    with pytest.warns(UserWarning, match=r"\d+ of 72 frames of <\d+ bytes> cannot be decoded") as whole_told:
        whole = media.load_video(content)
    with pytest.warns(UserWarning, match=r"\d+ of 72 frames of <\d+ bytes> cannot be decoded") as told:
        made = media.load_video(content, convert=pieces, piece_size=8)
    assert str(told[0].message) == str(whole_told[0].message)
    assert made.metadata == whole.metadata and torch.equal(made.frames, whole.frames[:, :, 0].float())
    with pytest.raises(ValueError, match="None of the 72 frames"):
        media.load_video(zero_media_data(clip("plain.mp4").read_bytes()), convert=pieces)


@pytest.mark.usefixtures("no_leftovers")
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_conversion_that_fails_ends_decoding(clip, error):
    calls = []

    def convert(pictures):
        calls.append(len(pictures))
        if len(calls) == 2:
            raise error
        return pictures

    with pytest.raises(error):
        media.load_video(clip("plain.mp4"), load_audio=True, convert=convert, piece_size=4)
    assert calls == [4, 4]
    with pytest.raises(ZeroDivisionError):
        media.load_video(clip("plain.mp4"), transform=lambda frame: 1 / 0, convert=convert)


@pytest.mark.usefixtures("no_leftovers")
def test_decoding_waits_for_a_slow_conversion(clip):
    decoded, most, lock = 0, 0, threading.Lock()

    def transform(frame):
        nonlocal decoded
        with lock:
            decoded += 1
        return frame

    def convert(pictures):
        nonlocal most
        time.sleep(0.02)
        most = max(most, decoded - len(done) * 2)
        done.append(len(pictures))
        return pictures[:, :, 0]

    done = []
    video = media.load_video(clip("plain.mp4"), transform=transform, convert=convert, piece_size=2, num_threads=2)
    # The piece at hand, those that wait, and what the threads hold.
    assert len(video.frames) == 72 and most <= 2 * (1 + 3) + 2 * 2


@pytest.mark.parametrize("given_as", ["folder", "files", "frames"])
def test_frames_of_an_image_each_are_converted_piece_by_piece(processor, tmp_path, given_as):
    for number in range(7):
        image(60, 80 + 10 * (number % 2), seed=number).save(tmp_path / f"{number}.png")
    files, videos, sizes = sorted(tmp_path.iterdir()), processor.video_processor, []
    source = {"folder": str(tmp_path), "files": [files[0], *files], "frames": video_item(num_frames=7)["video"]}[
        given_as
    ]
    options = {} if given_as == "frames" else {"video_metadata": {"fps": 2.0}}
    [whole] = videos.load_videos([source], do_sample_frames=False, **options)
    expected = videos([whole], return_tensors="pt")["pixel_values_videos"]

    def encode(piece):
        sizes.append(len(piece))
        return piece[:, 1]

    [made] = videos.load_videos([source], do_sample_frames=False, encode=encode, piece_size=3, **options)
    assert torch.equal(made.frames, expected[:, 1]) and made.metadata == whole.metadata
    assert sizes == ([3, 3, 2] if given_as == "files" else [3, 3, 1])


# ------------------------------------------------------------------------------------------------------------- sound


@given(
    parts=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), min_size=1, max_size=8),
    length=st.integers(0, 120),
    limit=st.integers(1, 200),
    part=st.tuples(st.integers(0, 130), st.integers(0, 130)),
)
def test_a_file_holds_the_samples_of_an_array(parts, length, limit, part):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media.samples, "_IN_MEMORY", limit)
        array, file = SampleArray(), SampleFile()
    end = 0
    for number, (start, size) in enumerate(parts):
        start = min(start, end)
        end = max(end, start + size)
        for store in (array, file):
            store.write(start, np.linspace(-1.5, 1.5, size, dtype=np.float32) * (number + 1))
    length = min(length, end)
    expected, found = array.finish(length), file.finish(length)
    assert len(found) == len(expected) and np.array_equal(found[:], expected)
    assert np.array_equal(found[part[0] : part[1]], expected[part[0] : part[1]])


@pytest.mark.parametrize("kept", [10, 0], ids=["kept", "made again"])
@pytest.mark.parametrize("num_at_once", [1, 4, None])
def test_log_mel_windows_come_piece_by_piece(processor, monkeypatch, kept, num_at_once):
    monkeypatch.setattr("transformers_omnivinci.processing.log_mel._KEPT_MINUTES", kept)
    extractor, width = processor.feature_extractor, 2 * processor.max_source_positions
    rate, window = extractor.sampling_rate, width * extractor.hop_length
    noise = np.random.default_rng(0).normal(0, 0.01, 95 * rate).astype(np.float32)
    noise[-rate:] *= 60  # the loudest comes last, and raises the floor of all
    num_windows = -(-len(noise) // window)
    windows = AudioWindows(len(noise), num_windows * window, num_windows * width, num_windows, 95.0, 95.0)
    pieces = list(extract_log_mel(extractor, noise, windows, width, num_at_once=num_at_once))
    assert [len(piece) for piece in pieces[:-1]] == [num_at_once] * (len(pieces) - 1)
    found = torch.cat(pieces)
    padded = np.zeros(windows.padded_samples, np.float32)
    padded[: len(noise)] = noise
    whole = extractor(padded, sampling_rate=rate, padding=False, truncation=False, return_tensors="pt")
    whole = whole["input_features"][0][:, : num_windows * width].unflatten(1, (-1, width)).transpose(0, 1)
    assert found.shape == whole.shape
    torch.testing.assert_close(found, whole, atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------------- whole prompts


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """36 s of 2 frames per second, whose sound of 34 s begins late: two windows of the parity checkpoints."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    return str(write_video(path, 72, size=(96, 64), fps=2, sound=Sound(seconds=34.0, start=1.0)))


SETTINGS = {
    "as they are": {},
    "pooled over time": {"video_pool_sizes": [[4, 1, 1]]},
    "two poolings, which divide nothing": {"video_pool_sizes": [[3, 3, 3], [1, 2, 2]]},
    "sound pooled": {"audio_pooling": "max"},
    "sound convolved": {"audio_pooling": "conv"},
}


def small_steps(name, load_checkpoint, settings):
    """Model and processor of a checkpoint with other settings, which encode very little at a time."""
    if name == "nano":
        model, processor = AutoModel.from_pretrained(NANO, dtype=torch.float32), AutoProcessor.from_pretrained(NANO)
    else:
        model, processor = load_checkpoint(name)
    config = copy.deepcopy(model.config)
    for key, value in settings.items():
        setattr(config, key, value)
    config.vision_chunk_size, config.audio_chunk_size = 2, 1
    torch.manual_seed(0)
    made = type(model)(config).to(model.dtype).eval()
    made.load_state_dict(model.state_dict(), strict=False)  # a convolution is new
    processor = copy.deepcopy(processor)
    for key, value in settings.items():
        setattr(processor, key, value)
    return made, processor


COMBINED = [
    ("nano", "as they are"),
    ("nano", "two poolings, which divide nothing"),
    ("nano", "sound convolved"),
    ("published-tiny", "pooled over time"),
    ("published-tiny", "sound pooled"),
    ("published-tiny-maxpool", "as they are"),
    ("published-tiny-short-groups", "two poolings, which divide nothing"),
]
"""Checkpoints with settings. All others were equal, too, and take long together."""


@pytest.mark.compat
@pytest.mark.parametrize(
    ("name", "settings"), [(name, SETTINGS[one]) for name, one in COMBINED], ids=map(str, COMBINED)
)
def test_answers_are_those_of_one_generate_over_all_tensors(load_checkpoint, monkeypatch, film, name, settings):
    model, processor = small_steps(name, load_checkpoint, settings)
    monkeypatch.setattr(prefix, "MASK_SIZE_ON_CPU", 3000)  # several passes over the prompt, too
    video, options = {"type": "video", "path": film}, {"num_frames": 11, "load_audio_from_video": True}
    chat = user(video, "What happens?")
    inputs = processor.apply_chat_template(chat, **OPTIONS, **options)
    whole = model.generate(**inputs, **GREEDY)
    length = inputs["input_ids"].shape[1]
    assert len(inputs["pixel_values_videos"]) == 11 and len(inputs["input_features"]) > 1
    assert positions_at_once(model.device, length) < length
    expected = model.encode_media(**take_media(inputs))
    read = processor.apply_chat_template(chat, **OPTIONS, **options, media_encoder=model)
    assert read["input_ids"].tolist() == inputs["input_ids"].tolist() and not take_media(read)
    found = read["mm_encoder_outputs"]
    assert found.keys() == expected.keys() == {"video", "audio"}
    for modality, output in found.items():
        [embeddings], [wanted] = output.pooler_output, expected[modality].pooler_output
        assert torch.equal(embeddings, wanted)
    assert model.generate(**read, **GREEDY, prefill_chunk_size=16).tolist() == whole.tolist()
    with Session(model, processor) as session:
        session.watch(video, **options)
        assert session.ask("What happens?", **GREEDY).token_ids == whole[0, length:].tolist()


def test_media_of_all_kinds_in_a_batch(load_checkpoint):
    model, processor = small_steps("published-tiny", load_checkpoint, {})
    chats = [
        user(image_item(), video_item(num_frames=5), "What?"),
        user(audio_item(), {"type": "video", "path": CLIP}, video_item(num_frames=3), "Who?"),
        user("When?"),
    ]
    inputs = processor.apply_chat_template(chats, **OPTIONS, return_evidence=True)
    evidence, expected = inputs.pop("evidence"), model.encode_media(**take_media(inputs))
    read = processor.apply_chat_template(chats, **OPTIONS, return_evidence=True, media_encoder=model)
    assert read.pop("evidence") == evidence
    found = read.pop("mm_encoder_outputs")
    assert {name: read[name].tolist() for name in read} == {name: inputs[name].tolist() for name in inputs}
    for modality, output in found.items():
        for embeddings, wanted in zip(output.pooler_output, expected[modality].pooler_output, strict=True):
            torch.testing.assert_close(embeddings, wanted)
    assert "mm_encoder_outputs" not in processor.apply_chat_template(user("Who?"), **OPTIONS, media_encoder=model)


def test_what_cannot_be_read_is_told_as_before(model, processor, film, tmp_path):
    session = Session(model, processor)
    session.watch(audio_item())
    answer = session.ask("What?", **GREEDY)
    silent = write_video(tmp_path / "silent.mp4", 12, size=(64, 48))
    lost = zero_media_data(silent.read_bytes())
    sound = write_audio(tmp_path / "sound.wav", Sound(seconds=1.0, codec="pcm_s16le"))
    for source, options, message in (
        (lost, {}, "None of the 4 frames asked for in <.* bytes> can be decoded: it is damaged."),
        (silent, {"load_audio_from_video": True}, "asks for the sound of a video that has none"),
        (sound, {"kind": "video"}, "has no video stream"),
    ):
        with pytest.raises(ValueError, match=message):
            session.watch(source, num_frames=4, **options)
        assert session.ask("What?", **GREEDY) == answer
    calls = []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    hook = model.model.vision_tower.encoder.register_forward_hook(interrupt)
    chunk_size, model.config.vision_chunk_size = model.config.vision_chunk_size, 2
    try:
        with pytest.raises(KeyboardInterrupt):
            session.watch(film, num_frames=8)
    finally:
        hook.remove()
        model.config.vision_chunk_size = chunk_size
    assert session.ask("What?", **GREEDY) == answer


@given(length=st.integers(0, 10**7), on_cpu=st.booleans())
def test_passes_over_a_prompt_are_bounded(length, on_cpu):
    number = positions_at_once(torch.device("cpu" if on_cpu else "cuda"), length)
    assert 1 <= number <= prefix.CHUNK
    assert number == 1 or number * length <= (prefix.MASK_SIZE_ON_CPU if on_cpu else prefix.MASK_SIZE)
