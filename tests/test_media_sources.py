"""Paths, URLs, bytes and file objects as sources, and sources that are none."""

import base64
import http.server
import io
import os
import threading
import time

import av
import PIL.Image
import pytest

from transformers_omnivinci import media

from .media_clips import RATE, pick, seconds_heard
from .media_files import Sound, image_bytes, read_number, read_numbers, render_frame, render_sound, write_audio

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("no_leftovers")]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Serves a folder on this computer; `/slow` says nothing, `/broken` hangs up midway, `/moved` points elsewhere."""
    folder = tmp_path_factory.mktemp("served")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def do_GET(self):
            if self.path == "/slow":
                time.sleep(1)
            elif self.path == "/broken":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"x" * 10)
            elif self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/clip.mp4")
                self.end_headers()
            else:
                super().do_GET()

        def log_message(self, *args):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *args):
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Pipe(io.RawIOBase):
    """A binary file that can only be read from start to end."""

    def __init__(self, content):
        self.content = io.BytesIO(content)

    def read(self, size=-1):
        return self.content.read(size)


@pytest.mark.parametrize(
    "kind", ["str", "path", "file url", "bytes", "file", "BytesIO", "pipe", "data", "http", "moved"]
)
def test_sources(clip, server, kind):
    path = clip("plain.mp4")
    content = path.read_bytes()
    folder, address = server
    (folder / "clip.mp4").write_bytes(content)
    file = open(path, "rb")  # noqa: SIM115
    file.seek(5)
    source = {
        "str": str(path),
        "path": path,
        "file url": path.as_uri(),
        "bytes": content,
        "file": file,
        "BytesIO": io.BytesIO(content),
        "pipe": Pipe(content),
        "data": "data:video/mp4;base64," + base64.b64encode(content).decode(),
        "http": address + "/clip.mp4",
        "moved": address + "/moved",
    }[kind]
    video = media.load_video(source, sample_indices_fn=pick([10, 70]), load_audio=True, timeout=10)
    assert read_numbers(video.frames) == [10, 70]
    assert seconds_heard(video.waveform, [1.3]) == [1]
    assert not file.closed and file.tell() == 5
    file.close()


def test_other_media_by_url(server):
    folder, address = server
    (folder / "image.png").write_bytes(image_bytes(PIL.Image.fromarray(render_frame(77))))
    write_audio(folder / "sound.wav", Sound(seconds=1.0, codec="pcm_s16le"))
    assert read_number(media.load_image(address + "/image.png")) == 77
    assert len(media.load_audio(address + "/sound.wav")) == RATE
    assert media.probe_audio(address + "/sound.wav") == 1


@pytest.mark.parametrize(
    "path, timeout, error, words",
    [
        ("/nothing.mp4", 10, OSError, "404"),
        ("/slow", 0.2, TimeoutError, "0.2 s"),
        ("/broken", 10, ConnectionError, "cannot be downloaded"),
    ],
)
def test_failing_downloads(server, path, timeout, error, words):
    for read in (media.load_video, media.load_audio, media.load_image):
        with pytest.raises(error, match=words):
            read(server[1] + path, timeout=timeout)


def test_unreachable_server():
    with pytest.raises(ConnectionError, match="cannot be downloaded"):
        media.load_video("http://127.0.0.1:9/clip.mp4", timeout=5)
    with pytest.raises(ConnectionError, match="cannot be downloaded"):
        media.load_video("http://", timeout=5)


@pytest.mark.parametrize(
    "source, error, words",
    [
        ("nowhere.mp4", FileNotFoundError, "nowhere.mp4"),
        ("", FileNotFoundError, "no file"),
        ("ftp://example.org/clip.mp4", ValueError, "http"),
        ("data:video/mp4,abc", ValueError, "base64"),
        ("data:video/mp4;base64,a?", ValueError, "not base64"),
        (b"", ValueError, "empty"),
        (b"hello " * 100, ValueError, "600 bytes"),
        (io.StringIO("hello"), TypeError, "binary"),
        (None, TypeError, "NoneType"),
        (7, TypeError, "int"),
        (os.curdir, IsADirectoryError, "folder"),
        (os.devnull, OSError, "regular"),
    ],
)
def test_sources_that_are_none(source, error, words):
    for read in (media.load_video, media.probe_video, media.load_audio, media.probe_audio, media.load_image):
        with pytest.raises(error, match=words):
            read(source)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.txt"])
def test_text_is_no_video(tmp_path, name):
    path = tmp_path / name
    path.write_text("Once upon a time there was no video.\n" * 100)
    for read in (media.load_video, media.load_audio, media.load_image):
        with pytest.raises(ValueError, match=name):
            read(path)


def test_missing_streams(clip, tmp_path):
    sound = write_audio(tmp_path / "sound.m4a", Sound(seconds=1.0))
    for read in (media.load_video, media.probe_video):
        with pytest.raises(ValueError, match="no video stream.*audio"):
            read(sound)
    for read in (media.load_audio, media.probe_audio):
        with pytest.raises(ValueError, match="no audio stream.*video"):
            read(clip("pyramid.mp4"))


def test_cover_of_a_song_is_no_video(tmp_path):
    with av.open(str(tmp_path / "song.mp3"), "w") as container:
        audio = container.add_stream("libmp3lame", rate=44_100)
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic.value
        sound = av.AudioFrame.from_ndarray(render_sound(1, 44_100, 2), format="fltp", layout="stereo")
        sound.sample_rate = 44_100
        container.mux(cover.encode(av.VideoFrame.from_ndarray(render_frame(1, 32, 32), format="rgb24")))
        container.mux([*audio.encode(sound), *audio.encode()])
    with pytest.raises(ValueError, match="no video stream"):
        media.load_video(tmp_path / "song.mp3")
    assert len(media.load_audio(tmp_path / "song.mp3")) == pytest.approx(RATE, abs=0.06 * RATE)
