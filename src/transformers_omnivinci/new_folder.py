"""The folder of a new checkpoint, which appears whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"


def check_vacant(destination: Path, force: bool | None = False) -> None:
    """
    Refuses, with an `OSError`, a destination that is there and not empty; with `force`, one that is no checkpoint. The
    error does not speak of `force` if that is `None`.
    """
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return
    if not force:
        other = "" if force is None else ", or `force` to replace it"
        raise OSError(f"{destination} is there already: a new folder is accepted{other}.")
    if not (destination / "config.json").is_file():
        raise OSError(f"{destination} is not replaced, as it holds no checkpoint: it has no config.json.")


def check_apart(destination: Path, source: Path, name: str) -> None:
    """Refuses a destination that is, holds or lies in a source, which errors call by its `name`, with a ValueError."""
    one, other = source.resolve(), destination.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise ValueError(f"{other} and the {name} {one} overlap: a folder apart from it is accepted.")


def check_space(destination: Path, num_bytes: int) -> None:
    """Refuses, with an `OSError`, a destination whose disk has less room than so many bytes."""
    place = next(parent for parent in Path(os.path.abspath(destination)).parents if parent.exists())
    free = shutil.disk_usage(place).free
    if free < num_bytes:
        raise OSError(
            f"{destination} needs {num_bytes / 1e9:.2f} GB, but its disk has {free / 1e9:.2f} GB left: free some, or "
            "choose another place."
        )


@contextmanager
def new_folder(destination: Path, force: bool | None = False) -> Iterator[Path]:
    """
    Gives an empty sibling of `destination`, which takes its place when the block ends and is removed when it fails.
    A process that is killed leaves its sibling behind, under a hidden name; the next one removes it.

    Args:
        destination (`Path`): The folder to be made.
        force (`bool`, *optional*, defaults to `False`):
            Whether an older checkpoint is replaced; `None` where a caller cannot ask for it.

    Raises:
        OSError: there is a folder already, or its parent cannot be written.
    """
    destination = Path(os.path.abspath(destination))
    check_vacant(destination, force)
    pattern = f".{destination.name}.*.incomplete"
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(destination.parent.glob(pattern))
        folder = destination.with_name(pattern.replace("*", secrets.token_hex(4)))
        folder.mkdir()
    except OSError as error:
        raise OSError(f"{destination} cannot be made: {error.strerror or error}.") from error
    try:
        with FileLock(folder / LOCK):
            yield folder
        (folder / LOCK).unlink(missing_ok=True)
        replaced = destination.with_name(pattern.replace("*", secrets.token_hex(4)))
        if destination.exists():
            destination.rename(replaced)
        folder.rename(destination)
        _remove(replaced)
    finally:
        _remove(folder)


def _remove_abandoned(folders: Iterator[Path]) -> None:
    for folder in folders:
        try:
            with FileLock(folder / LOCK, blocking=False):
                _remove(folder)
        except Timeout:
            pass  # another process is at work in it


def _remove(folder: Path) -> None:
    """Removes a folder, first of all the file without which nothing loads what is left of it."""
    (folder / "config.json").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
