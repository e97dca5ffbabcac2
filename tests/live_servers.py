"""Sources that go on while they are read: growing files, servers of HTTP on this machine, senders of RTSP."""

import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# Run in a process of its own: PyAV holds Python's lock while it writes headers, for which the receiver has to answer.
SENDER = """
import sys, time, av
_, path, address = sys.argv
for attempt in range(100):
    with av.open(path) as reader, av.open(address, "w", format="rtsp", options={"rtsp_transport": "tcp"}) as writer:
        streams = {stream: writer.add_stream_from_template(stream) for stream in reader.streams}
        try:
            writer.start_encoding()
        except OSError:  # nobody listens yet
            time.sleep(0.1)
            continue
        for packet in reader.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                writer.mux(packet)
        break
"""


@contextmanager
def growing(path: Path, content: bytes, num_parts: int = 8, pause: float = 0.03):
    """A file to which a thread appends its content part by part."""
    path.write_bytes(b"")

    def grow():
        with open(path, "ab", buffering=0) as file:
            for part in split(content, num_parts):
                time.sleep(pause)
                file.write(part)

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        yield path
    finally:
        thread.join()


def split(content: bytes, num_parts: int) -> list[bytes]:
    """Content in so many parts of about the same length."""
    marks = [len(content) * part // num_parts for part in range(num_parts + 1)]
    return [content[start:stop] for start, stop in zip(marks, marks[1:])]


@contextmanager
def served(answer):
    """The address of a server on this machine that answers requests by `answer(handler, number of the request)`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            with lock:
                number = len(requests)
                requests.append(self.path)
            self.close_connection = True
            with suppress(OSError):  # the client has gone
                answer(self, number)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # `server_close` waits for them: each has closed its connection by then

        def handle_error(self, *_):
            pass

    requests, lock = [], threading.Lock()
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send_chunks(handler, parts, content_type: str = "video/mp2t", is_ended: bool = True) -> None:
    """Answers a request by parts of bytes, chunk by chunk; if not `is_ended`, the end is left out."""
    handler.send_response(200)
    handler.send_header("Content-Type", content_type)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for part in parts:
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        handler.wfile.flush()
    if is_ended:
        handler.wfile.write(b"0\r\n\r\n")


def send_file(handler, content: bytes, content_type: str = "application/octet-stream") -> None:
    """Answers a request by a whole file."""
    handler.send_response(200)
    handler.send_header("Content-Type", content_type)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


@contextmanager
def sending(path: Path, address: str):
    """Sends a file by RTSP to whoever listens at an address."""
    process = subprocess.Popen([sys.executable, "-c", SENDER, str(path), address], stderr=subprocess.PIPE)
    try:
        yield
    finally:
        process.kill()
        process.communicate()
