"""Frames and sound held against independent decoders, and the choice of decoders."""

import ast
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from transformers_omnivinci import media

from .conftest import CLIP
from .media_clips import CLIPS, RATE, pick, to_arrays
from .media_files import Sound, read_numbers, write_audio, zero_media_data

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("no_leftovers")]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CLIPS, CLIP])
def test_frames_are_those_of_opencv(clip, name):
    path = name if name == CLIP else clip(name)
    capture, frames = cv2.VideoCapture(str(path)), to_arrays(media.load_video(path).frames)
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # which OpenCV 4 does not do by itself
    for frame in frames:
        _, expected = capture.read()
        # Only ten bits a channel may be rounded in another way.
        assert np.abs(frame.astype(int) - expected[..., ::-1]).max() <= (name == "deep.mov")
    assert not capture.read()[0]  # OpenCV has no further frame


@pytest.mark.parametrize("suffix, codec", [("wav", "pcm_s16le"), ("flac", "flac")])
def test_samples_of_lossless_files_are_those_of_soundfile(tmp_path, suffix, codec):
    samples = np.random.default_rng(0).uniform(-1, 1, (2, RATE)).astype(np.float32)
    path = write_audio(tmp_path / f"noise.{suffix}", Sound(rate=RATE, codec=codec), samples)
    expected, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE and np.array_equal(media.load_audio(path), expected.mean(axis=1))


@pytest.mark.parametrize("name", ["plain.mp4", "pyramid.mp4", "vp9.webm", "ntsc.mkv", "variable.mkv", "turned.mp4"])
def test_decord_gives_the_same(clip, name):
    pytest.importorskip("decord", reason="decord has no wheels for this platform")
    for options in ({}, {"video_start": 1.0, "video_end": 2.0}):
        ours, theirs = (
            media.load_video(
                clip(name),
                sample_indices_fn=lambda metadata: range(0, metadata.total_num_frames, 5),
                backend=backend,
                load_audio=True,
                **options,
            )
            for backend in ("pyav", "decord")
        )
        assert np.abs(to_arrays(ours.frames).astype(int) - to_arrays(theirs.frames)).max() <= 1
        assert theirs.metadata.video_backend == "decord"
        assert ours.metadata.timestamps == theirs.metadata.timestamps
        if ours.waveform is None:
            assert theirs.waveform is None
        else:
            assert len(ours.waveform) == pytest.approx(len(theirs.waveform), abs=0.05 * RATE)
            heard, expected = ours.waveform[: RATE * 9 // 10], theirs.waveform[: RATE * 9 // 10]
            delays = range(-200, 201)  # in samples: decord neglects what encoders put in front
            errors = [np.abs(np.roll(heard, delay) - expected)[200:-200].mean() for delay in delays]
            assert min(errors) < 0.02  # one sample more makes it 0.035


def test_decord_reads_all_sources_and_tells_what_is_damaged(clip):
    pytest.importorskip("decord", reason="decord has no wheels for this platform")
    content = clip("plain.mp4").read_bytes()
    assert read_numbers(media.load_video(content, backend="decord", sample_indices_fn=pick([9, 9])).frames) == [9, 9]
    assert len(media.load_audio(content, backend="decord")) == pytest.approx(3 * RATE, abs=0.06 * RATE)
    with pytest.raises(ValueError, match="bytes>"):
        media.load_video(zero_media_data(content), backend="decord")
    with pytest.raises(ZeroDivisionError):
        media.load_video(content, backend="decord", transform=lambda frame: 1 / 0)


@pytest.mark.slow  # importing librosa's core takes seconds, and compiles in a new environment
def test_librosa_gives_the_same(clip, tmp_path):
    path = write_audio(tmp_path / "sound.wav", Sound(codec="pcm_s16le"))
    ours, theirs = (media.load_audio(path, backend=backend) for backend in ("pyav", "librosa"))
    assert theirs.dtype == np.float32 and len(theirs) == pytest.approx(len(ours), abs=1)
    assert np.abs(ours[:47_000] - theirs[:47_000]).max() < 0.02
    assert len(media.load_audio(path, backend="librosa", max_seconds=0.5)) == RATE // 2
    with pytest.raises(ValueError, match="librosa cannot decode.*pyav"):
        media.load_video(clip("plain.mp4"), load_audio=True, audio_backend="librosa")


@pytest.mark.parametrize("backend", ["decord", "librosa"])
def test_missing_packages(clip, monkeypatch, backend):
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(ImportError, match=f"pip install .*{backend}"):
        media.load_audio(clip("plain.mp4"), backend=backend)
    with pytest.raises(ImportError, match=f"pip install .*{backend}"):
        media.load_video(clip("plain.mp4"), load_audio=True, audio_backend=backend)


def test_unknown_backends(clip):
    with pytest.raises(ValueError, match="'opencv'.*'pyav', 'decord' are"):
        media.load_video(clip("plain.mp4"), backend="opencv")
    for read in (media.load_audio, lambda path, backend: media.load_video(path, audio_backend=backend)):
        with pytest.raises(ValueError, match="'sox'.*'pyav', 'decord', 'librosa' are"):
            read(clip("plain.mp4"), backend="sox")


def test_backends_are_imported_only_when_chosen():
    nodes = [
        node for path in Path(media.__file__).parent.glob("*.py") for node in ast.walk(ast.parse(path.read_text()))
    ]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    optional = {"decord", "librosa", "soundfile", "torchaudio", "torchcodec", "torchvision", "cv2"}
    assert not optional & {name.partition(".")[0] for name in imported}
