"""
Registers OmniVinci with the Auto classes and the pipelines of transformers, without importing either.

Transformers keeps names of classes in its mappings and imports a class when it is asked for. The names of this package
are added to each mapping when the module that holds it is imported, by an import hook, or at once if it already is.
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType

from . import hub_options
from .compat import pipeline_class, require, video_processor_names
from .model_types import MODEL_TYPE, PUBLISHED_MODEL_TYPE
from .nano import NANO

PACKAGE = __name__.rpartition(".")[0]
NAMES = {
    "OmniVinciConfig",
    "OmniVinciForConditionalGeneration",
    "OmniVinciImageProcessor",
    "OmniVinciModel",
    "OmniVinciPreTrainedModel",
    "OmniVinciProcessor",
    "OmniVinciVideoProcessor",
}
"""The classes that transformers is to have by name."""


def _add_names(mapping, names: dict[str, object]):
    """Adds `{model type: class names}` to an auto mapping, and to its reverse if that exists already."""
    require(mapping, "_model_mapping", "_reverse_config_mapping")
    mapping._model_mapping.update(names)
    mapping._reverse_config_mapping.setdefault("OmniVinciConfig", MODEL_TYPE)


def _register_configs(module: ModuleType):
    require(module.CONFIG_MAPPING, "_mapping")
    module.CONFIG_MAPPING._mapping[MODEL_TYPE] = "OmniVinciConfig"
    module.CONFIG_MAPPING._mapping[PUBLISHED_MODEL_TYPE] = "PublishedConfig"
    stock = module.AutoConfig.from_pretrained

    @functools.wraps(stock)
    def from_pretrained(pretrained_model_name_or_path, **kwargs):
        token = hub_options.of_auto_config.set(kwargs)
        try:
            return stock(pretrained_model_name_or_path, **kwargs)
        finally:
            hub_options.of_auto_config.reset(token)

    module.AutoConfig.from_pretrained = staticmethod(from_pretrained)


def _register_models(module: ModuleType):
    for mapping in (
        module.MODEL_MAPPING,
        module.MODEL_FOR_CAUSAL_LM_MAPPING,
        module.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        module.MODEL_FOR_MULTIMODAL_LM_MAPPING,
    ):
        _add_names(mapping, {MODEL_TYPE: "OmniVinciForConditionalGeneration"})


def _read_published(auto_class: type):
    """Lets an Auto class find the processor, or its part of it, of a checkpoint in the published layout."""
    stock = auto_class.from_pretrained

    @functools.wraps(stock)
    def from_pretrained(pretrained_model_name_or_path, *args, **kwargs):
        from .conversion.published_layout import has_published_name

        is_published = functools.partial(has_published_name, pretrained_model_name_or_path, **kwargs)
        if not (os.path.isdir(pretrained_model_name_or_path) and is_published()):
            # Of a repository it is known afterwards.
            try:
                loaded = stock(pretrained_model_name_or_path, *args, **kwargs)
                if not is_published():
                    return loaded
            except (OSError, ValueError, ImportError) as error:
                if isinstance(error.__cause__, OSError) or not is_published():  # of the connection, or the Hub's no
                    raise
        from .conversion.loading import load_published_part

        return load_published_part(auto_class, pretrained_model_name_or_path, **kwargs)

    auto_class.from_pretrained = staticmethod(from_pretrained)


def _register_processors(module: ModuleType):
    _read_published(module.AutoProcessor)
    _add_names(module.PROCESSOR_MAPPING, {MODEL_TYPE: "OmniVinciProcessor", PUBLISHED_MODEL_TYPE: "VILAProcessor"})


def _register_image_processors(module: ModuleType):
    _read_published(module.AutoImageProcessor)
    # One class on torch alone serves whoever asks for either backend.
    classes = dict.fromkeys(("torchvision", "pil"), "OmniVinciImageProcessor")
    _add_names(module.IMAGE_PROCESSOR_MAPPING, {MODEL_TYPE: classes})


def _register_video_processors(module: ModuleType):
    _read_published(module.AutoVideoProcessor)
    _add_names(module.VIDEO_PROCESSOR_MAPPING, {MODEL_TYPE: video_processor_names("OmniVinciVideoProcessor")})


def _register_feature_extractors(module: ModuleType):
    _read_published(module.AutoFeatureExtractor)
    _add_names(module.FEATURE_EXTRACTOR_MAPPING, {MODEL_TYPE: "WhisperFeatureExtractor"})


def _register_tokenizers(module: ModuleType):
    _read_published(module.AutoTokenizer)
    require(module.TOKENIZER_MAPPING, "_reverse_config_mapping")
    module.TOKENIZER_MAPPING_NAMES[MODEL_TYPE] = module.TOKENIZER_MAPPING_NAMES["qwen2"]
    module.TOKENIZER_MAPPING._reverse_config_mapping.setdefault("OmniVinciConfig", MODEL_TYPE)


def _register_pipelines(module: ModuleType):
    from transformers.utils import is_torchvision_available

    tasks = module.SUPPORTED_TASKS
    tasks["video-text-to-text"] = {
        "impl": pipeline_class(f"{PACKAGE}.pipelines.VideoTextToTextPipeline"),
        "pt": tasks["any-to-any"]["pt"],
        "default": {"model": (NANO, "main")},
        "type": "multimodal",
    }
    if not is_torchvision_available():
        # The stock pipeline refuses to see images without torchvision, which OmniVinci does not need.
        tasks["any-to-any"]["impl"] = pipeline_class(f"{PACKAGE}.pipelines.AnyToAnyWithoutTorchvisionPipeline")


def _register_names(module: ModuleType):
    """
    Libraries look a model's class up by its name in transformers itself, as TRL does for its reference models. The
    lookup of all such modules is extended, for transformers makes its own anew while it is imported.
    """
    package, lazy_module = sys.modules[PACKAGE], type(sys.modules[module.__name__])
    stock = lazy_module.__getattr__

    @functools.wraps(stock)
    def find(self, name: str):
        is_ours = name in NAMES and self.__name__ == module.__name__
        return getattr(package, name) if is_ours else stock(self, name)

    lazy_module.__getattr__ = find


REGISTRATIONS: dict[str, Callable[[ModuleType], None]] = {
    "transformers": _register_names,
    "transformers.models.auto.configuration_auto": _register_configs,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.models.auto.processing_auto": _register_processors,
    "transformers.models.auto.image_processing_auto": _register_image_processors,
    "transformers.models.auto.video_processing_auto": _register_video_processors,
    "transformers.models.auto.feature_extraction_auto": _register_feature_extractors,
    "transformers.models.auto.tokenization_auto": _register_tokenizers,
    "transformers.pipelines": _register_pipelines,
}


class _RegisteringLoader(importlib.abc.Loader):
    """Loads a module as its own loader does, then registers what belongs into it."""

    def __init__(self, loader: importlib.abc.Loader):
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec):
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType):
        self.loader.exec_module(module)
        REGISTRATIONS[module.__name__](module)

    def __getattr__(self, name: str):
        return getattr(self.loader, name)


class _RegisteringFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of `REGISTRATIONS` as the other finders do."""

    def find_spec(self, fullname: str, path=None, target=None):
        if fullname not in REGISTRATIONS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


def register(package: ModuleType):
    """Makes `package` the home of OmniVinci's classes for transformers. Does nothing the second time."""
    for model_type in (MODEL_TYPE, PUBLISHED_MODEL_TYPE):
        sys.modules.setdefault(f"transformers.models.{model_type}", package)
    if any(isinstance(finder, _RegisteringFinder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _RegisteringFinder())
    for name, add in REGISTRATIONS.items():
        if name in sys.modules:
            add(sys.modules[name])
