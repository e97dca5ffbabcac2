"""Where media come from: paths, URLs, bytes and file objects, each as a file that decoders open by themselves."""

import base64
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlparse
from urllib.request import url2pathname

import av
import PIL.Image

from ..compat import http_library
from .kinds import SELF_CONTAINED, find_demuxer, identify

httpx = http_library()

# No file of a medium is smaller; what is shorter is a path.
_SHORTEST_BASE64 = 64


class Media:
    """
    A file that is read, or an image that has been opened, and what messages call it.

    Only a file that the caller has named by its path may name others in turn, as playlists do.
    """

    def __init__(self, path: str | Path | None, name: str, may_refer: bool = False, image=None):
        self.name, self.may_refer, self.image = name, may_refer, image
        if image is None:
            # An absolute path cannot be mistaken for one of FFmpeg's protocols.
            self.path = os.path.abspath(path)
            if not os.path.getsize(path):
                raise ValueError(f"{name} is empty.")

    def __str__(self) -> str:
        return self.name

    @cached_property
    def _kind(self) -> str:
        return "picture" if self.image is not None else identify(self.path)

    @property
    def is_image(self) -> bool:
        """Whether it is a picture, still or animated, which Pillow decodes; else it is left to FFmpeg."""
        return self._kind == "picture"

    @contextmanager
    def container(self) -> Iterator[av.container.InputContainer]:
        if self.image is not None:
            raise ValueError(f"{self} is an image: a media file is accepted.")
        options = {} if self.may_refer else SELF_CONTAINED
        demuxer = "mjpeg" if self._kind == "mjpeg" else None
        try:
            container = av.open(self.path, format=demuxer, metadata_errors="replace", container_options=options)
            if container.format.name == "image2":
                container.close()
                demuxer = find_demuxer(self.path)
                container = av.open(self.path, format=demuxer, metadata_errors="replace", container_options=options)
        except av.FFmpegError as error:
            hint = "" if self.may_refer else " Lists of other files or streams are read from a path alone."
            raise ValueError(
                f"{self} is not a media file that FFmpeg reads, or is damaged: {error.strerror}.{hint}"
            ) from error
        with container:
            if container.format.name == "tty":
                raise ValueError(f"{self} is a text file: a media file is accepted.")
            yield container


class Download(bytes):
    """What has been downloaded from `url`."""

    url: str


def is_url(source) -> bool:
    """Whether a source is to be downloaded."""
    return isinstance(source, str) and _scheme(source) in ("http", "https")


def download(url: str, timeout: float = 30.0) -> Download:
    """The content of an http or https URL, as a source."""
    with open_source(url, timeout) as media:
        content = Download(Path(media.path).read_bytes())
    content.url = url
    return content


@contextmanager
def open_source(source, timeout: float) -> Iterator[Media]:
    """
    A source as a file, in a temporary folder if it is none.

    Decoders then read it by themselves, several at a time, without waiting for Python.
    """
    if isinstance(source, PIL.Image.Image):
        name = getattr(source, "filename", "") or f"of {source.width} x {source.height} pixels"
        yield Media(None, f"<image {name}>", image=source)
        return
    text = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    scheme = None if text is None else _scheme(text)
    encoded = None
    if text is not None and scheme not in ("http", "https", "data"):
        encoded = None if os.path.lexists(text) else decode_plain_base64(text)
        if encoded is None:
            path = _find_file(text)
            yield Media(path, repr(path), may_refer=True)
            return
    with tempfile.TemporaryDirectory(prefix="omnivinci-") as folder:
        path = Path(folder, "media")
        if encoded is not None:
            name = f"<base64 {text.strip()[:20]}...>"
            path.write_bytes(encoded)
        elif scheme == "data":
            note = "" if re.search(r";\s*base64\s*,", text, re.IGNORECASE) else ", not in base64"
            name = f"<{text.strip()[:40]}...{note}>"
            path.write_bytes(decode_data_url(text))
        elif text is not None:
            name = text.strip()
            _download(name, path, timeout)
        elif isinstance(source, (bytes, bytearray, memoryview)):
            name = getattr(source, "url", f"<{memoryview(source).nbytes} bytes>")
            path.write_bytes(source)
        elif hasattr(source, "read"):
            name = f"<file {getattr(source, 'name', type(source).__name__)}>"
            _copy(source, path, name)
        else:
            raise TypeError(
                f"Media cannot be read from `{type(source).__name__}`: a path, URL, bytes or binary file is accepted."
            )
        yield Media(path, name)


