"""
Conversion of checkpoints: from the published layout into that of transformers, and back.

A conversion is planned from configs and headers alone, and then carried out one shard after another.
"""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import HfApi, split_state_dict_into_shards_factory
from huggingface_hub.utils import tqdm
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import AutoConfig, GenerationConfig
from transformers.utils import logging

from .. import __version__
from ..configuration_omnivinci import OmniVinciConfig
from ..hub_options import may_be_repository
from ..model_types import MODEL_TYPE
from .loading import published_generation_config, published_processor
from .new_folder import check_vacant, new_folder
from .published_layout import COMPONENTS, FILES, WEIGHTS, download, hub_options, is_published, read_json
from .settings import PublishedSettings, check_published, published_configs, read_settings
from .weights import (
    INDEX,
    TensorHeader,
    by_model_names,
    check_checksum,
    check_weights,
    open_folder,
    open_published,
    to_published,
)

logger = logging.get_logger(__name__)

LAYOUTS = ("transformers", "published")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""What `dtype` may be called."""
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""How far logits of equal weights may lie from each other, of the largest of them."""


@dataclass(frozen=True)
class Shard:
    """
    A safetensors file to be written.

    Attributes:
        name (`str`): Its path in the folder.
        tensors (`dict[str, TensorHeader]`): What it holds, by the names of the layout.
        num_bytes (`int`): The size of its tensors.
    """

    name: str
    tensors: dict[str, TensorHeader]
    num_bytes: int


@dataclass(frozen=True)
class Conversion:
    """
    A planned conversion.

    Attributes:
        source (`str`): Repository, or name of the folder.
        revision (`str`, *optional*): The commit of the repository.
        folder (`Path`): Where the source lies.
        to (`str`): The layout of the result, `"transformers"` or `"published"`.
        dtype (`torch.dtype`, *optional*): Of the result. `None`: each weight as it is stored.
        config ([`OmniVinciConfig`]), processor ([`OmniVinciProcessor`]), generation_config ([`GenerationConfig`]):
            Of the model.
        settings (`PublishedSettings`, *optional*): What is understood and ignored of a source in the published layout.
        shards (`list[Shard]`): The files with weights.
        indices (`dict[str, dict]`): The files that tell which weight is in which shard.
    """

    source: str
    revision: str | None
    folder: Path
    to: str
    dtype: torch.dtype | None
    config: OmniVinciConfig
    processor: object
    generation_config: GenerationConfig
    settings: PublishedSettings | None
    shards: list[Shard]
    indices: dict[str, dict]

    @property
    def num_bytes(self) -> int:
        """The size of the weights."""
        return sum(shard.num_bytes for shard in self.shards)

    def other_files(self, with_code: bool = False) -> list[str]:
        """What stands beside the weights."""
        from ..publishing.code import code_files

        code = code_files() if with_code else []
        if self.to == "transformers":
            names = ["config.json", "processor_config.json", "chat_template.jinja", "README.md"]
            tokenizer = ["tokenizer.json", "tokenizer_config.json"]
        else:
            names = list(published_configs(self.config, self.processor))
            tokenizer = ["llm/tokenizer.json", "llm/tokenizer_config.json"]
        return [*self.indices, *names, "generation_config.json", *tokenizer, *code]

    @property
    def num_parameters(self) -> int:
        return sum(tensor.num_parameters for shard in self.shards for tensor in shard.tensors.values())


def convert(
    source,
    destination,
    *,
    revision: str | None = None,
    to: str = "transformers",
    dtype: str | torch.dtype | None = None,
    max_shard_size: int | str = "5GB",
    with_code: bool = False,
    verify: bool = False,
    force: bool = False,
    **hub,
) -> Conversion:
    """
    Converts a checkpoint. The destination appears whole, at the end, or not at all.

    Args:
        source (`str` or `Path`): A folder in either layout, or a repository of the Hub.
        destination (`str` or `Path`): The folder to be made.
        revision (`str`, *optional*): Branch, tag or commit of a repository.
        to (`str`, *optional*, defaults to `"transformers"`): The layout of the result, or `"published"`.
        dtype (`str` or `torch.dtype`, *optional*): Of the weights. `None`: each as it is stored.
        max_shard_size (`int` or `str`, *optional*, defaults to `"5GB"`): Bytes of the largest file of weights.
        with_code (`bool`, *optional*, defaults to `False`):
            Whether the folder also carries what is needed to load it where this package is not installed.
        verify (`bool`, *optional*, defaults to `False`):
            Whether every weight is compared bit for bit, and a forward pass of source and result.
        force (`bool`, *optional*, defaults to `False`): Whether an older checkpoint at `destination` is replaced.
        hub (`token`, `cache_dir`, `local_files_only`, `force_download`): How the Hub is asked.

    Returns:
        [`Conversion`]: what was done.

    Raises:
        OSError: something cannot be read or written: a file that is missing or damaged, a full disk.
        ValueError: the checkpoint or an option is not supported, or the result is not the source.
    """
    destination = Path(destination)
    if with_code and to != "transformers":
        raise ValueError(f"`with_code` is for the layout of transformers, not for {to!r}.")
    check_vacant(destination, force)
    conversion = plan_conversion(source, revision=revision, to=to, dtype=dtype, max_shard_size=max_shard_size, **hub)
    _check_apart(conversion.folder, destination)
    _check_space(destination, conversion.num_bytes)
    for path in sorted({tensor.path for shard in conversion.shards for tensor in shard.tensors.values()}):
        check_checksum(path)
    with new_folder(destination, force) as folder:
        _write_weights(conversion, folder)
        _write_files(conversion, folder, with_code)
        if verify:
            _verify(conversion, folder)
    return conversion


