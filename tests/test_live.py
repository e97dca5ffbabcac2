"""Live sources give all frames and sound in order, tell what happens to them, and leave nothing behind."""

import gc
import io
import itertools
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
from transformers.utils import logging

from transformers_omnivinci.media import EVENTS, LiveSource
from transformers_omnivinci.media.live import buffer as live_buffer

from .live_clips import CONTAINERS, FPS, LATE, SECONDS, Watched, is_whole, leaves_nothing, watch, write_clips
from .live_servers import growing, send_chunks, served, split
from .media_files import Sound, read_numbers, read_second, render_frame, write_video


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("live"))


@pytest.fixture(autouse=True)
def nothing_left_behind():
    with leaves_nothing():
        yield


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_file_is_followed_while_it_grows(name, clips, tmp_path):
    with growing(tmp_path / name, (clips / name).read_bytes()) as path:
        watched = watch(path, timeout=1.0)
    is_whole(watched)
    assert watched.kinds == ["ended"] and "has not grown for 1 s" in watched.events[0].message


def test_chunks_come_before_the_file_is_complete(clips, tmp_path):
    content = (clips / "clip.ts").read_bytes()
    (tmp_path / "clip.ts").write_bytes(content[: len(content) * 2 // 3])
    with LiveSource(tmp_path / "clip.ts", timeout=20.0) as source:
        chunk = next(iter(source))
        assert chunk.end == 1.0 and read_numbers(chunk.frames) == [0, 12]


def test_a_file_whose_index_comes_last_is_read_when_it_is_complete(clips):
    is_whole(watch(clips / "late_index.mp4"))


@pytest.mark.parametrize("seconds", [0.25, 0.7, 1.0, 5.0])
def test_chunks_of_any_length_hold_the_same(seconds, clips):
    is_whole(watch(clips / "clip.ts", chunk_seconds=seconds))


def test_files_wait_for_whoever_takes_their_chunks(clips):
    with LiveSource(clips / "clip.ts", fps=24, chunk_seconds=0.25, buffer_seconds=0.5, timeout=0.3) as source:
        chunks = []
        for chunk in source:
            time.sleep(0.02)
            chunks.append(chunk)
    assert read_numbers(Watched(chunks).frames) == list(range(72)) and len(chunks) > 3


def test_frames_that_are_not_taken_in_time_are_thinned_and_sound_is_kept(clips):
    options = {"fps": 24, "buffer_seconds": 1.0, "when_full": "thin", "timeout": 0.3}
    with LiveSource(clips / "clip.ts", **options) as source:
        source._thread.join()
        watched = Watched(source)
    numbers = read_numbers(watched.frames)
    assert numbers[-1] == 71 and 12 <= len(numbers) <= 24
    gaps = np.diff(numbers)
    assert gaps[0] >= 2 * gaps[-1] and (np.diff(gaps) <= 0).all()  # what waited longest is thinnest
    assert len(watched.samples) / 16_000 >= 3.0
    (thinned,) = [event for event in watched.events if event.kind == "thinned"]
    assert thinned.message.startswith(f"{72 - len(numbers)} frames from")


def test_the_memory_of_sound_that_nobody_takes_is_bounded(clips, monkeypatch):
    monkeypatch.setattr(live_buffer, "_MAX_SOUND", 1.0)
    with LiveSource(clips / "clip.ts", when_full="thin", timeout=0.3) as source:
        source._thread.join()
        watched = Watched(source)
    assert len(watched.samples) == 16_000 and watched.starts[0] == pytest.approx(2.0, abs=LATE)
    assert "sound_dropped" in watched.kinds
    assert read_second(watched.samples[8000:13000]) == 2


def test_a_clock_that_jumps_and_another_size_are_told_and_joined(clips, tmp_path):
    path = tmp_path / "joined.ts"
    path.write_bytes((clips / "clip.ts").read_bytes() + (clips / "small.ts").read_bytes())
    watched = watch(path)
    assert {"jumped", "resized"} < set(watched.kinds) and watched.kinds[-1] == "ended"
    assert {frame.shape for frame in watched.frames} == {(96, 128, 3)}
    numbers = read_numbers(watched.frames)
    border = next(place for place, number in enumerate(numbers) if place and number < numbers[place - 1])
    assert border == 12 and numbers[border] < 6 and len(numbers) in (20, 21)
    assert 5 <= len(watched.samples) / 16_000 < 5.2 and 4.75 <= watched.timestamps[-1] < 5.2
    assert [watched.heard(second) for second in (0.35, 1.35, 2.35, 3.45, 4.45)] == [0, 1, 2, 0, 1]
    resized = next(event for event in watched.events if event.kind == "resized")
    assert "from 128 x 96 to 64 x 48 pixels" in resized.message and 2.9 < resized.second < 3.3


def test_missing_sound_is_filled_with_silence(clips, tmp_path):
    loud, silent = np.full((1, 44_100), 0.5, np.float32), []
    sound = Sound(seconds=1.0, start=1.5, layout="mono", samples=loud)
    watched = watch(write_video(tmp_path / "late.mkv", FPS * SECONDS, sound=sound))
    assert watched.starts[0] == 0.0 and watched.kinds == ["silence", "ended"]
    silent = np.abs(watched.samples) < 0.05
    assert silent[: round(1.4 * 16_000)].all() and not silent[round(1.7 * 16_000) : round(2.3 * 16_000)].any()


def test_a_source_without_sound_has_no_samples(clips):
    watched = watch(clips / "silent.ts")
    assert watched.samples is None and len(watched.frames) in (12, 13)


def test_frames_are_turned_upright(tmp_path):
    watched = watch(write_video(tmp_path / "turned.mkv", 24, turn=90))
    assert watched.frames[0].shape == (96, 128, 3) and read_numbers(watched.frames) == [0, 6, 12, 18]


def test_a_pipe_is_read_until_it_is_closed(clips):
    program = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"
    command = [sys.executable, "-c", program, str(clips / "clip.mkv")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        is_whole(watch(process.stdout, timeout=20.0))


def test_the_standard_input_is_a_pipe(clips, monkeypatch):
    with open(clips / "clip.ts", "rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        is_whole(watch("-"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_named_pipe_is_read(clips, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    thread = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes((clips / "clip.ts").read_bytes()))
    source = LiveSource(tmp_path / "pipe", fps=4)
    thread.start()
    is_whole(Watched(source))
    thread.join()


def test_a_pipe_that_stalls_is_waited_for(clips):
    parts = split((clips / "clip.ts").read_bytes(), 4)
    reading, writing = os.pipe()
    stalled = threading.Event()

    def write():
        with open(writing, "wb", buffering=0) as file:
            for part in parts[:3]:
                file.write(part)
            stalled.wait(20)
            file.write(parts[3])

    thread = threading.Thread(target=write)
    thread.start()
    with open(reading, "rb") as file:
        watched = watch(file, reconnects=60, on_event=lambda event: stalled.set())
    thread.join()
    is_whole(watched)
    assert watched.kinds == ["stalled", "connected", "ended"]


def test_a_pipe_that_stalls_for_good_is_given_up(clips):
    reading, writing = os.pipe()
    os.write(writing, (clips / "small.ts").read_bytes()[:40_000])
    with open(reading, "rb") as file, pytest.raises(TimeoutError, match="has stalled: nothing came for 0.[6-9] s"):
        watch(file, reconnects=1)
    os.close(writing)


def test_a_device_is_read_by_the_name_of_its_format():
    with LiveSource("testsrc=size=64x48:rate=25", format="lavfi", fps=5, buffer_seconds=4.0) as source:
        chunks = list(itertools.islice(source, 2))
    assert source.size == (48, 64) and source.has_sound is False
    assert Watched(chunks).frames[0].shape == (48, 64, 3)


def test_closing_ends_a_source_that_waits_for_its_file(clips):
    source = LiveSource(clips / "clip.ts", timeout=60.0).open()
    next(iter(source))
    source.close()
    assert source._thread is not None and not source._thread.is_alive()
    with pytest.raises(ValueError, match="is closed"):
        source.open()


def test_decoded_frames_are_freed_at_once(clips):
    gc.collect()
    gc.disable()
    try:
        watch(clips / "clip.ts")
        assert sum(type(one) is av.VideoFrame for one in gc.get_objects()) == 0
    finally:
        gc.enable()


def test_another_loop_goes_on_where_one_was_left(clips):
    with LiveSource(clips / "clip.ts", fps=4, timeout=0.3) as source:
        chunks = [next(iter(source)), *source]
    is_whole(Watched(chunks))


def test_a_file_that_is_cut_short_is_an_error_after_what_was_read(clips, tmp_path):
    path, chunks = tmp_path / "clip.ts", []
    path.write_bytes((clips / "clip.ts").read_bytes())
    with (
        LiveSource(path, timeout=20.0) as source,
        pytest.raises(OSError, match="clip.ts' was cut short while it was read.$"),
    ):
        for chunk in source:
            chunks.append(chunk)
            path.write_bytes(b"")
    assert read_numbers(Watched(chunks).frames)[:4] == [0, 12, 24, 36]


def test_leaving_a_loop_early_ends_reading(clips):
    for _ in LiveSource(clips / "clip.ts", timeout=60.0):
        break


def test_events_are_called_and_logged(clips, tmp_path, caplog):
    path, told = tmp_path / "joined.ts", []
    path.write_bytes((clips / "clip.ts").read_bytes() + (clips / "small.ts").read_bytes())
    logger = logging.get_logger("transformers_omnivinci.media.live.source")
    logger.addHandler(caplog.handler)
    try:
        watched = watch(path, on_event=told.append)
    finally:
        logger.removeHandler(caplog.handler)
    assert told == watched.events and str(told[0]) == told[0].message
    assert {event.message for event in told if event.kind != "ended"} <= {record.message for record in caplog.records}


def raises(kind, match, source, **options):
    with pytest.raises(kind, match=match) as caught:
        watch(source, **options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_sources_that_cannot_be_opened_say_why(clips, tmp_path):
    raises(FileNotFoundError, "There is no file", tmp_path / "none.ts")
    raises(IsADirectoryError, "is a folder", tmp_path)
    raises(ConnectionRefusedError, "cannot be opened: Connection refused", "http://127.0.0.1:9/live.ts")
    raises(ConnectionRefusedError, "cannot be opened: Connection refused", "rtsp://127.0.0.1:9/live")
    raises(ValueError, "The address 'gopher://x' is not accepted", "gopher://x")
    raises(TypeError, "cannot be `int`", 7)
    raises(TypeError, "opened as text", io.StringIO("x"))
    raises(ValueError, "no container format 'none'", "x", format="none")
    raises(OSError, "The camera '/dev/video97'.* cannot be opened: ", "camera:97")
    with served(lambda handler, number: handler.send_error(404)) as address:
        raises(OSError, "404", f"{address}/none.ts")


def test_what_is_no_video_says_so(clips, tmp_path):
    (tmp_path / "text.txt").write_text("plain text\n" * 1000)
    (tmp_path / "noise.ts").write_bytes(np.random.default_rng(0).bytes(100_000))
    (tmp_path / "empty.ts").write_bytes(b"")
    (tmp_path / "header.mp4").write_bytes((clips / "clip.mp4").read_bytes()[:900])
    PIL.Image.fromarray(render_frame(1)).save(tmp_path / "image.png")
    for name in ("noise.ts", "empty.ts"):
        raises(ValueError, "is not a media stream that FFmpeg can read", tmp_path / name)
    raises(ValueError, "(is text|is not a media stream)", tmp_path / "text.txt")
    raises(ValueError, "is an image", tmp_path / "image.png")
    raises(ValueError, "(gives no frame|is not a media)", tmp_path / "header.mp4")


def test_a_source_that_never_gives_a_frame_is_given_up(clips):
    silent = threading.Event()

    def answer(handler, number):
        send_chunks(handler, [], is_ended=False)
        silent.wait(20)

    try:
        with served(answer) as address:
            raises(TimeoutError, "nothing came for 0.3 s", f"{address}/live.ts")
            silent.set()
    finally:
        silent.set()
    reading, writing = os.pipe()
    with open(reading, "rb") as file:
        raises(TimeoutError, "nothing came for", file, reconnects=0)
    os.close(writing)


@pytest.mark.parametrize(
    "options",
    [
        {"fps": 0},
        {"fps": float("nan")},
        {"timeout": True},
        {"chunk_seconds": 2.0, "buffer_seconds": 1.0},
        {"when_full": "drop"},
        {"reconnects": -1},
        {"backoff": -1.0},
    ],
)
def test_arguments_that_are_not_accepted_are_refused(options, clips):
    with pytest.raises(ValueError, match="(is|are) not accepted|is less than"):
        LiveSource(clips / "clip.ts", **options)


def test_a_recording_that_is_damaged_tells_so(clips, tmp_path):
    content = bytearray((clips / "clip.ts").read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(len(content) // 3, len(content) * 2 // 3, 300):
        content[place] ^= 0xFF
    (tmp_path / "damaged.ts").write_bytes(content)
    watched = watch(tmp_path / "damaged.ts")
    assert len(watched.frames) >= 6 and watched.kinds[-1] == "ended"


def test_the_page_on_live_sources_names_all_events():
    page = (Path(__file__).parent.parent / "docs" / "live.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(EVENTS)
