"""Sources of media: paths, URLs, bytes and file objects, each made available as a file that decoders can open."""

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

# No media file is smaller than this in base64; shorter strings are paths.
_SHORTEST_BASE64 = 64


class Media:
    """
    A file, or an image that is already open, with its name for messages.

    Args:
        path (`str` or `Path`): The file; `None` for an image.
        name (`str`): What messages call it.
        may_refer (`bool`): Whether it may name other files, as playlists do: only if the caller gave its path.
        image (`PIL.Image.Image`, *optional*): The open image.

    Raises:
        ValueError: the file is empty.
    """

    def __init__(self, path: str | Path | None, name: str, may_refer: bool = False, image=None):
        self.name, self.may_refer, self.image = name, may_refer, image
        if image is None:
            # FFmpeg cannot take an absolute path for a protocol.
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
        """Whether this is a still or animated image, which Pillow decodes; everything else is left to FFmpeg."""
        return self._kind == "picture"

    @contextmanager
    def container(self) -> Iterator[av.container.InputContainer]:
        """
        Opens the file with PyAV.

        Raises:
            ValueError: this is an image or text, or FFmpeg cannot read it.
        """
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
            hint = "" if self.may_refer else " Lists of other files or streams are accepted only by path."
            raise ValueError(
                f"{self} is not a media file that FFmpeg can read, or is damaged: {error.strerror}.{hint}"
            ) from error
        with container:
            if container.format.name == "tty":
                raise ValueError(f"{self} is a text file: a media file is accepted.")
            yield container


class Download(bytes):
    """The content of `url`."""

    url: str


def is_url(source) -> bool:
    """Whether a source is an http or https URL."""
    return isinstance(source, str) and _scheme(source) in ("http", "https")


def download(url: str, timeout: float = 30.0) -> Download:
    """
    Downloads an http or https URL.

    Args:
        url (`str`): The URL.
        timeout (`float`, defaults to 30.0): Seconds that the server may keep the download waiting.

    Returns:
        [`Download`]: the content, which is a source in turn.

    Raises:
        ValueError, OSError: the content is empty, or cannot be downloaded.
    """
    with open_source(url, timeout) as media:
        content = Download(Path(media.path).read_bytes())
    content.url = url
    return content


@contextmanager
def open_source(source, timeout: float) -> Iterator[Media]:
    """
    Makes a source, see [`load_video`], available as a file, in a temporary folder if it is not one yet. Several
    decoders can then read it at a time, without waiting for Python.

    Args:
        source: The source.
        timeout (`float`): Seconds that a server may keep a download waiting.

    Raises:
        ValueError, TypeError, OSError: the source is not accepted, empty, or cannot be read.
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
    """The scheme of an http, https or data URL in lower case; like browsers, it ignores blanks around the URL."""
    match = re.match(r"\s*(https?(?=://)|data(?=:))", text, re.IGNORECASE)
    return match and match[1].lower()


def _find_file(path: str) -> str:
    scheme = re.match(r"([A-Za-z][\w+.-]+)://", path)
    if scheme and scheme[1].lower() == "file":
        path = url2pathname(urlparse(path).path)
    elif scheme and not os.path.exists(path):
        raise ValueError(f"The URL {path[:200]!r} is not accepted: http, https, file and data URLs are.")
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path[:200]!r}.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path!r} is a folder: a file is accepted.")
    if not os.path.isfile(path):
        raise OSError(f"{path!r} is not a regular file: media are read from regular files.")
    return path


def _copy(source, path: Path, name: str) -> None:
    """Writes the whole content of a binary file object to a path and restores its position."""
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
        raise TimeoutError(f"{url} cannot be downloaded: the server sent nothing for {timeout:g} s.") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConnectionError(f"{url} cannot be downloaded: {error or type(error).__name__}.") from error


def decode_data_url(url: str) -> bytes:
    """
    Decodes a data URL like browsers: `data:[media type][;parameter...][;base64],content`, in upper or lower case, with
    percent encoding, blanks and line breaks, with or without padding.

    Raises:
        ValueError: there is no comma, or the content is not base64 although the URL says so.
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
    Decodes base64 in the standard or the URL-safe alphabet; blanks and missing padding are ignored.

    Raises:
        ValueError: this is not base64.
    """
    content = b"".join((text.encode() if isinstance(text, str) else text).split())
    content = content.translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)


def decode_plain_base64(text: str) -> bytes | None:
    """Decodes a medium given in plain base64, without a data URL, as transformers accepts it; `None` for others."""
    if len(text) < _SHORTEST_BASE64:
        return None
    try:
        return decode_base64(text)
    except ValueError:
        return None