def plan_conversion(
    source,
    *,
    revision: str | None = None,
    to: str = "transformers",
    dtype: str | torch.dtype | None = None,
    max_shard_size: int | str = "5GB",
    headers_only: bool = False,
    **hub,
) -> Conversion:
    """
    Reads what a conversion would do, without writing anything.

    Args:
        source, revision, to, dtype, max_shard_size, hub: As in [`convert`].
        headers_only (`bool`, *optional*, defaults to `False`):
            Of a repository, whether only the headers of its weights are downloaded. Such a plan cannot be carried out.

    Raises:
        OSError, ValueError: as [`convert`].
    """
    if to not in LAYOUTS:
        raise ValueError(f"`to={to!r}` is not a layout: {' and '.join(LAYOUTS)} are accepted.")
    dtype = _read_dtype(dtype)
    name, commit, folder, remote_weights = _find(source, revision, headers_only, hub)
    settings = read_settings(folder) if is_published(folder) else None
    if settings is not None and settings.refused:
        raise ValueError(" ".join(settings.refused.values()))
    config, processor, generation_config = _read_parts(folder, settings)
    if remote_weights:
        weights = remote_weights(config)
    else:
        weights = open_folder(folder) if settings is None else open_published(folder, config)

    from ..modeling import OmniVinciForConditionalGeneration

    weights = check_weights(OmniVinciForConditionalGeneration, config, weights)
    if to == "published":
        _check_can_be_published(config, processor)
    text_dtype = next(tensor.dtype for key, tensor in weights.items() if ".language_model." in key)
    for part in (config, config.text_config, config.vision_config, config.audio_config):
        part.dtype = dtype or text_dtype
    config.name_or_path = name
    shards, indices = _plan_shards(weights, to, dtype, max_shard_size)
    return Conversion(name, commit, folder, to, dtype, config, processor, generation_config, settings, shards, indices)


def settings_of(source, revision: str | None = None, **hub) -> PublishedSettings | None:
    """What a source in the published layout says, and what becomes of it; `None` for one in another layout."""
    *_, folder, _ = _find(source, revision, True, hub)
    return read_settings(folder) if is_published(folder) else None


# ---------------------------------------------------------------------------------------------------- the source


def _read_dtype(dtype) -> torch.dtype | None:
    if dtype is None or dtype in DTYPES.values():
        return dtype
    if dtype not in DTYPES:
        raise ValueError(f"`dtype={dtype!r}` is not supported: {', '.join(DTYPES)} are accepted.")
    return DTYPES[dtype]


def _find(source, revision: str | None, headers_only: bool, hub: dict):
    """The name, commit and folder of a source, and what opens weights that are not in the folder."""
    if os.path.isdir(source):
        if revision is not None:
            raise ValueError(f"`revision={revision!r}` is for repositories of the Hub, but {source} is a folder.")
        folder = Path(source)
        if not (folder / "config.json").is_file():
            raise OSError(f"{folder} has no config.json: a folder of a checkpoint is accepted.")
        return folder.resolve().name, None, folder, None
    source = str(source)
    if not may_be_repository(source):
        raise OSError(f"There is no folder {source!r}: a folder is accepted, or a repository such as owner/name.")
    options = hub_options({**hub, "revision": revision})
    folder = download(source, ["config.json"], **options)
    if not (folder / "config.json").is_file():
        raise OSError(f"The repository {source!r} has no config.json, so it holds no checkpoint.")
    commit = options["revision"] = folder.name  # all that follows is of the same one
    published = is_published(folder)
    patterns, weights = (FILES, WEIGHTS) if published else (["*.json", "*.jinja", "merges.txt"], ["*.safetensors"])
    download(source, patterns if headers_only else patterns + weights, **options)
    if not headers_only:
        return source, commit, folder, None

    def remote_weights(config: OmniVinciConfig) -> dict[str, TensorHeader]:
        asked = {name: options[name] for name in ("revision", "token") if name in options}
        return _remote_headers(source, COMPONENTS if published else ("",), config, **asked)

    return source, commit, folder, remote_weights


