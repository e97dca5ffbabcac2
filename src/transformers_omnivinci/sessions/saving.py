"""Sessions in files: what was watched and said, encoded, and the language model's cache of it."""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..modeling.cached_prompt import ATTRIBUTE, CachedPrompt
from ..new_folder import new_folder
from ..planning import MediumFacts, MediumSource, plan_medium
from ..processing.batch import MEDIA_INPUTS
from ..processing.layout import layout_settings
from .caches import CacheKind
from .contents import Block, Content
from .feeding import Clock
from .live import LiveClip, Window
from .media import Recording
from .policy import Policy
from .positions import Positions
from .prefix import Prefix
from .turns import Turn

FORMAT = 1
SETTINGS_FILE, TENSORS_FILE = "session.json", "session.safetensors"
SAMPLED = 64
"""Values of each weight by which a model is recognised."""


def save_session(path: Path, session, turns: Iterable[Turn], prefix: Prefix | None) -> None:
    """Writes the folder of a session; arguments and errors are those of [`Session.save`]."""
    tensors: dict[str, torch.Tensor] = {}
    content = {
        "format": FORMAT,
        "model": recognise_model(session.model),
        "settings": recognise_settings(session.processor),
        "system": session.system,
        "policy": None if session.policy is None else asdict(session.policy),
        "sanitize_control_tokens": session.sanitize_control_tokens,
        "cache": {"implementation": session.cache_kind.implementation, "config": dict(session.cache_kind.config)},
        "turns": [
            {
                "question": turn.question,
                "answer": turn.answer,
                "media": [
                    _write_live(medium, f"{number}.{index}", tensors)
                    if isinstance(medium, LiveClip)
                    else _write_recording(medium, f"{number}.{index}", tensors)
                    for index, medium in enumerate(turn.media)
                ],
            }
            for number, turn in enumerate(turns)
        ],
        "cached": _write_cache(prefix, tensors),
    }
    with new_folder(Path(path), force=None) as folder:
        # Apart from each other, as views of one tensor are refused.
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        try:
            save_file(tensors, folder / TENSORS_FILE)
        except SafetensorError as error:  # such as of a full disk
            raise OSError(f"{path} cannot be written: {error}.") from error
        content["tensors"] = _digest_file(folder / TENSORS_FILE)
        text = json.dumps({"checksum": _checksum(content), "content": content}, indent=1)
        (folder / SETTINGS_FILE).write_text(text + "\n", encoding="utf-8")


