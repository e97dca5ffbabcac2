"""Live sources over the network: what breaks off is opened again, playlists are followed, RTSP is received."""

import itertools
import socket
import struct
import threading

import av
import numpy as np
import pytest

from transformers_omnivinci.media import LiveSource

from .live_clips import FPS, Watched, is_whole, leaves_nothing, watch, write_clips
from .live_servers import send_chunks, send_file, sending, served, split
from .media_files import read_numbers


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("live"))


@pytest.fixture(autouse=True)
def nothing_left_behind():
    with leaves_nothing():
        yield


def test_a_stream_that_breaks_off_and_comes_back_goes_on(clips):
    clip, small = (clips / "clip.ts").read_bytes(), (clips / "small.ts").read_bytes()

    def answer(handler, number):
        if number == 0:
            send_chunks(handler, split(clip, 4), is_ended=False)
        elif number == 1:
            handler.send_error(503)
        elif number == 2:
            send_chunks(handler, split(small, 4))
        else:
            handler.send_error(404)

    with served(answer) as address:
        watched = watch(f"{address}/live.ts", reconnects=2, timeout=5.0)
    assert watched.kinds[:2] == ["broken", "connected"] and watched.kinds[-1] == "ended"
    assert "at try 2 of 2" in watched.events[1].message and "404" in watched.events[-1].message
    numbers = read_numbers(watched.frames)
    assert sum(number < 6 for number in numbers) in (2, 3) and len(numbers) in (20, 21, 22)
    assert len(watched.samples) / 16_000 == pytest.approx(watched.timestamps[-1], abs=0.6)


def send_until_closed(handler, content: bytes, headers=()) -> None:
    handler.send_response(200)
    for name, value in (("Content-Type", "video/mp2t"), *headers):
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


def send_and_reset(handler, content: bytes) -> None:
    send_chunks(handler, split(content, 4), is_ended=False)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


ENDS = {
    "chunked": lambda handler, clip: send_chunks(handler, split(clip, 4)),
    "chunked, without the last chunk": lambda handler, clip: send_chunks(handler, split(clip, 4), is_ended=False),
    "closed": send_until_closed,
}
BREAKS = {
    "before its length": lambda handler, clip: send_until_closed(
        handler, clip, [("Content-Length", str(len(clip) + 10_000)), ("Accept-Ranges", "none")]
    ),
    "reset": send_and_reset,
}


@pytest.mark.parametrize("name", [*ENDS, *BREAKS])
def test_a_stream_over_http_ends_in_the_same_way_with_all_versions_of_ffmpeg(name, clips):
    clip = (clips / "clip.ts").read_bytes()

    def answer(handler, number):
        if number:
            handler.send_error(404)
        else:
            {**ENDS, **BREAKS}[name](handler, clip)

    with served(answer) as address:
        if name == "reset":
            with pytest.raises(ConnectionError, match="broke off at .* could not be opened again in 1 tries: .*404"):
                watch(f"{address}/live.ts", timeout=5.0, reconnects=1)
            return
        if name in BREAKS:  # a recording is not opened again
            with pytest.raises(OSError, match="broke off at 3.. s: Input/output error"):
                watch(f"{address}/live.ts", timeout=5.0, reconnects=1)
            return
        watched = watch(f"{address}/live.ts", timeout=5.0, reconnects=1)
    is_whole(watched)
    assert watched.kinds == ["broken", "ended"] and "404" in watched.events[-1].message


def test_a_stream_that_stalls_is_opened_again(clips):
    clip, stalled = (clips / "clip.ts").read_bytes(), threading.Event()

    def answer(handler, number):
        if number == 0:
            send_chunks(handler, split(clip, 4), is_ended=False)
            stalled.wait(20)
        elif number == 1:
            send_chunks(handler, split(clip, 4))
        else:
            handler.send_error(404)

    try:
        with served(answer) as address:
            watched = watch(f"{address}/live.ts", reconnects=1, timeout=0.5, options={"analyzeduration": "500000"})
            stalled.set()
    finally:
        stalled.set()
    assert watched.kinds[:2] == ["stalled", "connected"]
    assert read_numbers(watched.frames)[0] == 0 and watched.timestamps[-1] > 6.2  # as much later as it stalled
    assert sum(number < 6 for number in read_numbers(watched.frames)) in (2, 3)
    assert "silence" in watched.kinds and len(watched.samples) / 16_000 > 6.2


