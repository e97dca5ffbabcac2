"""Where media come from: paths, URLs, bytes and file objects, each as a file that decoders open by themselves."""

import base64
import binascii
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import av
from huggingface_hub.utils import httpx

# What image files begin with, still or animated; anything else given as a video is left to FFmpeg.
_IMAGE_SIGNATURE = re.compile(
    rb"GIF8|\x89PNG|\xff\xd8\xff|BM....\0\0\0\0|II\*\0|MM\0\*|RIFF....WEBP|....ftypavi[fs]", re.DOTALL
)
# Demuxers that open other files or URLs than the one they are given, which content from elsewhere must not name.
_REFERRING_FORMATS = {
    *("avisynth", "concat", "dash", "dvdvideo", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp"),
    *("vapoursynth", "vobsub"),
}


class Media:
    """
    A file that is read, and what messages call it.

    Only a file that the caller has named by its path may name others in turn, as playlists do.
    """

    def __init__(self, path: str | Path, name: str, may_refer: bool = False):
        # An absolute path cannot be mistaken for one of FFmpeg's protocols.
        self.path, self.name, self.may_refer = os.path.abspath(path), name, may_refer
        with open(path, "rb") as file:
            head = file.read(32)
        if not head:
            raise ValueError(f"{name} is empty.")
        self.is_image = _IMAGE_SIGNATURE.match(head) is not None

    def __str__(self) -> str:
        return self.name

    @contextmanager
    def container(self) -> Iterator[av.container.InputContainer]:
        options = {} if self.may_refer else {"format_whitelist": ",".join(av.formats_available - _REFERRING_FORMATS)}
        try:
            container = av.open(self.path, metadata_errors="replace", container_options=options)
        except av.FFmpegError as error:
            hint = "" if self.may_refer else " Lists of other files or streams are read from a path alone."
            raise ValueError(
                f"{self} is not a media file that FFmpeg reads, or is damaged: {error.strerror}.{hint}"
            ) from error
        with container:
            if container.format.name == "tty":
                raise ValueError(f"{self} is a text file: a media file is accepted.")
            yield container


@contextmanager
def open_source(source, timeout: float) -> Iterator[Media]:
    """
    A source as a file, in a temporary folder if it is none.

    Decoders then read it by themselves, several at a time, without waiting for Python.
    """
    text = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    if text is not None and not text.startswith(("http://", "https://", "data:")):
        path = _find_file(text)
        yield Media(path, repr(path), may_refer=True)
        return
    with tempfile.TemporaryDirectory(prefix="omnivinci-") as folder:
        path = Path(folder, "media")
        if text is not None and text.startswith("data:"):
            name = f"<{text[:40]}...>"
            path.write_bytes(_decode_data_url(text))
        elif text is not None:
            name = text
            _download(text, path, timeout)
        elif isinstance(source, (bytes, bytearray, memoryview)):
            name = f"<{len(source)} bytes>"
            path.write_bytes(source)
        elif hasattr(source, "read"):
            name = f"<file {getattr(source, 'name', type(source).__name__)}>"
            _copy(source, path, name)
        else:
            raise TypeError(
                f"Media cannot be read from `{type(source).__name__}`: a path, URL, bytes or binary file is accepted."
            )
        yield Media(path, name)


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


def _decode_data_url(url: str) -> bytes:
    header, _, payload = url.partition(",")
    if not header.endswith(";base64"):
        raise ValueError(f"The URL {header[:60]!r} is not accepted: `data:<media type>;base64,<content>` is.")
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise ValueError(f"The content of the URL {header[:60]!r} is not base64: {error}.") from error