def _remote_headers(repo_id: str, folders: tuple[str, ...], config, revision=None, token=None) -> dict:
    """The weights of a repository as their files' headers tell, of which alone is downloaded."""
    api, published = HfApi(token=token), folders == COMPONENTS
    keys = {folder: {} for folder in folders}
    for path in api.list_repo_files(repo_id, revision=revision):
        folder, _, name = path.rpartition("/")
        if folder in keys and name.endswith(".safetensors"):
            header = api.parse_safetensors_file_metadata(repo_id, path, revision=revision)
            keys[folder] |= {
                key: TensorHeader(Path(path), key, tuple(tensor.shape), tensor.dtype)
                for key, tensor in header.tensors.items()
            }
    return by_model_names(keys, config) if published else keys[""]


def _read_parts(folder: Path, settings: PublishedSettings | None):
    """The config, processor and generation config of a checkpoint."""
    from ..processing import OmniVinciProcessor

    if settings is not None:
        config, processor = settings.config, published_processor(OmniVinciProcessor, folder)
        generation_config = published_generation_config(folder, GenerationConfig.from_model_config(config))
    else:
        model_type = read_json(folder / "config.json").get("model_type")
        if model_type != MODEL_TYPE:
            raise ValueError(f"{folder} holds a model of type {model_type!r}: a checkpoint of OmniVinci is accepted.")
        config, processor = AutoConfig.from_pretrained(folder), OmniVinciProcessor.from_pretrained(folder)
        has_own = (folder / "generation_config.json").is_file()
        generation_config = (
            GenerationConfig.from_pretrained(folder) if has_own else GenerationConfig.from_model_config(config)
        )
    for leftover in ("is_local", "local_files_only", "name_or_path"):  # of where the tokenizer was found
        processor.tokenizer.init_kwargs.pop(leftover, None)
    return config, processor, generation_config


# ------------------------------------------------------------------------------------------------------ the plan


def _plan_shards(weights: dict, to: str, dtype, max_shard_size) -> tuple[list[Shard], dict[str, dict]]:
    """The files with weights, and the indices of folders with several of them."""
    folders: dict[str, dict[str, TensorHeader]] = {}
    for name, tensor in weights.items():
        component, key = to_published(name) if to == "published" else ("", name)
        folders.setdefault(component, {})[key] = tensor
    shards, indices = [], {}
    for component, tensors in folders.items():
        split = split_state_dict_into_shards_factory(
            tensors,
            get_storage_size=lambda tensor: tensor.num_bytes(dtype),
            get_storage_id=lambda tensor: None,
            filename_pattern="model{suffix}.safetensors",
            max_shard_size=max_shard_size,
        )
        for name, keys in split.filename_to_tensors.items():
            chosen = {key: tensors[key] for key in keys}
            num_bytes = sum(tensor.num_bytes(dtype) for tensor in chosen.values())
            shards.append(Shard(os.path.join(component, name), chosen, num_bytes))
        if split.is_sharded:
            indices[os.path.join(component, INDEX)] = {
                "metadata": split.metadata,
                "weight_map": split.tensor_to_filename,
            }
    return shards, indices


def _check_can_be_published(config: OmniVinciConfig, processor) -> None:
    from ..processing import OmniVinciProcessor
    from ..processing.chat_template import CHAT_TEMPLATE

    if processor.chat_template != CHAT_TEMPLATE:
        raise ValueError("The published layout has no place for a chat template other than that of the release.")
    with tempfile.TemporaryDirectory() as name:
        _write_published_files(config, processor, Path(name))
        check_published(Path(name), config, processor, OmniVinciProcessor.from_pretrained)


def _check_apart(source: Path, destination: Path) -> None:
    source, destination = source.resolve(), destination.resolve()
    if source == destination or source in destination.parents or destination in source.parents:
        raise ValueError(f"{destination} and the source {source} overlap: a folder apart from it is accepted.")


def _check_space(destination: Path, num_bytes: int) -> None:
    place = next(parent for parent in Path(os.path.abspath(destination)).parents if parent.exists())
    free = shutil.disk_usage(place).free
    if free < num_bytes:
        raise OSError(
            f"{destination} needs {num_bytes / 1e9:.2f} GB, but its disk has {free / 1e9:.2f} GB left: free some, or "
            "choose another place."
        )


