"""What the arguments of commands name: media and checkpoints."""

import mimetypes
import os
import re
from urllib.parse import urlparse

from ..hub_options import may_be_repository
from ..model_types import MODEL_TYPE

KINDS = ("image", "video", "audio")


def is_url(source: str) -> bool:
    return re.match(r"(https?|file|data):", source) is not None


def content_item(source: str) -> dict:
    """A source as item of a message. What it is, its content tells, or the extension of a URL."""
    from .. import media

    if os.path.isdir(source):
        return {"type": "video", "video": source}
    if is_url(source):
        path = source if source.startswith("data:") else urlparse(source).path
        kind = (mimetypes.guess_type(path)[0] or "").partition("/")[0]
        if kind in KINDS:
            return {"type": kind, kind: source}
    try:
        num_frames = media.probe_video(source).total_num_frames
    except ValueError as no_video:
        try:
            media.probe_audio(source)
        except ValueError:
            raise ValueError(f"{source!r} is read neither as video nor as image or sound: {no_video}") from no_video
        return {"type": "audio", "audio": source}
    if num_frames == 1:
        try:
            media.probe_image(source)
        except ValueError:
            pass  # a video of one frame
        else:
            return {"type": "image", "image": source}
    return {"type": "video", "video": source}


def check_model(model: str) -> None:
    """Refuses what is no folder of a checkpoint of OmniVinci; other names are left to the Hub."""
    if not os.path.isdir(model) and not may_be_repository(model):
        raise ValueError(f"There is no folder {model!r}: `--model` is a folder, or a repository such as owner/name.")
    from transformers import AutoConfig

    model_type = AutoConfig.from_pretrained(model).model_type
    if model_type != MODEL_TYPE:
        raise ValueError(f"{model!r} holds a model of type {model_type!r}: a checkpoint of OmniVinci is accepted.")
