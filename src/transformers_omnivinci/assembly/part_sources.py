"""Where a part of the new model comes from: a folder, a repository of the Hub or a GGUF file."""

import os
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from ..checkpoint_formats import model_type_of
from ..hub_options import download, hub_options, may_be_repository
from ..weight_files import quantization_of

FILES = ["*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt"]
WEIGHTS = ["model.safetensors", "model-*.safetensors"]
UNREADABLE = (ValueError, KeyError, IndexError, TypeError, OSError, RuntimeError, struct.error)
"""What transformers and gguf raise of files that are damaged or not what they seem."""


@dataclass(frozen=True)
class PartSource:
    """
    A source of a part.

    Attributes:
        part (`str`): The part, as in "audio encoder".
        name (`str`): The repository, or the name of the folder or file.
        revision (`str`, *optional*): The commit of the repository.
        folder (`Path`): Where it lies.
        gguf_file (`str`, *optional*): The name of the file in the folder, where it is a GGUF file.
    """

    part: str
    name: str
    revision: str | None
    folder: Path
    gguf_file: str | None = None

    @property
    def file(self) -> Path:
        """The file that tells its settings."""
        return self.folder / (self.gguf_file or "config.json")

    @property
    def options(self) -> dict:
        """What a `from_pretrained` of transformers needs beside the folder."""
        return {} if self.gguf_file is None else {"gguf_file": self.gguf_file}


def find_part(part: str, source, accepts_gguf: bool = False, weights: bool = True, **hub) -> PartSource:
    """
    Finds a source; what a repository has is downloaded.

    Args:
        part (`str`): What messages call it, as in "audio encoder".
        source (`str` or `Path`): A folder, or a repository as `owner/name` or `owner/name@revision`.
        accepts_gguf (`bool`, *optional*, defaults to `False`): Whether it may be a GGUF file, or a folder with one.
        weights (`bool`, *optional*, defaults to `True`): Whether weights are needed, too.
        hub (`token`, `cache_dir`, `local_files_only`, `force_download`): How the Hub is asked.

    Raises:
        OSError: there is no such folder or repository, or it has no config.
        ValueError: it is quantized, or a GGUF file where none is accepted.
        ImportError: it is a GGUF file, and the package `gguf` is not installed.
    """
    path = Path(source)
    if path.suffix == ".gguf" and path.is_file():
        return _gguf_source(part, path, accepts_gguf)
    if path.is_dir():
        files = sorted(path.glob("*.gguf"))
        if not (path / "config.json").is_file() and files:
            if len(files) > 1:
                names = ", ".join(file.name for file in files)
                raise ValueError(f"{path} has several GGUF files, {names}: give the path of one as the {part}.")
            return _gguf_source(part, files[0], accepts_gguf)
        found = PartSource(part, path.resolve().name, None, path)
    else:
        name, _, revision = str(source).partition("@")
        if not may_be_repository(name):
            raise OSError(
                f"There is no folder {str(source)!r}: as the {part} a folder is accepted, or a repository such as "
                "owner/name or owner/name@revision."
            )
        options = hub_options({**hub, "revision": revision or None})
        folder = download(name, FILES + WEIGHTS if weights else FILES, **options)
        found = PartSource(part, name, folder.name, folder)
    if not found.file.is_file():
        raise OSError(f"{found.folder} has no config.json, so it holds no {part}.")
    if weights and quantization_of(found.folder) is not None:
        raise ValueError(
            f"{found.file} is that of a quantized model: a {part} with floating-point weights is accepted."
        )
    return found


def _gguf_source(part: str, path: Path, is_accepted: bool) -> PartSource:
    if not is_accepted:
        raise ValueError(f"{path} is a GGUF file, which is accepted as the language model alone, not as the {part}.")
    if find_spec("gguf") is None:
        raise ImportError(f"Reading {path.name} needs the package gguf: pip install gguf.")
    return PartSource(part, path.name, None, path.parent, path.name)


def read_part_config(source: PartSource, accepted: dict[str, str | None]) -> tuple[str, PreTrainedConfig]:
    """
    The model type of a source, and the config of the part in it.

    Args:
        source ([`PartSource`]): Where it is.
        accepted (`dict[str, str | None]`):
            By the types of models that have such a part, the name of its config in theirs; `None`: the whole model is
            the part.

    Raises:
        ValueError: it is a model of another type, or its config cannot be read.
    """
    kind = None if source.gguf_file else model_type_of(source.folder)
    if kind is not None or not source.gguf_file:
        _check_type(source, kind, accepted)
    try:
        config = AutoConfig.from_pretrained(source.folder, **source.options)
    except UNREADABLE as error:
        raise ValueError(f"{source.file} cannot be read: {' '.join(str(error).split())}") from error
    _check_type(source, config.model_type, accepted)
    name = accepted[config.model_type]
    return config.model_type, config if name is None else getattr(config, name)


def _check_type(source: PartSource, kind: str | None, accepted) -> None:
    if kind not in accepted:
        raise ValueError(
            f"{source.file} is that of a model of type {kind!r}, which is no {source.part} of OmniVinci: "
            f"{', '.join(accepted)} are accepted."
        )


def part_file(source: PartSource, *names: str) -> Path | None:
    """The first of these files that a source has."""
    paths = (source.folder / name for name in names)
    return next((path for path in paths if os.path.isfile(path)), None)
