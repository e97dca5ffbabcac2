"""What the handler of Inference Endpoints fetches: nothing that is not public, not too much, and not for too long."""

import socket
import time

import pytest

from transformers_omnivinci import media
from transformers_omnivinci.endpoint import Downloader, RequestError
from transformers_omnivinci.endpoint.fetch import is_public
from transformers_omnivinci.publishing.code import write_code

from .conftest import CLIP
from .endpoint_client import LIMITS, MEDIA, asking, in_base64, serving
from .media_files import image_bytes
from .media_samples import image


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
def ask(repository, public):
    with asking(repository, public) as post:
        yield post


def fetch(url: str, seconds: float = 5.0, downloader: Downloader | None = None) -> bytes:
    return (downloader or Downloader()).fetch(url, 200_000, 3, time.monotonic() + seconds)


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
