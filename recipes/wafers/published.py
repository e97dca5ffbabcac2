"""
Reads WM-811K and MixedWM38 as they are published.

WM-811K (`LSWMD.pkl`) is a pickle of a pandas DataFrame, written by Python 2. A pickle may run any program when it is
loaded. Therefore it is read here without pandas and without trust: only the handful of names that a table of arrays
consists of are known, each stands for a harmless class below, and any other name ends the reading.
"""

import codecs
import pickle
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .maps import FAILING, PATTERNS, Wafer

MIXED_COLUMNS = ("center", "donut", "edge-loc", "edge-ring", "loc", "near-full", "scratch", "random")
"""
What the columns of MixedWM38's labels mean. Its authors do not say; this order is the one that its users have found by
looking at maps with one label.
"""
CONVERT = (
    "Its columns can be written anew where pandas is: `frame.columns = frame.columns.astype(object)`, then "
    "`frame.astype(object).to_pickle(FILE)`."
)


class _Frame:
    """In the place of a DataFrame, whose state holds its blocks."""

    def __setstate__(self, state):
        self.blocks = state.get("_mgr", state.get("_data")) if isinstance(state, dict) else None


class _Blocks:
    """In the place of the BlockManager, which newer pandas calls with blocks and axes; older restores its state."""

    def __init__(self, blocks: Sequence = (), axes: Sequence = ()):
        self.blocks, self.axes = list(blocks), list(axes)

    def __setstate__(self, state):
        if isinstance(state, tuple) and len(state) > 3 and isinstance(state[3], dict) and "0.14.1" in state[3]:
            inner = state[3]["0.14.1"]
            self.axes = list(inner["axes"])
            self.blocks = [(one["values"], one["mgr_locs"]) for one in inner["blocks"]]


class _Index:
    """In the place of any index."""


def _new_index(kind, content: dict):
    return content


def _block(values, places, ndim=2):
    return values, places


def _empty_array(kind, shape, typecode):
    return np.ndarray((0,), np.dtype("b"))  # what it holds comes as its state


def _from_buffer(buffer, dtype, shape, order):
    return np.frombuffer(bytes(buffer), dtype).reshape(shape, order=order).copy()


def _scalar(dtype, content=None):
    if content is None or dtype.hasobject:
        return None
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, dtype)[0]


def _as_bytes(text: str, encoding: str = "latin1") -> bytes:
    return codecs.encode(text, "latin1")


def _empty_bytes() -> bytes:
    return b""


def _made(kind, base=object, state=None):
    return kind()


_INDEXES = ("Index", "RangeIndex", "Int64Index", "UInt64Index", "Float64Index", "NumericIndex")
# Names in pickles, without the modules: these were moved from version to version.
_PANDAS = {
    "DataFrame": _Frame,
    "BlockManager": _Blocks,
    "_new_Index": _new_index,
    "_unpickle_block": _block,
    "new_block": _block,
    **dict.fromkeys(_INDEXES, _Index),
}
_NUMPY = {
    "_reconstruct": _empty_array,
    "_frombuffer": _from_buffer,
    "scalar": _scalar,
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}
_PYTHON = {
    ("_codecs", "encode"): _as_bytes,
    ("__builtin__", "slice"): slice,
    ("builtins", "slice"): slice,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
    ("copy_reg", "_reconstructor"): _made,
    ("copyreg", "_reconstructor"): _made,
    ("__builtin__", "bytes"): _empty_bytes,
    ("builtins", "bytes"): _empty_bytes,
    ("builtins", "bytearray"): bytearray,
}


class _TableUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        family = {"pandas": _PANDAS, "numpy": _NUMPY}.get(module.split(".")[0], {})
        found = _PYTHON.get((module, name), family.get(name))
        if found is None:
            raise _UnknownName(f"{module}.{name}")
        return found


class _UnknownName(ValueError):
    """A pickle asks for what no table of wafers needs."""


