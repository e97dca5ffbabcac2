"""Media and checkpoints that the arguments of commands name."""

import os

from ..checkpoint_formats import MODEL_TYPE
from ..hub_options import may_be_repository


def content_item(source: str) -> dict:
    """
    Makes an item of a message of a file, URL or folder of frames. Whether it is a video, an image or a sound is read
    from its content, not its name. URLs are downloaded once.

    Args:
        source (`str`): Path or URL.

    Returns:
        `dict`: with `type` (`"video"`, `"image"` or `"audio"`) and the path or content under that key.

    Raises:
        ValueError: it is none of the three.
        OSError: it cannot be read or downloaded.
    """
    from .. import media

    content = media.download(source) if media.is_url(source) else source
    kind = media.kind_of(content)
    return {"type": kind, kind: content}


def check_model(model: str) -> None:
    """
    Checks that a checkpoint is one of OmniVinci, by its config.

    Args:
        model (`str`): A folder, or a repository of the Hub.

    Raises:
        ValueError: there is no such folder and the name cannot be a repository, or it holds another model.
        OSError: the config cannot be read.
    """
    if not os.path.isdir(model) and not may_be_repository(model):
        raise ValueError(f"There is no folder {model!r}: `--model` is a folder, or a repository such as owner/name.")
    from transformers import AutoConfig

    model_type = AutoConfig.from_pretrained(model).model_type
    if model_type != MODEL_TYPE:
        raise ValueError(f"{model!r} holds a model of type {model_type!r}: a checkpoint of OmniVinci is accepted.")
