"""Loading of checkpoints in the published layout, as `from_pretrained` and the Auto classes do."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, WhisperFeatureExtractor
from transformers.configuration_utils import PreTrainedConfig
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.integrations.peft import maybe_load_adapters

from ..checkpoint_formats import PUBLISHED_MODEL_TYPE
from ..configuration_omnivinci import OmniVinciConfig
from ..hub_options import HUB_OPTIONS, LOADER_OPTIONS
from ..sequence_settings import SEQUENCE_SETTINGS
from .published_layout import COMPONENTS, published_folder
from .settings import convert_config
from .weights import check_weights, from_published, open_published


class PublishedConfig(PreTrainedConfig):
    """What `AutoConfig` finds for the published `model_type`; it gives an [`OmniVinciConfig`]."""

    model_type = PUBLISHED_MODEL_TYPE

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """As that of [`OmniVinciConfig`]."""
        return OmniVinciConfig.from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """Raises an `OSError`: the settings of this layout stand in several files."""
        name_or_path = kwargs.get("name_or_path") or config_dict.get("_name_or_path", "")
        raise OSError(f"{str(name_or_path)!r} is not a checkpoint in the published layout.")


class VILAProcessor:
    """The processor class that published repositories name; it gives an [`OmniVinciProcessor`]."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """As that of [`OmniVinciProcessor`]."""
        from ..processing import OmniVinciProcessor

        return OmniVinciProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)


def load_config(config_class: type, name_or_path, /, **kwargs):
    """The config of a checkpoint in the published layout; `None` for any other."""
    folder = published_folder(name_or_path, weights=False, **kwargs)
    if folder is None:
        return None
    _, overrides = config_class.get_config_dict(folder, **kwargs)  # without how the Hub is asked
    settings = convert_config(folder)[0].to_dict()
    return config_class.from_dict(settings, **{"name_or_path": str(name_or_path), **overrides})


def load_processor(processor_class: type, name_or_path, /, **kwargs):
    """
    The processor of a checkpoint in the published layout; `None` for any other. Options other than how the Hub is
    asked are given to `from_pretrained` of a folder that it has been saved in.
    """
    folder = published_folder(name_or_path, weights=False, **kwargs)
    if folder is None:
        return None
    processor = _make_processor(processor_class, folder)
    if kwargs.keys() <= LOADER_OPTIONS:
        return processor
    # Whoever asked for it refuses what is unused.
    processor, _ = _load_saved(processor_class.from_pretrained, processor, return_unused_kwargs=True, **kwargs)
    processor.tokenizer.name_or_path = str(folder / "llm")
    return processor


def load_part(auto_class: type, name_or_path, /, **kwargs):
    """
    What an Auto class, such as `AutoTokenizer`, loads of a checkpoint in the published layout: the config or the
    processor; or a part of the processor, as from a folder that it has been saved in. `None` for another layout.
    """
    from ..processing import OmniVinciProcessor

    whole = {"AutoConfig": OmniVinciConfig, "AutoProcessor": OmniVinciProcessor}.get(auto_class.__name__)
    if whole is not None:
        own = {name: kwargs[name] for name in kwargs if name not in ("config", "trust_remote_code", "code_revision")}
        return whole.from_pretrained(name_or_path, **own)
    folder = published_folder(name_or_path, weights=False, **kwargs)
    if folder is None:
        return None
    part = _load_saved(auto_class.from_pretrained, _make_processor(OmniVinciProcessor, folder), **kwargs)
    if isinstance(part, PreTrainedTokenizerBase):
        part.name_or_path = str(folder / "llm")
    return part


def _load_saved(load: Callable, processor, **kwargs):
    """What `load` gives for a folder that the processor is saved in."""
    with TemporaryDirectory() as saved:
        processor.save_pretrained(saved)
        return load(saved, **{name: value for name, value in kwargs.items() if name not in HUB_OPTIONS})


def _make_processor(processor_class: type, folder: Path):
    from ..processing import OmniVinciImageProcessor, OmniVinciVideoProcessor

    config, options = convert_config(folder)
    pixel_options, tile = options["pixel_options"], config.s2_scales[0]
    size = {"height": tile, "width": tile}
    return processor_class(
        OmniVinciImageProcessor(s2_scales=config.s2_scales, max_tiles=options["max_tiles"], **pixel_options),
        OmniVinciVideoProcessor(size=size, num_frames=options["num_frames"], **pixel_options),
        WhisperFeatureExtractor(
            feature_size=config.audio_config.num_mel_bins,
            sampling_rate=options["sampling_rate"],
            hop_length=options["hop_length"],
            padding_side="left",  # the tokenizer's, or stock pipelines refuse batches
        ),
        AutoTokenizer.from_pretrained(folder / "llm", padding_side="left"),
        **options["own"],
        **processor_class.settings_of(config),
    )


def load_model(model_class: type, name_or_path, /, *model_args, config=None, **kwargs):
    """
    A model from a checkpoint in the published layout, or from a PEFT adapter of one; `None` for any other. The model
    is made on the meta device, and each weight is read from its memory-mapped file when it is placed.

    Raises:
        OSError: a component or a file of it is missing or damaged.
        ValueError: weights are missing, unexpected or of another shape; the message lists them.
    """
    adapter, name_or_path, adapter_kwargs = maybe_load_adapters(
        name_or_path,
        {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs},
        **(kwargs.pop("adapter_kwargs", None) or {}),
    )
    adapter_name = kwargs.pop("adapter_name", "default")
    folder = published_folder(name_or_path, weights=True, **kwargs)
    if folder is None:
        return None
    if not isinstance(config, OmniVinciConfig):
        known = {field.name for field in fields(OmniVinciConfig)} - {"dtype"} | {*SEQUENCE_SETTINGS}  # to be refused
        overrides = {name: kwargs.pop(name) for name in known & kwargs.keys()}
        config = OmniVinciConfig.from_dict(convert_config(folder)[0].to_dict(), **overrides)
    weights = check_weights(model_class, config, open_published(folder, config), may_lack=("omni_align_net",))
    for name in (*HUB_OPTIONS, "subfolder", "_from_auto", "use_safetensors"):
        kwargs.pop(name, None)
    dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None)) or config.dtype  # where AutoModel may have put it
    # ZeRO-3 copies whole tensors, and only the first process does: they are mapped into memory, not read.
    state_dict = {
        name: weight.read() if is_deepspeed_zero3_enabled() else weight.slice for name, weight in weights.items()
    }
    if config.tie_word_embeddings and model_class.can_generate() and "offload_folder" in kwargs:
        # On disk the head is looked for under its own name.
        state_dict["lm_head.weight"] = state_dict["model.language_model.embed_tokens.weight"]
    if dtype in (None, "auto"):
        dtype = next(weight.dtype for name, weight in weights.items() if "language_model." in name)
    model = model_class.from_pretrained(None, *model_args, config=config, state_dict=state_dict, dtype=dtype, **kwargs)
    loaded = model[0] if isinstance(model, tuple) else model
    loaded.name_or_path = loaded.config.name_or_path = str(name_or_path)
    if adapter is not None:
        loaded.load_adapter(adapter, adapter_name, adapter_kwargs=adapter_kwargs)
    if loaded.can_generate():
        loaded.generation_config = published_generation_config(folder, loaded.generation_config)
    return model


def weight_folders() -> tuple[str, ...]:
    """The folders of a checkpoint that hold its weights."""
    return COMPONENTS


def weight_name(folder: str, key: str, config: OmniVinciConfig) -> str | None:
    """What the model calls the weight `key` of a folder; `None` for one that it does not read."""
    return from_published(folder, key, config)


def published_generation_config(folder: Path, default: GenerationConfig) -> GenerationConfig:
    """The one of the root, else that of the language model, else `default`; with the padding of the tokenizer."""
    for place in (folder, folder / "llm"):
        if (place / "generation_config.json").is_file():
            default = GenerationConfig.from_pretrained(place)
            break
    if default.pad_token_id is None:
        default.pad_token_id = AutoTokenizer.from_pretrained(folder / "llm").pad_token_id
    return default