def test_a_stream_that_does_not_come_back_is_an_error_after_all_that_was_read(clips):
    clip, stalled = (clips / "clip.ts").read_bytes(), threading.Event()

    def answer(handler, number):
        if number:
            handler.send_error(404)
            return
        send_chunks(handler, split(clip, 4), is_ended=False)
        stalled.wait(20)

    chunks = []
    with served(answer) as address:
        try:
            with (
                LiveSource(f"{address}/live.ts", timeout=0.5, reconnects=2, backoff=0.01) as source,
                pytest.raises(
                    TimeoutError, match="broke off at 3.. s and could not be opened again in 2 tries: .*404"
                ),
            ):
                chunks.extend(source)
        finally:
            stalled.set()
    assert len(Watched(chunks).frames) in (6, 7)


def test_a_recording_over_http_is_read_to_its_end(clips):
    with served(lambda handler, number: send_file(handler, (clips / "clip.ts").read_bytes())) as address:
        watched = watch(f"{address}/clip.ts", timeout=5.0, buffer_seconds=1.0)
    is_whole(watched)
    assert watched.kinds == ["ended"]


def test_a_playlist_of_hls_is_followed_while_it_grows(clips, tmp_path):
    segments, lengths = split_segments(clips, tmp_path), itertools.count(1)

    def answer(handler, number):
        if handler.path.endswith(".m3u8"):
            send_file(handler, playlist(segments, next(lengths)), "application/vnd.apple.mpegurl")
        else:
            send_file(handler, (tmp_path / handler.path[1:]).read_bytes(), "video/mp2t")

    with served(answer) as address:
        watched = watch(f"{address}/live.m3u8", timeout=10.0, options={"live_start_index": "0"})
    is_whole(watched)
    assert watched.kinds == ["ended"]


def split_segments(clips, folder):
    """The names of three segments of a second each."""
    name = str(folder / "all.m3u8")
    options = {"hls_time": "1", "hls_list_size": "0", "hls_segment_filename": str(folder / "part%d.ts")}
    with av.open(str(clips / "clip.ts")) as reader, av.open(name, "w", format="hls", options=options) as writer:
        streams = {stream: writer.add_stream_from_template(stream) for stream in reader.streams}
        for packet in reader.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                writer.mux(packet)
    return sorted(path.name for path in folder.glob("part*.ts"))


def playlist(segments: list[str], length: int) -> bytes:
    """The playlist when so many segments are there; it ends when all are."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", "#EXT-X-MEDIA-SEQUENCE:0"]
    lines += [line for name in segments[:length] for line in ("#EXTINF:1.0,", name)]
    return "\n".join(lines + ["#EXT-X-ENDLIST"] * (length >= len(segments))).encode()


def test_a_local_playlist_is_read(clips, tmp_path):
    split_segments(clips, tmp_path)
    is_whole(watch(tmp_path / "all.m3u8", timeout=10.0))


def test_rtsp_is_received(clips):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    address = f"rtsp://127.0.0.1:{port}/live"
    with sending(clips / "clip.mkv", address):
        options = {"rtsp_flags": "listen", "listen_timeout": "20"}
        watched = watch(address, options=options, timeout=20.0, reconnects=0)
    # FFmpeg loses the first packet when it listens, so that the first frame is a later key frame.
    numbers = read_numbers(watched.frames)
    assert numbers[0] in (0, 24) and len(numbers) >= 8 and np.diff(numbers) == pytest.approx(6, abs=1)
    assert np.diff(watched.timestamps) == pytest.approx(0.25, abs=0.1)
    for number, second in list(zip(numbers, watched.timestamps))[1:-2:4]:
        assert watched.heard(second + 0.3) == number // FPS
    assert watched.kinds[-1] == "ended"