def _scheme(text: str) -> str | None:
    """That of a URL, in lower case: browsers strip what is blank around it."""
    match = re.match(r"\s*(https?(?=://)|data(?=:))", text, re.IGNORECASE)
    return match and match[1].lower()


def _find_file(path: str) -> str:
    scheme = re.match(r"([A-Za-z][\w+.-]+)://", path)
    if scheme and scheme[1].lower() == "file":
        path = url2pathname(urlparse(path).path)
    elif scheme and not os.path.exists(path):
        raise ValueError(f"The URL {path[:200]!r} is not read: http, https, file and data URLs are accepted.")
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path[:200]!r}.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path!r} is a folder: a file is accepted.")
    if not os.path.isfile(path):
        raise OSError(f"{path!r} is not a regular file, which is what media are read from.")
    return path


def _copy(source, path: Path, name: str) -> None:
    """Writes all of a binary file object to a path; its position stays where it is."""
    if not isinstance(source.read(0), bytes):
        raise TypeError(f"{name} is opened as text: a file opened in binary mode is accepted.")
    position = source.tell() if hasattr(source, "seekable") and source.seekable() else None
    if position is not None:
        source.seek(0)
    with open(path, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    if position is not None:
        source.seek(position)


def _download(url: str, path: Path, timeout: float) -> None:
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=timeout) as response, open(path, "wb") as file:
            response.raise_for_status()
            for chunk in response.iter_bytes(1 << 20):
                file.write(chunk)
    except httpx.HTTPStatusError as error:
        status = f"{error.response.status_code} {error.response.reason_phrase}"
        raise OSError(f"{url} cannot be downloaded: the server answers {status}.") from error
    except httpx.TimeoutException as error:
        raise TimeoutError(f"{url} cannot be downloaded: the server keeps silent for {timeout:g} s.") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConnectionError(f"{url} cannot be downloaded: {error or type(error).__name__}.") from error


def decode_data_url(url: str) -> bytes:
    """
    The content of a data URL as browsers read it: `data:[media type][;parameter...][;base64],content`, in any case,
    with per cent signs, blanks and line breaks, and with padding or without.

    Raises:
        ValueError: it has no comma, or its content is not what it says.
    """
    header, comma, payload = url.strip().partition(",")
    if not comma:
        raise ValueError(f"The URL {header[:60]!r} is not accepted: `data:<media type>;base64,<content>` is.")
    content = unquote_to_bytes(payload)
    if header.rpartition(";")[2].strip().lower() != "base64":
        return content
    try:
        return decode_base64(content)
    except ValueError as error:
        raise ValueError(f"The content of the URL {header[:60]!r} is not base64: {error}.") from error


def decode_base64(text: str | bytes) -> bytes:
    """
    The bytes that base64 stands for, of either alphabet, blanks and missing padding aside.

    Raises:
        ValueError: it is not base64.
    """
    content = b"".join((text.encode() if isinstance(text, str) else text).split())
    content = content.translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)


def decode_plain_base64(text: str) -> bytes | None:
    """A medium in base64 without a URL around it, as transformers takes it; `None`: it is none."""
    if len(text) < _SHORTEST_BASE64:
        return None
    try:
        return decode_base64(text)
    except ValueError:
        return None
