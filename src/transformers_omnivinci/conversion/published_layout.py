"""
The published layout: five component folders with a config and safetensors each, and settings in the root's config.

This module finds its files; `settings` reads and writes its configs, `weights` names its tensors.
"""

import os
from pathlib import Path

from transformers.utils import cached_file

from ..checkpoint_formats import PUBLISHED_MODEL_TYPE, model_type_of
from ..hub_options import download, hub_options

COMPONENTS = ("llm", "vision_tower", "sound_tower", "mm_projector", "sound_mm_projector")
FILES = ["config.json", "generation_config.json", "llm/merges.txt", *(f"{name}/*.json" for name in COMPONENTS)]
WEIGHTS = [f"{name}/*.safetensors" for name in COMPONENTS]


def published_folder(name_or_path, /, weights: bool, **options) -> Path | None:
    """
    A checkpoint in the published layout as a local folder; `None` for one in another layout. Of a repository only what
    is needed is downloaded, several files at a time: no code, no assets.

    Args:
        name_or_path (`str` or `Path`): Local folder, or repository of the Hub.
        weights (`bool`): Whether weights are needed, too.
        options: Those of a `from_pretrained`; how the Hub is asked is taken from them.

    Raises:
        OSError: the repository cannot be read.
    """
    if name_or_path is None or os.path.isfile(name_or_path):
        return None
    if os.path.isdir(name_or_path):
        return Path(name_or_path) if is_published(Path(name_or_path)) else None
    options = hub_options(options)
    config_file = cached_file(str(name_or_path), "config.json", _raise_exceptions_for_missing_entries=False, **options)
    if config_file is None or not is_published(Path(config_file).parent):
        return None
    options["revision"] = Path(config_file).parent.name  # the commit: all that follows is of the same one
    return download(name_or_path, FILES + WEIGHTS if weights else FILES, **options)


def is_published(folder: Path) -> bool:
    """Whether a local folder is in the published layout."""
    return model_type_of(folder) == PUBLISHED_MODEL_TYPE
