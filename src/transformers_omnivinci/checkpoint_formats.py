"""
The formats of checkpoints, and a registry of those that `save_pretrained` does not write.

A format registers the module that loads it, by name: the three `from_pretrained` ask here, and it is imported then.
Importing this module brings no heavy library.
"""

import json
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

MODEL_TYPE = "omnivinci"
"""The `model_type` in the `config.json` of what `save_pretrained` writes."""
PUBLISHED_MODEL_TYPE = "vila"
"""That of the layout in which `nvidia/omnivinci` is published."""


@dataclass(frozen=True)
class CheckpointFormat:
    """
    A format beside that of `save_pretrained`.

    Attributes:
        model_type (`str`): The `model_type` in the `config.json` of its checkpoints.
        loader (`str`):
            The module that loads it. It has `load_config`, `load_processor`, `load_model` and `load_part`: each takes
            the class that is asked, a folder or repository and the options of `from_pretrained`, and gives `None` for
            a checkpoint of another format. `load_part` takes an Auto class, such as `AutoTokenizer`. For engines that
            read weights themselves it has `weight_folders` and `weight_name`: where they are, and what the model calls
            them.
        config_class (`str`), processor_class (`str`): What its configs name; this package has them by these names.
    """

    model_type: str
    loader: str
    config_class: str
    processor_class: str


_formats: dict[str, CheckpointFormat] = {}


def register_format(new: CheckpointFormat) -> None:
    """Adds a format, in place of an earlier one with its `model_type`."""
    _formats[new.model_type] = new


def registered_formats() -> list[CheckpointFormat]:
    """The formats that were registered, the first one first."""
    return list(_formats.values())


def load_registered(what: str, wanted: type, name_or_path, /, *args, **kwargs):
    """
    What `from_pretrained` gives for a checkpoint in a registered format; `None` for one in another format.

    Args:
        what (`str`): `"config"`, `"processor"`, `"model"`, or `"part"` of the processor.
        wanted (`type`): The class whose `from_pretrained` asks; an Auto class for a part.
        name_or_path, args, kwargs: The arguments of that `from_pretrained`.

    Raises:
        OSError, ValueError: the checkpoint cannot be read, or is not supported.
    """
    for known in registered_formats():
        loaded = getattr(import_module(known.loader), f"load_{what}")(wanted, name_or_path, *args, **kwargs)
        if loaded is not None:
            return loaded
    return None


def loader_of(name_or_path, /, cache_dir=None, revision=None, **_) -> ModuleType | None:
    """
    The module that loads a folder, or what the cache has of a repository; `None` for one that is in no registered
    format. The Hub is not asked.
    """
    known = _formats.get(_cached_model_type(name_or_path, cache_dir, revision))
    return None if known is None else import_module(known.loader)


def is_registered(name_or_path, /, cache_dir=None, revision=None, **_) -> bool:
    """Whether a folder, or what the cache has of a repository, is in a registered format. The Hub is not asked."""
    return _cached_model_type(name_or_path, cache_dir, revision) in _formats


def _cached_model_type(name_or_path, cache_dir, revision) -> str | None:
    folder = name_or_path
    if not os.path.isdir(folder):
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            file = try_to_load_from_cache(str(name_or_path), "config.json", cache_dir=cache_dir, revision=revision)
        except HFValidationError:
            return None
        if not isinstance(file, str):
            return None
        folder = Path(file).parent
    return model_type_of(folder)


def model_type_of(folder) -> str | None:
    """The `model_type` in the `config.json` of a folder, as [`read_json`] reads it; `None` if there is none."""
    config_file = Path(folder) / "config.json"
    return read_json(config_file).get("model_type") if config_file.is_file() else None


def read_json(path) -> dict:
    """The JSON object in a file. Raises an `OSError` if there is no such file, a `ValueError` if it holds none."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}: a JSON object is accepted.")
    return values


def write_json(path, values: dict) -> None:
    """Writes a JSON file as transformers writes it."""
    Path(path).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
