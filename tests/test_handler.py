"""The handler of Inference Endpoints, asked over HTTP: what it answers, and what it refuses to do."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import wave
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import numpy as np
import PIL.Image
import pytest
from openai.types.chat import ChatCompletion
from transformers import pipeline

from transformers_omnivinci import media
from transformers_omnivinci.endpoint import Downloader, EndpointHandler, Limits, RequestError
from transformers_omnivinci.endpoint.fetch import decode_base64, is_public
from transformers_omnivinci.publishing.code import write_code

from .conftest import CLIP
from .media_files import image_bytes, write_animation
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
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes((sound(seconds) * 32767).astype(np.int16)[:: 16_000 // rate].tobytes())
    return file.getvalue()


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
    with ThreadingHTTPServer(("127.0.0.1", 0), MediaServer) as server:
        server.daemon_threads, server.paths = True, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def public():
    """A server that the handler takes for one of the public internet."""
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def private():
    """A server of the private network, which no request must reach."""
    with serving() as server:
        yield server
        assert not server.paths


@pytest.fixture(scope="module")
def repository(load_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    for part in load_checkpoint():
        part.save_pretrained(folder)
    write_code(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(repository):
    return pipeline("video-text-to-text", model=repository)


@pytest.fixture(scope="module")
def ask(repository, public):
    """Posts a body to the endpoint and returns the status and the answer."""
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


def fetch(url: str, seconds: float = 5.0, downloader: Downloader | None = None) -> bytes:
    return (downloader or Downloader()).fetch(url, 200_000, 3, time.monotonic() + seconds)


# Answers


@pytest.mark.slow
@pytest.mark.compat
def test_a_text_is_answered_as_by_the_pipeline(ask, pipe):
    expected = pipe(text="Who are you?", max_new_tokens=12, return_full_text=False)[0]["generated_text"]
    body = {"inputs": "Who are you?", "parameters": {"max_new_tokens": 12, "temperature": None}}
    assert ask(body) == (200, [{"generated_text": expected}])


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize("source", ["base64", "data URL", "URL", "redirect"])
@pytest.mark.parametrize("modality", MEDIA)
def test_a_sample_is_answered_as_by_the_pipeline(modality, source, ask, pipe, public):
    item = {"type": modality, modality: MEDIA[modality]}
    expected = pipe(user(item, text_item("What?")), max_new_tokens=8, num_frames=4, return_full_text=False)
    value = {
        "base64": in_base64(MEDIA[modality]),
        "data URL": data_url(MEDIA[modality]),
        "URL": f"{public.url}/{modality}",
        "redirect": f"{public.url}/redirect?/{modality}",
    }[source]
    body = {"inputs": {modality: value, "text": "What?"}, "parameters": {"max_new_tokens": 8, "num_frames": 4}}
    assert ask(body) == (200, [{"generated_text": expected[0]["generated_text"]}])


def test_base64_is_read_as_browsers_do():
    text = in_base64(bytes(range(250)) + b"\xff\xfe\xfd")
    lines = "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    for given in (
        *(text, lines, text.rstrip("="), text.replace("+", "-").replace("/", "_")),
        *("data:a/b;name=c.png;base64," + text, "DATA:A/B;BASE64," + text, " data:;base64," + lines + "\n"),
        "data:a/b;base64," + quote(text, safe=""),
    ):
        assert decode_base64(given, 300) == bytes(range(250)) + b"\xff\xfe\xfd"


@pytest.mark.slow
@pytest.mark.compat
def test_a_chat_of_the_hub_is_answered_as_by_the_pipeline(ask, pipe):
    sources = {"image": {"url": data_url(MEDIA["image"])}, "video": {"video": in_base64(MEDIA["video"])}}
    parameters = {"max_new_tokens": 8, "fps": 0.5, "video_end": 6, "load_audio_from_video": False}

    def chat(of):
        return [
            {"role": "system", "content": "Be brief."},
            *user(of("image"), of("video"), text_item("Compare.")),
            {"role": "assistant", "content": "They"},
        ]

    expected = pipe(chat(lambda kind: {"type": kind, kind: MEDIA[kind]}), return_full_text=False, **parameters)
    body = {"inputs": chat(lambda kind: {"type": kind, **sources[kind]}), "parameters": parameters}
    assert ask(body) == (200, [{"generated_text": expected[0]["generated_text"]}])


@pytest.mark.slow
@pytest.mark.compat
def test_several_images_and_beams_are_answered_as_by_the_pipeline(ask, pipe):
    items = [{"type": "image", "image": MEDIA["image"]}] * 2
    parameters = {"max_new_tokens": 6, "num_beams": 3, "num_return_sequences": 2}
    expected = pipe(user(*items, text_item("Same?")), return_full_text=False, **parameters)
    body = {"inputs": {"image": [in_base64(MEDIA["image"])] * 2, "text": "Same?"}, "parameters": parameters}
    assert ask(body) == (200, [{"generated_text": answer["generated_text"]} for answer in expected])


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize("is_wrapped", [False, True], ids=["body", "inputs"])
def test_a_chat_of_openai_is_completed_as_by_the_pipeline(is_wrapped, ask, pipe, public):
    items = [{"type": kind, kind: MEDIA[kind]} for kind in ("image", "video", "audio")]
    options = {"load_audio_from_video": True, "num_frames": 4}
    chat = user(*items, text_item("Compare."))
    expected = pipe(chat, max_new_tokens=8, return_full_text=False, **options)[0]["generated_text"]
    request = {
        "model": "nvidia/omnivinci",
        "messages": [
            *user(
                {"type": "image_url", "image_url": {"url": data_url(MEDIA["image"]), "detail": "auto"}},
                {"type": "video_url", "video_url": {"url": f"{public.url}/video"}},
                {"type": "input_audio", "input_audio": {"data": in_base64(MEDIA["audio"]), "format": "wav"}},
                text_item("Compare."),
            )
        ],
        "max_completion_tokens": 8,
        "stream": False,
        **options,
    }
    status, answer = ask({"inputs": request} if is_wrapped else request)
    assert status == 200, answer
    completion = ChatCompletion.model_validate(answer)
    assert completion.object == "chat.completion" and completion.model == "nvidia/omnivinci"
    assert completion.choices[0].message.role == "assistant"
    assert completion.choices[0].message.content == expected
    assert completion.choices[0].finish_reason == "length"
    length = pipe.processor.count_tokens(chat, **options)
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (length, 8, length + 8)


@pytest.mark.slow
@pytest.mark.compat
def test_sampling_depends_on_the_seed_alone(ask):
    def choices(seed):
        messages = [{"role": "user", "content": "Tell."}]
        body = {"messages": messages, "max_tokens": 8, "temperature": 1.5, "top_p": 0.9, "n": 3, "seed": seed}
        return [choice["message"]["content"] for choice in ask(body)[1]["choices"]]

    first = choices(1)
    assert choices(1) == first and len(set(first)) > 1
    assert choices(2) != first


@pytest.mark.slow
@pytest.mark.compat
def test_a_stop_sequence_ends_an_answer(ask):
    messages = [{"role": "user", "content": "Who are you?"}]
    full = ask({"messages": messages, "max_tokens": 12})[1]["choices"][0]["message"]["content"]
    stop = full[5:7]
    answer = ask({"messages": messages, "max_tokens": 12, "stop": stop})[1]
    assert answer["choices"][0]["message"]["content"] == full[: full.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert 0 < answer["usage"]["completion_tokens"] < 12
    [answer] = ask({"inputs": "Who are you?", "parameters": {"max_new_tokens": 12, "stop": [stop]}})[1]
    assert (
        stop in answer["generated_text"]
        and full.startswith(answer["generated_text"])
        and len(answer["generated_text"]) < len(full)
    )


@pytest.mark.slow
@pytest.mark.compat
def test_control_tokens_of_a_request_are_plain_text(ask):
    def length(text):
        return ask({"messages": [{"role": "user", "content": text}], "max_tokens": 1})[1]["usage"]["prompt_tokens"]

    # As plain text a control token is spelled by several tokens.
    assert length("a <|im_end|> b") > length("a b") + 2
    assert length("a <image> b") > length("a b") + 1


# What is refused


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 400, ""),
        (["a"], 400, "JSON object"),
        ({}, 400, "neither `inputs` nor `messages`"),
        ({"parameters": {}}, 400, "neither `inputs` nor `messages`"),
        ({"inputs": 3}, 400, "`inputs` is a text"),
        ({"inputs": []}, 400, "at least one message"),
        ({"inputs": ["a", "b"]}, 400, "message"),
        ({"inputs": {"image": "aaaa"}}, 400, 'no "text"'),
        ({"inputs": {"text": 3}}, 400, "string"),
        ({"inputs": {"text": "a", "picture": "b"}}, 422, "picture"),
        ({"inputs": "a", "parameters": [1]}, 400, "`parameters` is an object"),
        ({"inputs": "a", "options": {}}, 422, "options"),
        ({"inputs": "a", "parameters": {"tempratur": 1}}, 422, "'tempratur'"),
        ({"inputs": "a", "parameters": {"trust_remote_code": True}}, 422, "'trust_remote_code'"),
        ({"inputs": "a", "parameters": {"max_new_tokens": 17}}, 422, "from 1 to 16"),
        ({"inputs": "a", "parameters": {"max_new_tokens": "8"}}, 422, "`max_new_tokens` is an integer"),
        ({"inputs": "a", "parameters": {"max_new_tokens": True}}, 422, "`max_new_tokens` is an integer"),
        (b'{"inputs": "a", "parameters": {"temperature": NaN}}', 422, "`temperature` is a number"),
        ({"inputs": "a", "parameters": {"num_frames": 9}}, 422, "from 1 to 8"),
        ({"inputs": "a", "parameters": {"num_frames": 2, "fps": 1}}, 422, "not by both"),
        ({"inputs": "a", "parameters": {"do_sample": 1}}, 422, "true or false"),
        ({"inputs": "a", "parameters": {"do_sample": False, "top_p": 0.5}}, 422, "no effect"),
        ({"inputs": "a", "parameters": {"do_sample": True, "temperature": 0}}, 422, "contradict"),
        ({"inputs": "a", "parameters": {"num_return_sequences": 2}}, 422, "num_return_sequences"),
        ({"inputs": "a", "parameters": {"stop": []}}, 422, "list of strings"),
        ({"inputs": "a", "parameters": {"return_full_text": True}}, 422, "return_full_text"),
        ({"inputs": "a" * 1001}, 413, "1000 characters"),
        ({"messages": "a"}, 400, "at least one message"),
        ({"messages": [{"role": "tool", "content": "a"}]}, 400, "'tool'"),
        ({"messages": [{"role": "user"}]}, 400, "content of a message"),
        ({"messages": [{"role": "user", "content": "a", "tool_calls": [1]}]}, 422, "tool_calls"),
        ({"messages": user("a")}, 400, "type of a content item"),
        ({"messages": user({"type": "file", "file": "a"})}, 400, "'file'"),
        ({"messages": user({"type": "video", "path": CLIP})}, 422, "path"),
        ({"messages": user({"type": "image", "url": "aaaa", "image": "aaaa"})}, 400, "one entry"),
        ({"messages": user({"type": "image_url", "image_url": {"url": "aaaa", "detail": "low"}})}, 422, "detail"),
        ({"messages": user(text_item("a")), "stream": True}, 422, "`stream` can be False alone"),
        ({"messages": user(text_item("a")), "tools": [{}]}, 422, "'tools'"),
        ({"messages": user(text_item("a")), "max_tokens": 2, "max_completion_tokens": 2}, 422, "twice"),
        ({"messages": user(text_item("a")), "model": 1}, 400, "`model` is a string"),
    ],
)
def test_a_wrong_request_is_refused(body, status, reason, ask):
    answer = ask(body)
    assert answer[0] == status and reason in answer[1], answer


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize(
    ("modality", "source", "status", "reason"),
    [
        ("image", 3, 400, "a URL or base64"),
        ("image", "not base64!", 400, "paths are not accepted"),
        ("image", "data:image/png,abc", 400, "is not accepted"),
        ("image", "data:image/png;base64,####", 400, "neither"),
        ("image", "data:image/png;base64,", 400, "empty"),
        ("video", CLIP, 400, "paths are not accepted"),
        ("image", f"file://{CLIP}", 400, "is not fetched"),
        ("image", "ftp://example.com/a.png", 400, "is not fetched"),
        ("image", "C:\\image.png", 400, "is not fetched"),
        ("image", in_base64(b"This is text, and no image."), 415, "not an image"),
        ("image", in_base64(MEDIA["audio"]), 415, "not an image"),
        ("video", in_base64(MEDIA["audio"]), 415, "no video stream"),
        ("audio", in_base64(b"This is text, and no sound."), 415, "FFmpeg"),
        ("video", in_base64(MEDIA["image"]), 415, "an image"),
        ("image", in_base64(bytes(200_001)), 413, "200000 bytes"),
        ("image", in_base64(image_bytes(PIL.Image.new("L", (1000, 400)))), 413, "400000 pixels"),
        ("audio", in_base64(wav(16.0, 4000)), 413, "last 16.0 s"),
        ("video", [in_base64(MEDIA["video"])] * 2, 413, "s are accepted in all"),
        ("image", [in_base64(MEDIA["image"])] * 4, 413, "More than 3 media"),
        ("image", [in_base64(image_bytes(image(150, 200), "BMP"))] * 3 + ["aaaa"], 413, "More than 3 media"),
        ("image", [in_base64(image_bytes(image(200, 300), "BMP"))] * 2, 413, "bytes"),
    ],
)
def test_a_wrong_medium_is_refused(modality, source, status, reason, ask):
    answer = ask({"inputs": {modality: source, "text": "a"}})
    assert answer[0] == status and reason in answer[1], answer


@pytest.mark.slow
def test_an_animation_is_no_video(ask, tmp_path):
    content = write_animation(tmp_path / "animation.gif", [100] * 3).read_bytes()
    status, error = ask({"inputs": {"video": in_base64(content), "text": "a"}})
    assert status == 415 and "still or animated" in error


@pytest.mark.slow
def test_a_part_of_a_long_video_counts_as_the_part(ask):
    body = {"inputs": {"video": [in_base64(MEDIA["video"])] * 2, "text": "a"}, "parameters": {"max_new_tokens": 1}}
    body["parameters"] |= {"video_start": 1, "video_end": 3, "num_frames": 2}
    assert ask(body)[0] == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("missing", 502, "answers 404"),
        ("loop", 502, "more than 3 redirects"),
        ("redirect?file:///etc/hostname", 400, "is not fetched"),
        ("redirect?http://169.254.169.254/latest/meta-data", 400, "public internet"),
        ("text", 415, "not an image"),
        ("announced", 413, "200000 bytes"),
        ("endless", 413, "200000 bytes"),
        ("short", 502, "ends after"),
        ("gzip", 502, "content encoding"),
        ("trickle", 504, "within the time"),
        ("headers", 504, "within the time"),
    ],
)
def test_what_a_server_does_wrong_is_told(path, status, reason, ask, public):
    start = time.monotonic()
    answer = ask({"inputs": {"image": f"{public.url}/{path}", "text": "a"}})
    assert answer[0] == status and reason in answer[1], answer
    assert time.monotonic() - start < LIMITS["max_download_seconds"] + 10


@pytest.mark.slow
def test_content_ends_where_the_server_has_announced(ask, public):
    body = {"inputs": {"image": f"{public.url}/long", "text": "a"}, "parameters": {"max_new_tokens": 1}}
    assert ask(body)[0] == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0.0.0.0", "[::1]"]
    + ["[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "user:password@127.0.0.1"],
)
def test_no_request_reaches_a_private_server(host, ask, public, private):
    url = f"http://{host}:{private.server_port}/image"
    for source in (url, f"{public.url}/redirect?{url}"):
        status, error = ask({"inputs": {"image": source, "text": "a"}})
        assert status == 400 and ("public internet" in error or "password" in error), error
    assert not private.paths


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        *((address, True) for address in ("1.1.1.1", "8.8.8.8", "2606:4700:4700::1111")),
        *((address, False) for address in ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.100.100.200")),
        *((address, False) for address in ("169.254.169.254", "0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1")),
        *((address, False) for address in ("168.63.129.16", "192.0.0.192", "::", "::1", "fe80::1%eth0")),
        *((address, False) for address in ("fd00:ec2::254", "fec0::1", "ff02::1", "::ffff:10.0.0.1", "::10.0.0.1")),
        *((address, False) for address in ("64:ff9b::10.0.0.1", "64:ff9b:1::a00:1", "2002:a00:1::", "2001:0:a00:1::")),
    ],
)
def test_which_addresses_are_public(address, expected):
    assert is_public(address) is expected


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["169.254.169.254"], ["1.1.1.1", "10.0.0.1"], ["fd00::1"]])
def test_a_name_that_resolves_to_a_private_address_is_refused(addresses, monkeypatch):
    def resolve(host, port, **kwargs):
        assert host == "media.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    def refuse(*args):
        raise AssertionError("connects")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(RequestError, match="400 Bad Request.*public internet"):
        fetch("http://media.example/image")


def test_a_name_is_resolved_once(monkeypatch, public):
    """What is checked is what is connected to, though the name may lead elsewhere a moment later."""
    resolved = []

    def resolve(host, port, **kwargs):
        resolved.append(host)
        address = "127.0.0.1" if len(resolved) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    class Permissive(Downloader):
        def allows(self, address, port):
            asked.append(address)
            return address == "127.0.0.1"

    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = f"http://media.example:{public.server_port}/image"
    assert fetch(url, downloader=Permissive()) == MEDIA["image"]
    assert resolved == ["media.example"] and asked == ["127.0.0.1"] * 2
    with pytest.raises(RequestError, match="public internet"):
        fetch(url, downloader=Permissive())


def test_the_address_of_the_connected_socket_is_checked(public):
    class Changing(Downloader):
        answers = [True, False]

        def allows(self, address, port):
            return self.answers.pop(0)

    with pytest.raises(RequestError, match="public internet"):
        fetch(f"{public.url}/image", downloader=Changing())


@pytest.mark.parametrize("url", ["http://1.1.1.1:22/", "https://1.1.1.1:8443/"])
def test_other_ports_than_those_of_the_web_are_refused(url):
    with pytest.raises(RequestError, match="on the ports 80 and 443"):
        fetch(url)


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a:b/", "http://a b/", "http://" + "a" * 300])
def test_what_is_no_url_is_refused(url, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [])
    with pytest.raises(RequestError):
        fetch(url)


def test_tls_does_not_outlast_the_deadline(public):
    """The server never answers the handshake."""

    class Permissive(Downloader):
        def allows(self, address, port):
            return True

    with socket.create_server(("127.0.0.1", 0)) as server:
        start = time.monotonic()
        with pytest.raises(RequestError, match="504 Gateway Timeout"):
            fetch(f"https://127.0.0.1:{server.getsockname()[1]}/", seconds=0.3, downloader=Permissive())
        assert time.monotonic() - start < 10


# Limits


def test_limits_come_from_the_environment():
    assert Limits.from_environment({}) == Limits()
    limits = Limits.from_environment({"OMNIVINCI_MAX_MEDIA": "2", "OMNIVINCI_MAX_DOWNLOAD_SECONDS": "1.5"})
    assert limits == Limits(max_media=2, max_download_seconds=1.5)


@pytest.mark.parametrize("value", ["many", "-1", "1.5", ""])
def test_a_wrong_limit_is_refused(value):
    with pytest.raises(ValueError, match="(?i)max_media"):
        Limits.from_environment({"OMNIVINCI_MAX_MEDIA": value})


def test_usual_frames_and_tokens_stay_within_the_limits(repository, pipe):
    handler = EndpointHandler(str(repository), Limits(max_frames=2, max_new_tokens=3))
    body = {"inputs": {"video": in_base64(MEDIA["video"]), "text": "What?"}}
    expected = pipe({"video": MEDIA["video"], "text": "What?"}, num_frames=2, max_new_tokens=3, return_full_text=False)
    assert handler(body) == [{"generated_text": expected[0]["generated_text"]}]


def test_a_prompt_that_is_longer_than_the_context_is_refused(repository):
    handler = EndpointHandler(str(repository))
    handler.pipeline.tokenizer.model_max_length = 40
    with pytest.raises(RequestError, match="422.*has room for 30"):
        handler({"inputs": "one two three " * 10, "parameters": {"max_new_tokens": 10}})


# Content that names other files


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile '{name}'\n",
    "concat of itself": "ffconcat version 1.0\nfile media\n",
    "concat URL": "ffconcat version 1.0\nfile '{url}'\n",
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{path}\n#EXT-X-ENDLIST\n",
    "HLS URL": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_in_a_request_opens_nothing(name, ask, private):
    playlist = PLAYLISTS[name].format(name="secret.wav", path=CLIP, url=f"{private.url}/video").encode()
    for modality in ("video", "audio"):
        status, error = ask({"inputs": {modality: in_base64(playlist), "text": "a"}})
        assert status == 415, error
    assert not private.paths


def test_a_playlist_opens_files_beside_it_only_where_it_is_a_file_of_the_caller(monkeypatch, tmp_path):
    (tmp_path / "secret.wav").write_bytes(MEDIA["audio"])
    playlist = tmp_path / "media"
    playlist.write_text(PLAYLISTS["concat"].format(name="secret.wav"))
    assert media.probe_audio(playlist) == pytest.approx(1.0)

    class SameFolder:
        """The folder of temporary files, in which the file that is named happens to lie."""

        def __init__(self, **kwargs):
            pass

        def __enter__(self):
            return str(tmp_path)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(media.sources.tempfile, "TemporaryDirectory", SameFolder)
    with pytest.raises(ValueError, match="Lists of other files"):
        media.probe_audio(playlist.read_bytes())


def test_an_eps_program_is_read_from_a_path_only(tmp_path):
    content = image_bytes(image(), "EPS")
    (tmp_path / "image.eps").write_bytes(content)
    assert media.probe_image(tmp_path / "image.eps") == (90, 160)
    with pytest.raises(ValueError, match="not an image"):
        media.probe_image(content)
