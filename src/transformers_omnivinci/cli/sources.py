"""What the arguments of commands name: media and checkpoints."""

import os
import re

from ..hub_options import may_be_repository
from ..model_types import MODEL_TYPE


def is_url(source: str) -> bool:
    return re.match(r"(https?|file|data):", source, re.IGNORECASE) is not None


def content_item(source: str) -> dict:
    """A source as item of a message; what it is its content tells. What a URL leads to is downloaded once."""
    from .. import media

    if os.path.isdir(source):
        return {"type": "video", "video": source}
    content = media.download(source) if media.is_url(source) else source
    try:
        kind = "image" if media.is_still(content) else "video"
    except ValueError as no_video:
        try:
            media.probe_audio(content)
        except ValueError:
            raise ValueError(f"{source!r} is read neither as video nor as image or sound: {no_video}") from no_video
        kind = "audio"
    return {"type": kind, kind: content}


def check_model(model: str) -> None:
    """Refuses what is no folder of a checkpoint of OmniVinci; other names are left to the Hub."""
    if not os.path.isdir(model) and not may_be_repository(model):
        raise ValueError(f"There is no folder {model!r}: `--model` is a folder, or a repository such as owner/name.")
    from transformers import AutoConfig

    model_type = AutoConfig.from_pretrained(model).model_type
    if model_type != MODEL_TYPE:
        raise ValueError(f"{model!r} holds a model of type {model_type!r}: a checkpoint of OmniVinci is accepted.")