# ---------------------------------------------------------------------------------------------------- the result


def _write_weights(conversion: Conversion, folder: Path) -> None:
    metadata = {"format": "pt", "source": conversion.source, "transformers_omnivinci_version": __version__}
    if conversion.revision is not None:
        metadata["source_revision"] = conversion.revision
    with tqdm(total=conversion.num_bytes, unit="B", unit_scale=True, desc="Converting", disable=None) as progress:
        for shard in conversion.shards:
            _write_shard(shard, folder, conversion.dtype, metadata)
            progress.update(shard.num_bytes)
    for name, index in conversion.indices.items():
        _write_json(folder / name, index)


def _write_shard(shard: Shard, folder: Path, dtype: torch.dtype | None, metadata: dict[str, str]) -> None:
    path = folder / shard.name
    path.parent.mkdir(exist_ok=True)
    tensors = {key: tensor.read().to(dtype) for key, tensor in shard.tensors.items()}
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"{shard.name} cannot be written: {error}.") from error
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors lets nobody else read
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Brings the metadata of a safetensors file into order: safetensors leaves it to chance."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(length))


def _write_files(conversion: Conversion, folder: Path, with_code: bool) -> None:
    """What stands beside the weights. The root's config, without which nothing loads the folder, comes last."""
    config, processor = conversion.config, conversion.processor
    conversion.generation_config.save_pretrained(folder)
    if conversion.to == "published":
        _write_published_files(config, processor, folder)
        return
    from ..publishing.card import build_card
    from ..publishing.code import write_code

    card = build_card(
        source=conversion.source if conversion.revision else Path(conversion.source),
        revision=conversion.revision,
        with_code=with_code,
        num_parameters=conversion.num_parameters,
        dtype=config.dtype,
    )
    card.save(folder / "README.md")
    processor.save_pretrained(folder)
    config.save_pretrained(folder)
    if with_code:
        write_code(folder)


def _write_published_files(config: OmniVinciConfig, processor, folder: Path) -> None:
    files = published_configs(config, processor)
    for name in [*(name for name in files if name != "config.json"), "config.json"]:
        (folder / name).parent.mkdir(exist_ok=True)
        _write_json(folder / name, files[name])
        if name == "llm/config.json":
            processor.tokenizer.save_pretrained(folder / "llm")


def _write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------------ its verification


def _verify(conversion: Conversion, folder: Path) -> None:
    """
    Compares the result with the source, as both are read from their files.

    Raises:
        ValueError: they differ.
    """
    places = {(folder / shard.name).parent for shard in conversion.shards}
    written = {place: open_folder(place) for place in places}
    with tqdm(total=conversion.num_bytes, unit="B", unit_scale=True, desc="Verifying", disable=None) as progress:
        for shard in conversion.shards:
            stored = written[(folder / shard.name).parent]
            for key, tensor in shard.tensors.items():
                if not _same_bits(tensor.read().to(conversion.dtype), stored[key].read()):
                    raise ValueError(f"The weight {key} in {shard.name} differs from {tensor.key} in {tensor.path}.")
            progress.update(shard.num_bytes)
    before, after = _run(conversion.folder, conversion), _run(folder, conversion)
    # Not to the bit: what kernels do depends on how a file's pages are aligned.
    difference, scale = (before - after).float().abs().max().item(), before.float().abs().max().item()
    if not difference <= TOLERANCE[before.dtype] * scale:
        raise ValueError(f"The logits of source and result differ by up to {difference:.3g}, of {scale:.3g}.")


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(*(tensor.reshape(-1).view(torch.uint8) for tensor in (one, other)))


def _run(folder: Path, conversion: Conversion) -> torch.Tensor:
    """Logits for a prompt with an image, frames and a sound, from the model and the processor of a folder."""
    from ..modeling import OmniVinciForConditionalGeneration
    from ..processing import OmniVinciProcessor

    processor = OmniVinciProcessor.from_pretrained(folder)
    model = OmniVinciForConditionalGeneration.from_pretrained(folder, dtype=conversion.config.dtype)
    ramp = np.arange(2 * 48 * 64 * 3, dtype=np.uint8).reshape(2, 48, 64, 3)
    inputs = processor(
        text=f"{processor.image_token}{processor.video_token}{processor.audio_token}What is this?",
        images=[ramp[0]],
        videos=[(ramp, {"fps": 1.0, "total_num_frames": 2})],
        audio=[np.sin(np.arange(processor.feature_extractor.sampling_rate, dtype=np.float32) / 8)],
        do_sample_frames=False,
        return_tensors="pt",
    )
    with torch.no_grad():
        return model(**inputs.to(model.device, model.dtype), use_cache=False).logits
