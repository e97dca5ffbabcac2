"""A server of speech on this machine, which a test tells what to say."""

import io
import json
import wave
from http.server import BaseHTTPRequestHandler

import numpy as np

from .chat_server import LocalServer


def tone(seconds: float = 0.5, rate: int = 22_050) -> bytes:
    """A WAV of a tone."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, rate, 0, "NONE", ""))
        samples = 10_000 * np.sin(np.arange(round(seconds * rate)) / 8)
        writer.writeframes(samples.astype(np.int16).tobytes())
    return file.getvalue()


class SpeechServer(LocalServer):
    """
    Speaks tones of 50 ms a word at `/v1/audio/speech`, and writes `heard` at `/v1/audio/transcriptions`. The sentence
    number `breaks_at` is cut off in the middle, or refused with the status `refuses`. `asked` has what was asked.
    """

    def __init__(self, heard="a dog barks", breaks_at=None, refuses=None):
        self.asked: list = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                content = self.rfile.read(int(self.headers["Content-Length"]))
                status, body = 200, b""
                if self.path == "/v1/audio/speech":
                    told = json.loads(content)
                    server.asked.append(told)
                    body = tone(0.05 * len(told["input"].split()))
                else:
                    server.asked.append(content)
                    body = json.dumps(heard if isinstance(heard, dict) else {"text": heard}).encode()
                is_broken = len(server.asked) == breaks_at
                if is_broken and refuses:
                    status, body = refuses, b'{"error": {"message": "out of breath"}}'
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if is_broken and not refuses else body)
                self.close_connection = is_broken

            def log_message(self, *args):
                pass

        super().__init__(Handler)
