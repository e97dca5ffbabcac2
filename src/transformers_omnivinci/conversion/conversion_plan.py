"""What a conversion would do, planned from configs and headers of weights alone."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import HfApi
from transformers import AutoConfig, GenerationConfig

from ..checkpoint_formats import MODEL_TYPE, read_json
from ..configuration_omnivinci import OmniVinciConfig
from ..hub_options import download, hub_options, may_be_repository
from ..weight_files import TensorHeader, open_folder, quantization_of
from ..weight_shards import Shard, plan_shards
from .loading import load_processor, published_generation_config
from .published_files import check_can_be_published, published_configs
from .published_layout import COMPONENTS, FILES, WEIGHTS, is_published
from .settings import PublishedSettings, read_settings
from .weights import by_model_names, check_weights, open_published, to_published

LAYOUTS = ("transformers", "published")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""What `dtype` may be called."""


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

        code = code_files() if with_code else ()
        if self.to == "transformers":
            names = ["config.json", "processor_config.json", "chat_template.jinja", "README.md"]
            tokenizer = ["tokenizer.json", "tokenizer_config.json"]
        else:
            names = list(published_configs(self.config, self.processor))
            tokenizer = ["llm/tokenizer.json", "llm/tokenizer_config.json"]
        return [*self.indices, *names, "generation_config.json", *tokenizer, *code]

    @property
    def num_parameters(self) -> int:
        """Parameters of all weights."""
        return sum(tensor.num_parameters for shard in self.shards for tensor in shard.tensors.values())


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
    Reads what a conversion would do, without writing anything. Arguments and errors are those of [`convert`].

    Args:
        headers_only (`bool`, *optional*, defaults to `False`):
            Of a repository, whether only the headers of its weights are downloaded. Such a plan cannot be carried out.
    """
    if to not in LAYOUTS:
        raise ValueError(f"`to={to!r}` is not a layout: {' and '.join(LAYOUTS)} are accepted.")
    if DTYPES.get(dtype, dtype) not in (None, *DTYPES.values()):
        raise ValueError(f"`dtype={dtype!r}` is not supported: {', '.join(DTYPES)} are accepted.")
    dtype = DTYPES.get(dtype, dtype)
    name, commit, folder = _find(source, revision, headers_only, hub)
    if quantization_of(folder) is not None:
        raise ValueError(f"{source} is quantized: a checkpoint with floating-point weights is converted.")
    settings = read_settings(folder) if is_published(folder) else None
    config, processor, generation_config = _read_parts(folder, settings)
    if headers_only and commit is not None:
        weights = _remote_headers(name, commit, hub.get("token"), None if settings is None else config)
    else:
        weights = open_folder(folder) if settings is None else open_published(folder, config)

    from ..modeling import OmniVinciForConditionalGeneration

    weights = check_weights(OmniVinciForConditionalGeneration, config, weights)
    if to == "published":
        check_can_be_published(config, processor)
    text_dtype = next(tensor.dtype for key, tensor in weights.items() if ".language_model." in key)
    for part in (config, config.text_config, config.vision_config, config.audio_config):
        part.dtype = dtype or text_dtype
    config.name_or_path = name
    shards, indices = _plan_shards(weights, to, dtype, max_shard_size)
    return Conversion(name, commit, folder, to, dtype, config, processor, generation_config, settings, shards, indices)


def settings_of(source, revision: str | None = None, **hub) -> PublishedSettings | None:
    """What a source in the published layout says, and what becomes of it; `None` for one in another layout."""
    *_, folder = _find(source, revision, True, hub)
    return read_settings(folder) if is_published(folder) else None


def _find(source, revision: str | None, headers_only: bool, hub: dict) -> tuple[str, str | None, Path]:
    """The name, commit and folder of a source; with `headers_only`, that of a repository is without weights."""
    if os.path.isdir(source):
        if revision is not None:
            raise ValueError(f"`revision={revision!r}` is for repositories of the Hub, but {source} is a folder.")
        folder = Path(source)
        if not (folder / "config.json").is_file():
            raise OSError(f"{folder} has no config.json: a folder of a checkpoint is accepted.")
        return folder.resolve().name, None, folder
    source = str(source)
    if not may_be_repository(source):
        raise OSError(f"There is no folder {source!r}: a folder is accepted, or a repository such as owner/name.")
    options = hub_options({**hub, "revision": revision})
    folder = download(source, ["config.json"], **options)
    if not (folder / "config.json").is_file():
        raise OSError(f"The repository {source!r} has no config.json, so it holds no checkpoint.")
    options["revision"] = folder.name  # the commit: all that follows is of the same one
    patterns, weights = ["*.json", "*.jinja", "merges.txt"], ["*.safetensors"]
    if is_published(folder):
        patterns, weights = FILES, WEIGHTS
    download(source, patterns if headers_only else patterns + weights, **options)
    return source, folder.name, folder


def _remote_headers(repo_id: str, revision: str, token, config: OmniVinciConfig | None) -> dict[str, TensorHeader]:
    """The weights of a repository as the headers of its files tell; a `config` is of the published layout."""
    api, keys = HfApi(token=token), {folder: {} for folder in (COMPONENTS if config else ("",))}
    for path in api.list_repo_files(repo_id, revision=revision):
        folder, _, name = path.rpartition("/")
        if folder in keys and name.endswith(".safetensors"):
            header = api.parse_safetensors_file_metadata(repo_id, path, revision=revision)
            keys[folder] |= {
                key: TensorHeader(Path(path), key, tuple(tensor.shape), tensor.dtype)
                for key, tensor in header.tensors.items()
            }
    return by_model_names(keys, config) if config else keys[""]


def _read_parts(folder: Path, settings: PublishedSettings | None):
    """The config, processor and generation config of a checkpoint."""
    from ..processing import OmniVinciProcessor

    if settings is not None:
        config, processor = settings.config, load_processor(OmniVinciProcessor, folder)
        generation_config = published_generation_config(folder, GenerationConfig.from_model_config(config))
    else:
        model_type = read_json(folder / "config.json").get("model_type")
        if model_type != MODEL_TYPE:
            raise ValueError(f"{folder} holds a model of type {model_type!r}: a checkpoint of OmniVinci is accepted.")
        config, processor = AutoConfig.from_pretrained(folder), OmniVinciProcessor.from_pretrained(folder)
        generation_config = GenerationConfig.from_model_config(config)
        if (folder / "generation_config.json").is_file():
            generation_config = GenerationConfig.from_pretrained(folder)
    for leftover in ("is_local", "local_files_only", "name_or_path"):  # of where the tokenizer was found
        processor.tokenizer.init_kwargs.pop(leftover, None)
    return config, processor, generation_config


def _plan_shards(weights: dict, to: str, dtype, max_shard_size) -> tuple[list[Shard], dict[str, dict]]:
    """The files with weights, and the indices of folders with several of them."""
    folders: dict[str, dict[str, TensorHeader]] = {}
    for name, tensor in weights.items():
        component, key = to_published(name) if to == "published" else ("", name)
        folders.setdefault(component, {})[key] = tensor
    shards, indices = [], {}
    for component, tensors in folders.items():
        of_folder, index = plan_shards(tensors, dtype, max_shard_size, component)
        shards += of_folder
        indices |= index
    return shards, indices
