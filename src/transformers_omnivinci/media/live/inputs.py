"""Cameras, streams, pipes and files that still grow, each opened as a container of PyAV."""

import errno
import os
import re
import select
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from glob import glob

import av

from ..pyav import OPEN_OPTIONS
from ..sources import SELF_CONTAINED, is_of_pictures

# Seconds between two looks at a file or a pipe of which nothing new has come.
_POLL = 0.02
# How FFmpeg calls the cameras of a system: the format, and the address of a camera by its name.
_CAMERAS = {"linux": ("v4l2", "{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
_SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp")
# Formats that refer to other addresses, which are opened over the network alone, and the seconds before their end that
# they may give again when they are opened again.
_PLAYLISTS = {"hls": 120.0, "dash": 120.0}
_FROM_NETWORK = ",".join([SELF_CONTAINED["format_whitelist"], *_PLAYLISTS, "rtsp", "rtp"])
# Microseconds of a stream that FFmpeg reads to find its tracks: of broadcasts, it would read 5 s before anything else.
_PROBING = {"analyzeduration": "2000000"}
# Errors of the system that stay what they are, with a sentence that names the source.
_KEPT = (FileNotFoundError, PermissionError, ConnectionRefusedError, ConnectionResetError, TimeoutError)


class Closed(Exception):
    """The source was closed while something was awaited from it."""


@dataclass
class Watch:
    """
    What inputs tell and are told while they wait.

    Args:
        timeout (`float`): Seconds without data after which a stream has stalled and a file is complete.
        patience (`float`): Seconds without data after which a pipe is given up.
        is_closed (`Callable`): Whether nothing more is wanted.
        tell (`Callable`): Takes the kind of an event and its sentence.
    """

    timeout: float
    patience: float
    is_closed: Callable[[], bool]
    tell: Callable[[str, str], None]

    def pause(self) -> None:
        """Waits for a moment; raises [`Closed`] if nothing more is wanted."""
        if self.is_closed():
            raise Closed
        time.sleep(_POLL)


class LiveInput:
    """A stream that FFmpeg reads by its address, which it opens anew if it breaks off."""

    is_live = True  # whether time passes for the source while nothing is read from it
    can_reopen = True
    end_reason = ""  # what tells that it has ended

    def __init__(self, name: str, address: str, watch: Watch, format: str | None = None, options: dict | None = None):
        self.name, self.address, self.watch, self.format, self.options = name, address, watch, format, options or {}

    def __str__(self) -> str:
        return self.name

    def open(self) -> av.container.InputContainer:
        """
        Opens the source.

        Raises:
            ValueError, OSError: it cannot be opened, or is no video.
        """
        timeout = self.watch.timeout
        return self._open(self.address, timeout=(timeout, timeout), container_options={**_PROBING, **self.options})

    def close(self) -> None:
        """Closes what [`open`] opened beside the container."""

    def _open(self, target, **options) -> av.container.InputContainer:
        try:
            container = av.open(target, format=self.format, **OPEN_OPTIONS, **options)
        except av.FFmpegError as error:
            raise self._explain(error) from error
        except ValueError as error:  # PyAV knows no such format
            raise ValueError(f"{self} cannot be opened: {error}.") from error
        name = container.format.name
        if name == "tty" or name.startswith("image2") or is_of_pictures(name):
            container.close()
            kind = "text" if name == "tty" else "an image"
            raise ValueError(f"{self} is {kind}: a stream of video is accepted.")
        return container

    def _explain(self, error: av.FFmpegError) -> Exception:
        if isinstance(error, av.error.ExitError):
            return TimeoutError(f"{self} cannot be opened: nothing came for {self.watch.timeout:g} s.")
        if isinstance(error, (av.error.InvalidDataError, av.error.DemuxerNotFoundError, av.error.EOFError)):
            return ValueError(f"{self} is not a media stream that FFmpeg can read: {error.strerror}.")
        if isinstance(error, av.error.ProtocolNotFoundError):
            return ValueError(f"{self} cannot be opened: FFmpeg was built without this protocol.")
        known = next((kind for kind in _KEPT if isinstance(error, kind)), OSError)
        return known(f"{self} cannot be opened: {error.strerror}.")

    def is_bounded(self, container) -> bool:
        """Whether the source has an end that is known, as a recording has."""
        # The size of a playlist is not that of what it lists.
        return (container.duration or 0) > 0 or (container.format.name not in _PLAYLISTS and (container.size or 0) > 0)

    def has_ended(self, container, error: av.FFmpegError) -> bool:
        """
        Whether an error of reading is how FFmpeg tells the end. Of HTTP without a length, some of its versions tell an
        orderly end by an I/O error and a connection that was cut by none, and others the other way round.
        """
        is_playlist = container.format.name in _PLAYLISTS
        is_plain = self.address.lower().startswith(("http://", "https://")) and not is_playlist
        return is_plain and not self.is_bounded(container) and error.errno == errno.EIO

    def replay(self, container) -> float:
        """The seconds before the end that may be given again when the source is opened again."""
        return _PLAYLISTS.get(container.format.name, 0.0)


class Device(LiveInput):
    """What FFmpeg reads by the name of a format: a screen, a capture card, a generator of test pictures."""

    def is_bounded(self, container) -> bool:
        return False


class Camera(Device):
    """A camera: by number or device on Linux, and by number or name elsewhere."""

    def open(self) -> av.container.InputContainer:
        try:
            return super().open()
        except (OSError, ValueError) as error:
            hint = ""
            if sys.platform == "linux":
                found = ", ".join(sorted(glob("/dev/video*")))
                hint = f" The cameras there are: {found}." if found else " There is no camera on this machine."
            raise type(error)(f"{error}{hint}") from error


class GrowingFile(LiveInput):
    """A file that is followed while it grows, until it has not grown for `timeout` seconds."""

    is_live = can_reopen = False

    def open(self) -> av.container.InputContainer:
        self.file = open(self.address, "rb")  # noqa: SIM115, closed by `close`
        self.position, self.is_complete = 0, False
        options = {"container_options": {**_PROBING, **SELF_CONTAINED, **self.options}}
        if _has_late_index(self.address):
            # It cannot be read from start to end, but is complete if there is an index.
            return self._open(os.path.abspath(self.address), **options)
        return self._open(self, **options)

    def close(self) -> None:
        self.file.close()

    def read(self, size: int) -> bytes:
        """The next bytes for FFmpeg; none if the file is complete."""
        since = time.monotonic()
        while True:
            content = self.file.read(size)
            if content:
                self.position += len(content)
                return content
            if os.fstat(self.file.fileno()).st_size < self.position:
                raise OSError(f"{self} was cut short while it was read.")
            # FFmpeg asks several times at the end.
            if self.is_complete or time.monotonic() - since >= self.watch.timeout:
                self.is_complete, self.end_reason = True, f": it has not grown for {self.watch.timeout:g} s"
                return b""
            self.watch.pause()

    def is_bounded(self, container) -> bool:
        return True


class Pipe(LiveInput):
    """What another program writes, from a binary file object without going back."""

    can_reopen = False

    def __init__(self, name: str, file, watch: Watch, format=None, options=None, is_ours: bool = False):
        super().__init__(name, name, watch, format, options)
        self.file, self.is_ours = file, is_ours
        self._read = getattr(file, "read1", file.read)
        try:
            self.number = file.fileno()
        except (AttributeError, OSError):
            self.number = None  # in memory
        if os.name == "nt":
            self.number = None  # `select` knows only sockets there

    def open(self) -> av.container.InputContainer:
        return self._open(self, container_options={**_PROBING, **SELF_CONTAINED, **self.options})

    def close(self) -> None:
        if self.is_ours:
            self.file.close()

    def read(self, size: int) -> bytes:
        """The next bytes for FFmpeg; none at the end."""
        since, is_stalled = time.monotonic(), False
        while self.number is not None and not select.select([self.number], [], [], _POLL)[0]:
            seconds = time.monotonic() - since
            if self.watch.is_closed():
                raise Closed
            if seconds >= self.watch.patience:
                raise TimeoutError(f"{self} has stalled: nothing came for {seconds:.1f} s.")
            if seconds >= self.watch.timeout and not is_stalled:
                is_stalled = True
                self.watch.tell("stalled", f"{self} has stalled: nothing came for {seconds:.1f} s. It is waited for.")
        if self.watch.is_closed():
            raise Closed
        # FFmpeg asks for more than a buffer of Python holds: nothing stays in one, where `select` would not see it.
        content = self._read(size)
        if is_stalled and content:
            seconds = time.monotonic() - since
            self.watch.tell("connected", f"{self} goes on after {seconds:.1f} s.")
        return content

    def is_bounded(self, container) -> bool:
        return False


def find_input(source, watch: Watch, format: str | None = None, options: dict | None = None) -> LiveInput:
    """
    What to open for an address: see [`LiveSource`].

    Raises:
        ValueError, TypeError, OSError: the source is none of those that are accepted, or there is no such file.
    """
    if hasattr(source, "read"):
        if not isinstance(source.read(0), bytes):
            raise TypeError("The source is a file opened as text: one opened in binary mode is accepted.")
        return Pipe(f"<file {getattr(source, 'name', type(source).__name__)}>", source, watch, format, options)
    if not isinstance(source, (str, os.PathLike)):
        accepted = "an address, a path or a binary file is accepted"
        raise TypeError(f"A live source cannot be `{type(source).__name__}`: {accepted}.")
    text = os.fspath(source)
    if text == "-":
        return Pipe("<standard input>", sys.stdin.buffer, watch, format, options)
    if text.startswith("camera:") or re.fullmatch(r"/dev/video\d+", text):
        return _find_camera(text.removeprefix("camera:"), watch, format, options)
    scheme = re.match(r"([A-Za-z][\w+.-]+)://", text)
    if scheme and scheme[1].lower() in _SCHEMES:
        options = {"format_whitelist": _FROM_NETWORK, **(options or {})}
        if scheme[1].lower().startswith("rtsp"):
            options = {"rtsp_transport": "tcp", **options}  # by UDP, pictures would lose packets
        return LiveInput(text, text, watch, format, options)
    if format is not None and not os.path.exists(text):
        return Device(f"{format} {text!r}", text, watch, format, options)
    if scheme:
        accepted = ", ".join(_SCHEMES)
        raise ValueError(f"The address {text[:200]!r} is not accepted: the schemes are {accepted}, or none for files.")
    return _find_file(text, watch, format, options)


def _find_camera(name: str, watch: Watch, format: str | None, options: dict | None) -> Camera:
    if sys.platform not in _CAMERAS:
        raise ValueError(f"Cameras of {sys.platform!r} are not known: {', '.join(_CAMERAS)} are. Name a `format`.")
    usual, address = _CAMERAS[sys.platform]
    if sys.platform == "linux" and name.isdigit():
        name = f"/dev/video{name}"
    return Camera(f"The camera {name!r}", address.format(name), watch, format or usual, options)


def _find_file(path: str, watch: Watch, format: str | None, options: dict | None) -> LiveInput:
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path[:200]!r}.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path!r} is a folder: a file, a stream or a camera is accepted.")
    if not os.path.isfile(path):
        # A named pipe. Without this flag, opening it would wait for a program that writes.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        return Pipe(repr(path), open(number, "rb", buffering=0), watch, format, options, is_ours=True)
    with open(path, "rb") as file:
        if file.read(7) == b"#EXTM3U":
            return LiveInput(repr(path), os.path.abspath(path), watch, format, options)
    return GrowingFile(repr(path), path, watch, format, options)


def _has_late_index(path: str) -> bool:
    """Whether a file is an MP4 whose index follows its pictures, so that it can be read when it is complete only."""
    with open(path, "rb") as file:
        while len(header := file.read(16)) >= 8:
            size, kind = struct.unpack(">I4s", header[:8])
            if kind == b"mdat":
                return True
            if kind not in (b"ftyp", b"free", b"wide", b"skip", b"styp", b"sidx") or size < 8:
                return False
            file.seek(size - len(header), os.SEEK_CUR)
    return False
