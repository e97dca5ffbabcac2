"""
Where llm-compressor runs: in this environment if it is installed here, else in one of its own.

It wants a transformers that is older than the newest which this package works with. An environment of its own stands
upon the one that runs: what suits llm-compressor is taken from there, torch above all, and only the rest installed.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock

from .recipes import QuantizationRecipe

ENGINE = "llmcompressor"
NEEDS = {
    "0.14.0.1": ("transformers>=5.15,<=5.17", "compressed-tensors==0.19.0", "accelerate>=1.15", "nvidia-ml-py"),
    # What it declares leaves out the torch and Pillow of today, with which it works.
    "0.12.0.2": ("transformers>=5.9,<=5.10.1", "compressed-tensors==0.17.1", "accelerate>=1.6"),
}
"""What versions of llm-compressor need beside [`ALWAYS`]. They are installed without what they declare themselves."""
ALWAYS = ("datasets>=4.8.4", "loguru>=0.7.2", "numpy>=2", "pyyaml>=6", "requests>=2.32", "tqdm>=4.66")
NEWEST, ON_A_CPU = NEEDS
PINS_MEMORY = (0, 13)
"""From this version on, its AWQ pins memory for an accelerator, and fails where there is none."""


def installed_engine() -> str | None:
    """The version of llm-compressor in this environment."""
    try:
        return version(ENGINE)
    except PackageNotFoundError:
        return None


def suits(engine: str | None, recipe: QuantizationRecipe, has_accelerator: bool) -> bool:
    """Whether a version of llm-compressor can carry out a recipe on this machine."""
    if engine is None:
        return False
    is_awq = any(treatment.method == "awq" for treatment in recipe.treatments)
    return has_accelerator or not is_awq or tuple(map(int, engine.split(".")[:2])) < PINS_MEMORY


def check_engine(recipe: QuantizationRecipe, has_accelerator: bool) -> None:
    """Raises an `ImportError` unless llm-compressor is installed here, in a version that [`suits`] a recipe."""
    engine = installed_engine()
    if engine is None:
        raise ImportError(
            "Quantizing needs an extra, which wants an older transformers: pip install "
            "'transformers-omnivinci[quantize]'. The command `omnivinci quantize` makes an environment with it."
        )
    if not suits(engine, recipe, has_accelerator):
        raise ImportError(
            f"The recipe {recipe.name!r} uses AWQ, which in llm-compressor {engine} needs a GPU, and there is none: "
            f"{ON_A_CPU} runs on a CPU, and the command `omnivinci quantize` makes an environment with it."
        )


def engine_for(has_accelerator: bool) -> str:
    """The version of llm-compressor for an environment of its own."""
    return NEWEST if has_accelerator else ON_A_CPU


def environment_folder(engine: str) -> Path:
    """Where the environment of a version of llm-compressor is kept: in `OMNIVINCI_CACHE`, or the user's cache."""
    cache = os.environ.get("OMNIVINCI_CACHE")
    base = Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "omnivinci"
    return base.absolute() / f"{ENGINE}-{engine}-python{sys.version_info.major}.{sys.version_info.minor}"


def make_environment(engine: str) -> Path:
    """
    Makes the environment of a version of llm-compressor, unless it is there and stands upon the one that runs.

    Returns:
        `Path`: its Python.

    Raises:
        OSError: something could not be installed. Nothing half-made is left.
    """
    folder = environment_folder(engine)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    # Packages of the running environment that change may no longer suit what was installed beside them.
    below = [path for path in map(Path, sys.path) if path.name in ("site-packages", "dist-packages")]
    wanted = json.dumps([sys.version, version("torch"), engine, NEEDS[engine], ALWAYS, [str(path) for path in below]])
    stamp = folder / "stamp.json"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(folder.suffix + ".lock")):
        if stamp.is_file() and stamp.read_text() == wanted:
            return python
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _run([sys.executable, "-m", "venv", str(folder)])
            lines = "".join(f"import site; site.addsitedir({str(path)!r})\n" for path in below)
            (_packages(folder) / "below.pth").write_text(lines)
            pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
            _run([*pip, f"torch=={version('torch').partition('+')[0]}", *ALWAYS, *NEEDS[engine]])
            _run([*pip, "--no-deps", f"{ENGINE}=={engine}"])
            stamp.write_text(wanted)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return python


def run_elsewhere(engine: str, arguments: Sequence[str]) -> int:
    """
    Runs `omnivinci` in the environment of a version of llm-compressor, which is made if necessary.

    Returns:
        `int`: its exit code.

    Raises:
        OSError: the environment could not be made.
    """
    python = make_environment(engine)
    # The code that runs here runs there, whichever way it was found.
    source = str(Path(__file__).resolve().parents[2])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} if _is_loose(source) else None
    return subprocess.run([str(python), "-m", "transformers_omnivinci.cli", *arguments], env=variables).returncode


def _is_loose(source: str) -> bool:
    """Whether this package runs from a folder that is no folder of installed packages."""
    return Path(source).name not in ("site-packages", "dist-packages")


def _packages(folder: Path) -> Path:
    if os.name == "nt":
        return folder / "Lib" / "site-packages"
    return folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        reason = next((line for line in reversed(done.stderr.splitlines()) if "error" in line.lower()), "it failed")
        raise OSError(f"An environment for llm-compressor could not be made: {' '.join(command[1:4])} said: {reason}")