def read_session(path: Path, model, processor) -> tuple[dict, list[Turn], Prefix | None, int]:
    """
    What [`save_session`] wrote: its settings, its turns, its prefix if the cache was saved, and how many keys of
    [`Keys`] are taken. Arguments and errors are those of [`Session.load`].
    """
    path = Path(path)
    try:
        read = json.loads((path / SETTINGS_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise OSError(f"{path} holds no session: {SETTINGS_FILE} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise OSError(f"{path / SETTINGS_FILE} is damaged: {error}.") from error
    content = read.get("content") if isinstance(read, dict) else None
    if not isinstance(content, dict) or read.get("checksum") != _checksum(content):
        raise OSError(f"{path / SETTINGS_FILE} is damaged: its content does not have the checksum that it names.")
    if content["format"] != FORMAT:
        raise ValueError(f"{path} was written in format {content['format']}, and this version reads format {FORMAT}.")
    if content["model"] != recognise_model(model):
        raise ValueError(
            f"{path} is a session of another model: load it with the checkpoint and dtype it was made by."
        )
    if content["settings"] != recognise_settings(processor):
        raise ValueError(f"{path} was made with other settings of the processor, and goes on with those alone.")
    try:
        if _digest_file(path / TENSORS_FILE) != content["tensors"]:
            raise OSError(f"{path / TENSORS_FILE} is damaged: it is not the file that {SETTINGS_FILE} names.")
        tensors = load_file(path / TENSORS_FILE)
    except (SafetensorError, FileNotFoundError, IsADirectoryError) as error:
        raise OSError(f"{path / TENSORS_FILE} cannot be read: {error}.") from error
    turns = [
        Turn(
            tuple(
                (_read_live if "clock" in medium else _read_recording)(
                    medium, f"{number}.{index}", tensors, model, processor
                )
                for index, medium in enumerate(turn["media"])
            ),
            turn["question"],
            turn["answer"],
        )
        for number, turn in enumerate(content["turns"])
    ]
    keys = [tensor.min().item() for name, tensor in tensors.items() if name.endswith(("keys", "note")) and len(tensor)]
    used = max(0, -min(keys, default=0))
    content["policy"] = None if content["policy"] is None else Policy(**content["policy"])
    content["cache"] = CacheKind(**content["cache"])
    return content, turns, _read_cache(content["cached"], tensors, model, content["cache"]), used


# ------------------------------------------------------------------------------------------------------------- parts


def _write_blocks(blocks: Iterable[Block], name: str, tensors: dict) -> list[int]:
    """Writes blocks as one, and returns their lengths."""
    blocks = list(blocks)
    if blocks:
        tensors[f"{name}.keys"] = torch.from_numpy(np.concatenate([block.keys for block in blocks]))
        tensors[f"{name}.embeddings"] = torch.cat([block.embeddings for block in blocks])
        if blocks[0].seconds is not None:
            tensors[f"{name}.seconds"] = torch.from_numpy(np.concatenate([block.seconds for block in blocks]))
    return list(map(len, blocks))


def _read_blocks(lengths: list[int], name: str, tensors: dict, model) -> list[Block]:
    if not lengths:
        return []
    ends = np.cumsum(lengths)[:-1]
    keys = np.split(tensors[f"{name}.keys"].numpy(), ends)
    embeddings = tensors[f"{name}.embeddings"].to(model.device).split(lengths)
    seconds = tensors.get(f"{name}.seconds")
    times = [None] * len(lengths) if seconds is None else np.split(seconds.numpy(), ends)
    return [Block(*block) for block in zip(keys, embeddings, times, strict=True)]


def _write_recording(medium: Recording, name: str, tensors: dict) -> dict:
    contents = {}
    for which, content in medium.contents.items():
        place = f"{name}.{which}"
        for field, values in vars(content.positions).items():
            tensors[f"{place}.{field}"] = torch.from_numpy(values)
        contents[str(which)] = {
            str(token): _write_blocks(blocks, f"{place}.{token}", tensors) for token, blocks in content.blocks.items()
        }
    for which, (_, inputs) in medium.unread.items():
        for field, tensor in inputs.items():
            tensors[f"{name}.{which}.{field}"] = tensor
    return {
        "modality": medium.modality,
        "name": medium.name,
        "duration": medium.duration,
        "sources": {str(which): _as_json(asdict(source)) for which, source in medium.sources.items()},
        "contents": contents,
        "unread": [str(which) for which in medium.unread],
    }


def _read_recording(told: dict, name: str, tensors: dict, model, processor) -> Recording:
    contents, unread = {}, {}
    for which, blocks in told["contents"].items():
        place = f"{name}.{which}"
        positions = Positions(*(tensors[f"{place}.{field}"].numpy() for field in ("ids", "seconds", "parts")))
        found = {
            int(token): _read_blocks(lengths, f"{place}.{token}", tensors, model) for token, lengths in blocks.items()
        }
        contents[which == "True"] = Content(positions, found)
    for which in told["unread"]:  # images alone
        inputs = {field: tensors.get(f"{name}.{which}.{field}") for field in MEDIA_INPUTS}
        inputs = {field: tensor for field, tensor in inputs.items() if tensor is not None}
        facts = MediumFacts("image", tuple(inputs["image_grid_hw"][0].tolist()))
        unread[which == "True"] = plan_medium(facts, processor.layout), inputs
    sources = {which == "True": _read_source(source) for which, source in told["sources"].items()}
    return Recording(told["modality"], told["name"], contents, unread, told["duration"], sources)


def _as_json(told):
    """Dictionaries and sequences with numbers of Python's alone, among which arrays and their numbers may be."""
    if isinstance(told, dict):
        return {name: _as_json(one) for name, one in told.items()}
    if hasattr(told, "tolist"):
        return told.tolist()
    return [_as_json(one) for one in told] if isinstance(told, (list, tuple)) else told


def _read_source(told: dict) -> MediumSource:
    """As it was before it was written as JSON, which knows lists alone."""
    facts = MediumFacts(**{**told["facts"], "tile_grid": tuple(told["facts"]["tile_grid"])})
    sizes = {name: told[name] and tuple(told[name]) for name in ("size", "seen_size")}
    return MediumSource(**{**told, **sizes, "facts": facts})


def _write_live(clip: LiveClip, name: str, tensors: dict) -> dict:
    tensors[f"{name}.samples"] = torch.from_numpy(clip.samples)
    if clip.pixels is not None:
        tensors[f"{name}.pixels"] = clip.pixels
    for number, window in enumerate(clip.windows):
        if window.features is not None:
            tensors[f"{name}.window.{number}"] = window.features
    return {
        "clock": asdict(clip.clock),
        "size": clip.size,
        "pictures": [
            _write_blocks(blocks, f"{name}.pictures.{number}", tensors)
            for number, blocks in enumerate(zip(*clip.pictures, strict=True))
        ],
        "offset": clip.offset,
        "windows": [[window.stays, window.peak, window.least] for window in clip.windows],
        "sounds": [
            [number, made_of, _write_blocks([block], f"{name}.sounds.{number}", tensors)]
            for number, (made_of, block) in clip.sounds.items()
        ],
        "unseen": sorted(clip.unseen),
        "unheard": None if clip.unheard == -math.inf else float(clip.unheard),
    }


def _read_live(told: dict, name: str, tensors: dict, model, processor) -> LiveClip:
    columns = [
        _read_blocks(lengths, f"{name}.pictures.{number}", tensors, model)
        for number, lengths in enumerate(told["pictures"])
    ]
    sounds = {}
    for number, (seconds, windows), lengths in told["sounds"]:
        [block] = _read_blocks(lengths, f"{name}.sounds.{number}", tensors, model)
        sounds[number] = (tuple(seconds), tuple(map(tuple, windows))), block
    return LiveClip(
        clock=Clock(**{**told["clock"], "timestamps": tuple(told["clock"]["timestamps"])}),
        size=None if told["size"] is None else tuple(told["size"]),
        pictures=tuple(zip(*columns, strict=True)),
        pixels=tensors.get(f"{name}.pixels"),
        samples=tensors[f"{name}.samples"].numpy(),
        offset=told["offset"],
        windows=tuple(
            Window(tensors.get(f"{name}.window.{number}"), *window) for number, window in enumerate(told["windows"])
        ),
        sounds=sounds,
        unseen=frozenset(told["unseen"]),
        unheard=-math.inf if told["unheard"] is None else told["unheard"],
    )


def _write_cache(prefix: Prefix | None, tensors: dict) -> int:
    """Writes the cache, and returns how many layers it has; 0: it is not saved, and read again."""
    if (
        prefix is None
        or not len(prefix)
        or not prefix.kind.can_be_cut
        or any(layer.is_sliding for layer in prefix.cache.layers)
    ):
        return 0
    note: CachedPrompt = getattr(prefix.cache, ATTRIBUTE)
    tensors["cache.ids"], tensors["cache.note"] = note.input_ids[0], note.contents[0]
    for number, layer in enumerate(prefix.cache.layers):
        tensors[f"cache.{number}.k"], tensors[f"cache.{number}.v"] = layer.keys, layer.values
    return len(prefix.cache.layers)


def _read_cache(num_layers: int, tensors: dict, model, kind: CacheKind) -> Prefix | None:
    if not num_layers:
        return None
    cache = kind.make(model)
    for number in range(num_layers):
        cache.update(*(tensors[f"cache.{number}.{part}"].to(model.device) for part in "kv"), number)
    setattr(cache, ATTRIBUTE, CachedPrompt(tensors["cache.ids"][None], tensors["cache.note"][None]))
    return Prefix(model, kind, cache)


# ------------------------------------------------------------------------------------------------------- recognition


def recognise_model(model) -> str:
    """A number made of a model's config and of some values of each of its weights."""
    digest = hashlib.sha256(json.dumps(_lasting(model.config.to_dict()), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        # What is offloaded or packed in a class of its own is known by its shape alone.
        if type(tensor) in (torch.Tensor, torch.nn.Parameter) and not tensor.is_meta and tensor.numel():
            values = tensor.detach().flatten()
            values = values[:: max(1, len(values) // SAMPLED)][:SAMPLED].cpu().contiguous()
            digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def recognise_settings(processor) -> str:
    """A number made of what decides how a processor reads media and prompts."""
    parts = [processor.image_processor, processor.video_processor, processor.feature_extractor]
    settings = [layout_settings(processor), processor.chat_template, [_lasting(part.to_dict()) for part in parts]]
    settings += [processor.load_audio_from_video, sorted(processor.tokenizer.get_vocab().items())]
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def _lasting(settings):
    """Settings without where they came from and which version wrote them."""
    if not isinstance(settings, dict):
        return settings
    left = {str(name): _lasting(value) for name, value in settings.items() if name != "transformers_version"}
    return {name: value for name, value in left.items() if not name.startswith("_")}


def _checksum(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
