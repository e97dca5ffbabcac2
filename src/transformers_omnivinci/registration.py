"""
Registers OmniVinci with the Auto classes and the pipelines of transformers, without importing either.

The Auto classes' own `register` takes classes. If `import transformers_omnivinci` called it, it would import torch,
transformers and the model, and so would `omnivinci --help`: 5.3 s instead of 0.08 s (medians of five runs on two CPU
cores, transformers 5.23). So names go into transformers' public tables (`MODEL_MAPPING_NAMES` and the like) as soon as
the module that holds them is imported, of which an import hook on `sys.meta_path` tells, and a class is imported when
it is asked for. Where transformers was imported first, its mappings have read those tables: there `register` is
called, at 0.2 s for the classes.

Three things have no public counterpart. `from_pretrained` of the Auto classes is replaced for checkpoints in
registered formats: config classes are not told the token, revision and cache of the call, with which their other files
are to be read, and the Auto classes of processors and their parts refuse a folder without their own file before they
look for a registered class. The lookup of names in `transformers` is extended, because libraries take a model's class
from there by its name, as TRL does for its reference models. And the pipeline is entered into the table of tasks,
because `PIPELINE_REGISTRY.register_pipeline` makes `save_pretrained` of a pipeline write code.
"""

import functools
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable
from types import ModuleType

from .checkpoint_formats import MODEL_TYPE, is_registered, load_registered, registered_formats
from .compat import pipeline_class, require, video_processor_names
from .nano import NANO

PACKAGE = __name__.rpartition(".")[0]
MODEL = "OmniVinciForConditionalGeneration"
NAMES = {
    *(MODEL, "OmniVinciModel", "OmniVinciPreTrainedModel", "OmniVinciConfig"),
    *("OmniVinciProcessor", "OmniVinciImageProcessor", "OmniVinciVideoProcessor"),
}
"""The classes that transformers is to have by name."""

# The Auto classes: the module and the table of names of each, and the class that it finds for OmniVinci.
AUTO_TABLES = (
    ("AutoConfig", "configuration", "CONFIG", "OmniVinciConfig"),
    ("AutoModel", "modeling", "MODEL", MODEL),
    ("AutoModelForCausalLM", "modeling", "MODEL_FOR_CAUSAL_LM", MODEL),
    ("AutoModelForImageTextToText", "modeling", "MODEL_FOR_IMAGE_TEXT_TO_TEXT", MODEL),
    ("AutoModelForMultimodalLM", "modeling", "MODEL_FOR_MULTIMODAL_LM", MODEL),
    ("AutoProcessor", "processing", "PROCESSOR", "OmniVinciProcessor"),
    ("AutoImageProcessor", "image_processing", "IMAGE_PROCESSOR", "OmniVinciImageProcessor"),
    ("AutoVideoProcessor", "video_processing", "VIDEO_PROCESSOR", "OmniVinciVideoProcessor"),
    ("AutoFeatureExtractor", "feature_extraction", "FEATURE_EXTRACTOR", "WhisperFeatureExtractor"),
    ("AutoTokenizer", "tokenization", "TOKENIZER", "Qwen2Tokenizer"),
)
AUTO_CLASSES = {
    auto_name: (f"transformers.models.auto.{module}_auto", f"{table}_MAPPING_NAMES", name)
    for auto_name, module, table, name in AUTO_TABLES
}
CONFIGS, MODELS = AUTO_CLASSES["AutoConfig"][0], AUTO_CLASSES["AutoModel"][0]
IMAGE_BACKENDS = ("torchvision", "pil")
"""One class on torch alone serves whoever asks for either."""


def _register_auto(module: ModuleType):
    """Adds the names to the tables of a module, and lets its Auto classes ask the registered formats."""
    for auto_name, (home, table, name) in AUTO_CLASSES.items():
        if home != module.__name__:
            continue
        require(module, auto_name, table)
        names = getattr(module, table)
        images, videos = dict.fromkeys(IMAGE_BACKENDS, name), video_processor_names(name)
        names[MODEL_TYPE] = {"AutoImageProcessor": images, "AutoVideoProcessor": videos}.get(auto_name, name)
        if auto_name == "AutoConfig":
            names.update({known.model_type: known.config_class for known in registered_formats()})
        if auto_name == "AutoProcessor":
            names.update({known.model_type: known.processor_class for known in registered_formats()})
        if home != MODELS:  # they find theirs by the config
            _ask_formats(getattr(module, auto_name))


