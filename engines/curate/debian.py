"""
What Debian has for the data engine: the voice espeak-ng, which is installed where it is missing (as root, as everybody
else may not), and speech that was recorded for LibriVox, which is unpacked into a folder.

    python engines/curate/debian.py FOLDER

It runs before anything is installed, so it needs the standard library alone.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SPEECH = Path("usr/share/pocketsphinx/test/data/librivox")
"""Where the package pocketsphinx-testdata has its five clips of speech, and `transcription`."""


def install_voice() -> None:
    """Installs espeak-ng unless it is there."""
    if shutil.which("espeak-ng") is not None:
        return
    apt_get = shutil.which("apt-get")
    if apt_get is None or os.geteuid() != 0:
        sys.exit("Spoken questions need the program espeak-ng: install Debian's package of that name.")
    subprocess.run([apt_get, "update", "-qq"], check=True)
    subprocess.run([apt_get, "install", "-y", "-qq", "--no-install-recommends", "espeak-ng"], check=True)


def unpack_speech(folder: Path) -> None:
    """Unpacks pocketsphinx-testdata into a folder, unless it is there. Nothing is installed."""
    if (folder / SPEECH / "transcription").is_file():
        return
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        sys.exit(
            f"The recordings of speech are those of Debian's package pocketsphinx-testdata: unpack it in {folder}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    # As root, apt says that it cannot give up its rights for this folder.
    quiet = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else ["apt-get", "-qq"]
    subprocess.run([*quiet, "download", "pocketsphinx-testdata"], cwd=folder, check=True)
    (package,) = folder.glob("pocketsphinx-testdata*.deb")
    subprocess.run(["dpkg", "-x", package, folder], check=True)
    package.unlink()


if __name__ == "__main__":
    install_voice()
    unpack_speech(Path(sys.argv[1]))
