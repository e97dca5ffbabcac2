"""The handler of Inference Endpoints in a process, as its clients ask it, and servers of the media that they name."""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from .conftest import CLIP
from .media_files import image_bytes, wav_bytes
from .media_samples import image, sound

LIMITS = {
    "max_media": 3,
    "max_media_bytes": 200_000,
    "max_total_bytes": 320_000,
    "max_media_seconds": 15,
    "max_pixels": 200_000,
    "max_frames": 8,
    "max_text_characters": 1000,
    "max_new_tokens": 16,
    "max_sequences": 3,
    "max_download_seconds": 1,
}


def wav(seconds: float = 1.0, rate: int = 16_000) -> bytes:
    return wav_bytes(sound(seconds)[:: 16_000 // rate], rate)


MEDIA = {"video": Path(CLIP).read_bytes(), "image": image_bytes(image()), "audio": wav()}


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def data_url(content: bytes) -> str:
    return f"data:application/octet-stream;base64,{in_base64(content)}"


class MediaServer(BaseHTTPRequestHandler):
    """Serves media, and everything that a server may do wrong."""

    def do_GET(self):
        self.server.paths.append(self.path)
        name, _, argument = self.path[1:].partition("?")
        getattr(self, f"serve_{name}", self.serve_medium)(name, argument)

    def start(self, status: int = 200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def serve_medium(self, name, argument):
        if name not in MEDIA:
            return self.send_error(404)
        self.start(Content_Length=str(len(MEDIA[name])))
        self.wfile.write(MEDIA[name])

    def serve_redirect(self, name, argument):
        self.start(302, Location=argument)

    def serve_loop(self, name, argument):
        self.start(301, Location="/loop")

    def serve_text(self, name, argument):
        self.start()
        self.wfile.write(b"This is no picture at all.")

    def serve_announced(self, name, argument):
        self.start(Content_Length=str(10**12))

    def serve_short(self, name, argument):
        self.start(Content_Length=str(len(MEDIA["image"]) + 1))
        self.wfile.write(MEDIA["image"])

    def serve_long(self, name, argument):
        self.start(Content_Length=str(len(MEDIA["image"])))
        self.wfile.write(MEDIA["image"] + b"more than announced")

    def serve_gzip(self, name, argument):
        self.start(Content_Encoding="gzip")

    def serve_endless(self, name, argument):
        self.start()
        self.write_on(bytes(1 << 16), 0)

    def serve_trickle(self, name, argument):
        self.start()
        self.write_on(b"x", 0.05)

    def serve_headers(self, name, argument):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        self.write_on(b"x", 0.05)

    def write_on(self, chunk: bytes, seconds: float):
        try:
            while True:
                self.wfile.write(chunk)
                time.sleep(seconds)
        except OSError:
            self.close_connection = True

    def log_message(self, *args):
        pass


@contextmanager
def serving():
    """A server of media; `paths` has what was asked of it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), MediaServer) as server:
        server.daemon_threads, server.paths = True, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def asking(repository, public):
    """Starts an endpoint; gives what posts a body to it and returns the status and the answer."""
    root = Path(__file__).parents[1]
    environment = os.environ | {f"OMNIVINCI_{name.upper()}": str(value) for name, value in LIMITS.items()}
    environment |= {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1", "http_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, str(root / "tests" / "endpoint_server.py"), str(repository), str(public.server_port)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        port = int(process.stdout.readline())

        def post(body):
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            try:
                with urlopen(Request(f"http://127.0.0.1:{port}/", content)) as response:
                    return response.status, json.load(response)
            except HTTPError as error:
                return error.code, json.load(error)["error"]

        yield post
        process.terminate()


def user(*content) -> list[dict]:
    return [{"role": "user", "content": list(content)}]


def text_item(text: str) -> dict:
    return {"type": "text", "text": text}
