"""
Sources of media: paths, URLs, bytes and file objects, each made available as a file that decoders can open. Content,
never a name, tells whether it is an image for Pillow or something for FFmpeg.
"""

import base64
import io
import mmap
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote_to_bytes, urlparse
from urllib.request import url2pathname

import av
import PIL.Image
import PIL.ImageFile

from ..compat import http_library
from .pyav import OPEN_OPTIONS

httpx = http_library()

# Demuxers that open files or URLs named in the content, which must not happen with content from elsewhere.
_REFERRING = {
    *("avisynth", "concat", "dash", "dvdvideo", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp"),
    *("vapoursynth", "vobsub"),
}
# Options that keep FFmpeg from opening any other file.
SELF_CONTAINED = {"format_whitelist": ",".join(av.formats_available - _REFERRING)}

# Formats with unmistakable first bytes. For any other, FFmpeg is asked whether the file is a video.
_CERTAIN = {"AVIF", "GIF", "HEIF", "JPEG", "JPEG2000", "JXL", "MPO", "PNG", "PSD", "TIFF", "WEBP"}
# Formats whose frames are shown one after another. In others, they are layers, sizes, views or previews.
_ANIMATED = {"AVIF", "FLI", "GIF", "PNG", "TIFF", "WEBP"}
# FFmpeg's demuxers of images.
_PICTURE_DEMUXERS = {"apng", "gif", "ico", "image2"}
# How a JPEG begins and ends, and how many bytes there may be between one's end and the next one's beginning.
_START_OF_JPEG, _END_OF_JPEG, _PADDING = b"\xff\xd8\xff", b"\xff\xd9", 64


class Media:
    """
    A file, or an image that is already open, with its name for messages. `may_refer`: whether it may name other files,
    as playlists do: only if the caller gave its path. An empty file is a ValueError.
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
        """Opens the file with PyAV; a ValueError if this is an image or text, or FFmpeg cannot read it."""
        if self.image is not None:
            raise ValueError(f"{self} is an image: a media file is accepted.")
        options = {} if self.may_refer else SELF_CONTAINED
        options = {**OPEN_OPTIONS, "container_options": options}
        try:
            container = av.open(self.path, format="mjpeg" if self._kind == "mjpeg" else None, **options)
            if container.format.name == "image2":
                container.close()
                container = av.open(self.path, format=_find_demuxer(self.path), **options)
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
    Downloads the content of an http or https URL, which is a source in turn. The server may keep it waiting for
    `timeout` seconds.

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
    Makes a source, see [`load_video`] for its kinds and errors, available as a file, in a temporary folder if it is
    not one yet. Several decoders can then read it at a time, without waiting for Python.
    """
    if isinstance(source, PIL.Image.Image):
        name = getattr(source, "filename", "") or f"of {source.width} x {source.height} pixels"
        yield Media(None, f"<image {name}>", image=source)
        return
    text = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    scheme = None if text is None else _scheme(text)
    encoded = None
    if text is not None and scheme not in ("http", "https", "data"):
        encoded = None if os.path.lexists(text) else _decode_plain_base64(text)
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
            path.write_bytes(_decode_data_url(text))
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


def _decode_data_url(url: str) -> bytes:
    """
    Decodes a data URL like browsers: `data:[media type][;parameter...][;base64],content`, in upper or lower case, with
    percent encoding, blanks and line breaks, with or without padding.
    """
    header, comma, payload = url.strip().partition(",")
    if not comma:
        raise ValueError(f"The URL {header[:60]!r} is not accepted: `data:<media type>;base64,<content>` is.")
    content = unquote_to_bytes(payload)
    if header.rpartition(";")[2].strip().lower() != "base64":
        return content
    try:
        return _decode_base64(content)
    except ValueError as error:
        raise ValueError(f"The content of the URL {header[:60]!r} is not base64: {error}.") from error


def _decode_base64(text: bytes) -> bytes:
    """Decodes base64 in the standard or the URL-safe alphabet; blanks and missing padding are ignored."""
    content = b"".join(text.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)


def _decode_plain_base64(text: str) -> bytes | None:
    """Decodes a medium given in plain base64, without a data URL, as transformers accepts it; `None` for others."""
    if len(text) < 64:  # no media file is smaller; shorter strings are paths
        return None
    try:
        return _decode_base64(text.encode())
    except ValueError:
        return None


@contextmanager
def open_picture(file, any_format: bool = False):
    """Opens an image with Pillow; `any_format`: EPS too, which is a program that Ghostscript executes."""
    PIL.Image.init()
    formats = None if any_format else [name for name in PIL.Image.ID if name != "EPS"]
    with PIL.Image.open(file, formats=formats) as image:
        yield image


def identify(path: str | Path) -> str:
    """`"picture"`, still or animated; `"mjpeg"`, a video of JPEGs; or `"other"`, which FFmpeg may be able to read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow repeats its warnings when the image is loaded
            with open_picture(path) as image:
                format, has_views = image.format, "mp" in image.info
                if format == "MPEG" or isinstance(image, PIL.ImageFile.StubImageFile):
                    return "other"  # Pillow knows the format, but cannot read it
    except PIL.Image.DecompressionBombError:
        return "picture"
    except Exception:  # damaged files make Pillow raise exceptions of any kind
        return "other"
    if format == "JPEG" and not has_views and _is_mjpeg(path):
        return "mjpeg"
    if format in _CERTAIN:
        return "picture"
    try:
        return "picture" if is_of_pictures(_find_demuxer(path)) else "other"
    except av.FFmpegError:
        return "picture"


def is_self_contained(path: str | Path) -> bool:
    """Whether a file names no others that are opened with it, as playlists do."""
    if identify(path) == "picture":
        return True
    try:
        return bool(_find_demuxer(path))
    except (av.FFmpegError, OSError):
        return False


def is_animated(image: PIL.Image.Image) -> bool:
    """Whether an opened image has several frames that are shown one after another."""
    return image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1 + bool(image.info.get("default_image"))


def _is_mjpeg(path: str | Path) -> bool:
    """Whether a JPEG is followed by another one of the same size. A smaller one is a preview of a photo."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = content.find(_END_OF_JPEG)
        while end >= 0 and _START_OF_JPEG not in content[end : end + _PADDING]:
            end = content.find(_END_OF_JPEG, end + 1)
        if end < 0:
            return False
    sizes = []
    try:
        with av.open(str(path), format="mjpeg") as container:
            for packet in container.demux(video=0):
                with PIL.Image.open(io.BytesIO(bytes(packet)), formats=["JPEG"]) as image:
                    sizes.append(image.size)
                if len(sizes) == 2:
                    break
    except Exception:  # what cannot be read here is left to the decoder that says why
        pass
    return len(sizes) == 2 and sizes[0] == sizes[1]


def _find_demuxer(path: str | Path) -> str:
    """FFmpeg's demuxer for the content of a file. Given a path, FFmpeg would believe the suffixes of images."""
    with open(path, "rb") as file:
        nameless = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)
        with av.open(nameless, container_options=SELF_CONTAINED) as container:
            return container.format.name.partition(",")[0]


def is_of_pictures(demuxer: str) -> bool:
    """Whether a demuxer of FFmpeg, given by name, reads images rather than videos."""
    return demuxer in _PICTURE_DEMUXERS or demuxer.endswith("_pipe")
