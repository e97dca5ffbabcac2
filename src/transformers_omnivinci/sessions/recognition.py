"""What media, prompts and models are recognised by: digests of everything that decides what becomes of them."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch

from .. import media
from ..processing.batch import MediaInputs
from ..processing.conversation import item_options, read_conversations
from ..processing.layout import layout_settings

PLAIN = {"num_frames", "fps", "max_frames", "video_start", "video_end", "load_audio_from_video"}
"""Options of a call that decide how media are read, and nothing else."""
TOLD = {*PLAIN, "return_evidence", "sanitize_control_tokens", "continue_final_message", "processor_kwargs", "timeout"}
"""Options of a call with which media are recognised before they are decoded. Others may change all of it."""
SAMPLED = 16
"""Values of each weight by which is seen that a model has changed."""


@dataclass(frozen=True)
class Mark:
    """
    What a medium is recognised by before it is decoded.

    Attributes:
        modality (`str`): `"image"`, `"video"` or `"audio"`.
        digest (`str`, *optional*): Of its content and of all that decides how it is read. `None`: nothing tells.
        path (`str`, *optional*): The file that it is in.
        version (`tuple[int, ...]`, *optional*): Which state of the file that was.
    """

    modality: str
    digest: str | None = None
    path: str | None = None
    version: tuple[int, ...] | None = None

    def still_holds(self) -> bool:
        """Whether it tells all that the medium was read from: the file has not changed since, and names no others."""
        if self.path is None:
            return self.digest is not None
        try:
            return _version_of(self.path) == self.version and media.is_self_contained(self.path)
        except OSError:
            return False


@dataclass(frozen=True)
class Asked:
    """
    A chat before its media are decoded.

    Attributes:
        messages (`list[dict]`): Its messages; URLs were downloaded.
        marks (`Sequence[Mark]`): Of each of its media, in order.
        state (`str`): From [`model_state`].
    """

    messages: list[dict]
    marks: Sequence[Mark]
    state: str = ""


def recognise(processor, messages: list[dict], options: Mapping) -> Asked:
    """
    Recognises the media of a chat. What cannot be read is left to the processor, which says why.

    Args:
        processor ([`OmniVinciProcessor`]): That will read them.
        messages (`list[dict]`): The messages of one chat.
        options (`Mapping`): Of the processor, for this chat.
    """
    asked = Asked(messages, ())
    if not options.keys() <= TOLD:
        return asked
    try:
        asked = replace(asked, messages=_download(read_conversations(messages)))
        own = {name: value for name, value in options.items() if name in PLAIN}
        settings = json.dumps([_settings_of(processor), own], sort_keys=True)
        items = [item for message in asked.messages for item in _media_items(message)]
        is_alone = sum(item["type"] == "image" for item in items) == 1
        return replace(asked, marks=[_mark(item, settings, is_alone) for item in items])
    except (OSError, TypeError, ValueError):
        return asked


def digest_inputs(inputs: MediaInputs, ids: np.ndarray) -> str:
    """Of what a medium has become: the tensors that the encoders see, and the token ids that it stands at."""
    digest = hashlib.sha256(np.ascontiguousarray(ids).tobytes())
    for name in sorted(inputs):
        tensor = inputs[name].detach().contiguous().cpu()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def model_state(model) -> str:
    """
    Changes where a model does: weights that are trained, merged, replaced or moved, and adapters that are added,
    removed or switched. Weights are known by some of their values.
    """
    digest, samples = hashlib.sha256(str(id(model)).encode()), {}
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {tensor.device}".encode())
        # What is offloaded or packed in a class of its own is known by its shape alone.
        if type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.numel() and not tensor.is_meta:
            values = tensor.detach().reshape(-1, 1).view(torch.uint8)
            step = max(1, len(values) // SAMPLED)
            samples.setdefault(tensor.device, []).append(values[::step][:SAMPLED].reshape(-1))
    for parts in samples.values():
        digest.update(torch.cat(parts).cpu().numpy())
    for module in model.modules():  # what PEFT's layers say of their adapters
        told = [getattr(module, name, None) for name in ("active_adapters", "disable_adapters", "merged_adapters")]
        if any(told) and not any(map(callable, told)):
            digest.update(repr(told).encode())
    return digest.hexdigest()


def _settings_of(processor) -> list:
    """What decides how media are read where a call does not say."""
    parts = [processor.image_processor, processor.video_processor, processor.feature_extractor]
    groups = [getattr(processor, name, None) for name in ("images_kwargs", "videos_kwargs", "audio_kwargs")]
    settings = [
        layout_settings(processor),
        processor.load_audio_from_video,
        *groups,
        [part.to_dict() for part in parts],
    ]
    return json.loads(json.dumps(settings, sort_keys=True, default=str))


def _media_items(message: Mapping) -> Iterator[dict]:
    content = message.get("content")
    yield from (item for item in content if item["type"] != "text") if isinstance(content, list) else ()


def _download(messages: list[dict]) -> list[dict]:
    """Messages with the content of URLs in their place."""

    def loaded(item: dict) -> dict:
        source = item.get(item["type"])
        return {**item, item["type"]: media.download(source)} if media.is_url(source) else item

    return [
        {**message, "content": [loaded(item) for item in message["content"]]}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def _mark(item: Mapping, settings: str, is_alone: bool) -> Mark:
    modality = item["type"]
    digest, path, version = hashlib.sha256(), None, None
    digest.update(json.dumps([modality, is_alone, settings, item_options(item)], sort_keys=True).encode())
    source = item.get(modality)
    if isinstance(source, (bytes, bytearray, memoryview)):
        digest.update(b"\0bytes\0")
        digest.update(source)
    elif isinstance(source, str) and source[:5].lower() == "data:":
        digest.update(b"\0data\0" + source.encode())
    elif isinstance(source, (str, os.PathLike)) and os.path.isfile(source):
        path, version = os.fspath(source), _version_of(source)
        # FFmpeg looks at the ending of a name where the content leaves it open what a file is.
        digest.update(f"\0file{os.path.splitext(path)[1].lower()}\0".encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    else:
        return Mark(modality)
    return Mark(modality, digest.hexdigest(), path, version)


def _version_of(path) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