def _register_class(auto_class: type, name: str):
    """Hands a class of this package, or of transformers, to an Auto class whose mapping has read its table."""
    package = sys.modules[PACKAGE]
    found = getattr(package if name in NAMES else sys.modules["transformers"], name)
    by_backend = {"image_processor_classes": dict.fromkeys(IMAGE_BACKENDS, found)}
    arguments = ([], by_backend) if auto_class.__name__ == "AutoImageProcessor" else ([found], {})
    auto_class.register(package.OmniVinciConfig, *arguments[0], **arguments[1], exist_ok=True)


def _ask_formats(auto_class: type):
    """Lets an Auto class load the config, the processor or its part of it, of a checkpoint in a registered format."""
    stock = auto_class.from_pretrained

    @functools.wraps(stock)
    def from_pretrained(pretrained_model_name_or_path, *args, **kwargs):
        if kwargs.get("subfolder"):  # a component, in a format of transformers
            return stock(pretrained_model_name_or_path, *args, **kwargs)
        is_ours = functools.partial(is_registered, pretrained_model_name_or_path, **kwargs)
        if not (os.path.isdir(pretrained_model_name_or_path) and is_ours()):
            # Of a repository it is known afterwards.
            try:
                loaded = stock(pretrained_model_name_or_path, *args, **kwargs)
                if not is_ours():
                    return loaded
            except (OSError, ValueError, ImportError) as error:
                if isinstance(error.__cause__, OSError) or not is_ours():  # of the connection, or the Hub's no
                    raise
        return load_registered("part", auto_class, pretrained_model_name_or_path, **kwargs)

    auto_class.from_pretrained = staticmethod(from_pretrained)


def _register_pipelines(module: ModuleType):
    from transformers.utils import is_torchvision_available

    # Each in a module of its own, for the folder may be what is being imported.
    folder, tasks = f"{PACKAGE}.pipelines", module.SUPPORTED_TASKS
    tasks["video-text-to-text"] = {
        "impl": pipeline_class(f"{folder}.video_text_to_text.VideoTextToTextPipeline"),
        "pt": tasks["any-to-any"]["pt"],
        "default": {"model": (NANO, "main")},
        "type": "multimodal",
    }
    if not is_torchvision_available():
        # The stock pipeline refuses to see images without torchvision, which OmniVinci does not need.
        tasks["any-to-any"]["impl"] = pipeline_class(f"{folder}.any_to_any.AnyToAnyWithoutTorchvisionPipeline")


def _register_names(module: ModuleType):
    """Extends the lookup of all modules of this kind, for transformers makes its own anew while it is imported."""
    package, lazy_module = sys.modules[PACKAGE], type(sys.modules[module.__name__])
    stock = lazy_module.__getattr__

    @functools.wraps(stock)
    def find(self, name: str):
        is_ours = name in NAMES and self.__name__ == module.__name__
        return getattr(package, name) if is_ours else stock(self, name)

    lazy_module.__getattr__ = find


REGISTRATIONS: dict[str, Callable[[ModuleType], None]] = {
    "transformers": _register_names,
    **{home: _register_auto for home, *_ in AUTO_CLASSES.values()},
    "transformers.pipelines": _register_pipelines,
}


class _RegisteringFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of `REGISTRATIONS` as the other finders do. Once executed, they get what belongs into them."""

    def find_spec(self, fullname: str, path=None, target=None):
        if fullname not in REGISTRATIONS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType):
                execute(module)
                REGISTRATIONS[fullname](module)

            spec.loader.exec_module = exec_module
        return spec


def register(package: ModuleType):
    """Makes `package` the home of OmniVinci's classes for transformers. Does nothing the second time."""
    for model_type in (MODEL_TYPE, *(known.model_type for known in registered_formats())):
        sys.modules.setdefault(f"transformers.models.{model_type}", package)
    if any(isinstance(finder, _RegisteringFinder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _RegisteringFinder())
    imported = REGISTRATIONS.keys() & sys.modules.keys()
    for name in imported:
        REGISTRATIONS[name](sys.modules[name])
    for auto_name, (home, _, name) in AUTO_CLASSES.items():
        if home in imported and home != CONFIGS:  # which looks into its table every time
            _register_class(getattr(sys.modules[home], auto_name), name)
