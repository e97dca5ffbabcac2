"""Questions that are spoken into a microphone, recorded by a program of this machine."""

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path


def find_recorder() -> list[str] | None:
    """The command that records from the microphone to the WAV file named behind it; `None` without a microphone."""
    if shutil.which("arecord") and b"card" in _output("arecord", "-l"):
        return ["arecord", "-q", "-f", "S16_LE", "-r", "16000", "-c", "1", "-t", "wav"]
    if shutil.which("parecord") and shutil.which("pactl") and b"input" in _output("pactl", "list", "short", "sources"):
        return ["parecord", "--rate=16000", "--channels=1", "--file-format=wav"]
    if sys.platform == "darwin" and shutil.which("ffmpeg"):
        return ["ffmpeg", "-loglevel", "error", "-y", "-f", "avfoundation", "-i", ":default", "-ac", "1"]
    return None


def _output(*command: str) -> bytes:
    try:
        return subprocess.run(command, capture_output=True, timeout=10, stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.SubprocessError):
        return b""


def record(path: Path, wait: Callable[[], None], command: list[str] | None = None) -> None:
    """
    Records until `wait` returns.

    Args:
        path (`Path`): The WAV file that is written.
        wait (`Callable`): Such as one that waits for a key.
        command (`list[str]`, *optional*): Of [`find_recorder`], which is asked by default.

    Raises:
        OSError: there is no microphone, or nothing was recorded.
    """
    command = command or find_recorder()
    if command is None:
        raise OSError("There is no microphone here: the name of a sound file is accepted as a question.")
    with _recording([*command, str(path)]) as process:
        wait()
    with process.stderr as errors:
        said = " ".join(errors.read().decode(errors="replace").split())[:200]
    if not path.is_file() or path.stat().st_size < 100:
        raise OSError(f"{command[0]} recorded nothing: {said or f'exit code {process.returncode}'}.")


@contextlib.contextmanager
def _recording(command: list[str]) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)  # which has it complete the file
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