def read_wm811k(path: Path) -> list[Wafer]:
    """
    The labelled wafers of WM-811K (172,950 of 811,457, of which 147,431 have no pattern). The file of 2.1 GB is read
    as a whole and takes about 4 GB of memory.

    Args:
        path (`Path`): `LSWMD.pkl`, or any DataFrame of its columns, pickled.

    Returns:
        `list[Wafer]`: in their order, with the publisher's split.

    Raises:
        ValueError: it is no pickle, wants to run something, or lacks a column; the message says how to convert it.
        OSError: it cannot be read.
    """
    table = _read_table(path)
    for names in (("waferMap",), ("failureType",)):
        if not set(names) & set(table):
            raise ValueError(f"{path} has no column {names[0]}: it has {', '.join(sorted(table))[:200]}.")
    splits = table.get("trianTestLabel", table.get("trainTestLabel"))  # its publisher's own spelling
    wafers = []
    for row, (dies, label) in enumerate(zip(table["waferMap"], table["failureType"], strict=True)):
        if not (pattern := _text(label).lower()):
            continue
        if pattern != "none" and pattern not in PATTERNS:
            raise ValueError(f"{path}, row {row}: {pattern!r:.40} is no pattern of {', '.join(PATTERNS)} or none.")
        split = None if splits is None else {"training": "train", "test": "test"}.get(_text(splits[row]).lower())
        patterns = () if pattern == "none" else (pattern,)
        wafers.append(Wafer(f"{path.name} {row}", _checked(dies, f"{path}, row {row}"), patterns, split))
    if not wafers:
        raise ValueError(f"{path} has no wafer with a label in failureType.")
    return wafers


def _read_table(path: Path) -> dict[str, np.ndarray]:
    """The columns of a pickled DataFrame."""
    try:
        with open(path, "rb") as file:
            frame = _TableUnpickler(file, encoding="latin1").load()
    except _UnknownName as error:
        raise ValueError(
            f"{path} is not read: it asks for {error}, which a table of wafers does not need. {CONVERT}"
        ) from error
    except OSError:
        raise
    except Exception as error:  # damaged pickles raise exceptions of any kind
        raise ValueError(
            f"{path} is no pickle of a table, or is damaged ({type(error).__name__}). {CONVERT}"
        ) from error
    blocks = getattr(frame, "blocks", None)
    if not isinstance(frame, _Frame) or not isinstance(blocks, _Blocks) or len(blocks.axes) != 2:
        raise ValueError(f"{path} holds {type(frame).__name__.strip('_')!r:.40}, not a table of pandas. {CONVERT}")
    try:
        names = [str(name) for name in np.asarray(blocks.axes[0]["data"], dtype=object)]
        columns = {}
        for values, places in blocks.blocks:
            for place, column in zip(np.arange(len(names))[places], values, strict=True):
                columns[names[place]] = column
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"{path} is a table of pandas whose columns are of another kind. {CONVERT}") from error
    return columns


def _text(label) -> str:
    """A label, which is a text, or one in an array in an array; `""` for none."""
    while isinstance(label, (np.ndarray, list, tuple)):
        if not len(label):
            return ""
        label = label[0]
    return label if isinstance(label, str) else ""


def read_mixedwm38(path: Path) -> list[Wafer]:
    """
    The wafers of MixedWM38: up to four patterns on each.

    Args:
        path (`Path`): The published `.npz`: `arr_0` with maps (wafers, 52, 52), `arr_1` with labels (wafers, 8).

    Raises:
        ValueError: it is no such file.
        OSError: it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not {"arr_0", "arr_1"} <= set(file.files):
                raise ValueError(f"it has {', '.join(file.files)[:80] or 'nothing'}, not arr_0 and arr_1")
            maps, labels = file["arr_0"], file["arr_1"]
        if maps.ndim != 3 or labels.shape != (len(maps), len(MIXED_COLUMNS)):
            raise ValueError(f"arr_0 has the shape {maps.shape} and arr_1 {labels.shape}")
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("labels are other numbers than 0 and 1")
    except (ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise ValueError(
            f"{path} is not MixedWM38 as it is published ({error}): a .npz with maps (n, 52, 52) in arr_0 and labels "
            "(n, 8) in arr_1 is accepted."
        ) from error
    return [
        Wafer(
            f"{path.name} {row}",
            _checked(dies, f"{path}, wafer {row}"),
            tuple(name for name, is_there in zip(MIXED_COLUMNS, label, strict=True) if is_there),
        )
        for row, (dies, label) in enumerate(zip(maps, labels, strict=True))
    ]


def _checked(dies, where: str) -> np.ndarray:
    """The dies of a map; a few of MixedWM38 have the value 3, which its users take for failing, too."""
    dies = np.asarray(dies)
    if dies.ndim != 2 or dies.dtype.kind not in "iu" or not dies.size or dies.min() < 0 or dies.max() > 3:
        raise ValueError(f"{where}: a map has 2 dimensions of the values 0, 1 and 2, got {dies.dtype} {dies.shape}.")
    return np.minimum(dies, FAILING).astype(np.uint8)


def split_of(wafer: Wafer, seed: int = 0) -> str:
    """`"train"` or `"test"`: the publisher's, or one wafer of five for the test by a draw that depends on its name."""
    return wafer.split or ("test" if random.Random(f"{seed}/{wafer.name}").random() < 0.2 else "train")
