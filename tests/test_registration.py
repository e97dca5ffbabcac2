"""Importing the package makes transformers know it, in whatever order things are imported."""

import subprocess
import sys

import pytest

from .conftest import CLIP, PARITY

CHECKPOINT = str(PARITY / "published-tiny")


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.compat
def test_nothing_needs_torchvision_torchaudio_or_torchcodec():
    code = f"""
import sys
for name in ("torchvision", "torchaudio", "torchcodec"):
    sys.modules[name] = None
import transformers_omnivinci
from transformers import AutoModel, AutoProcessor
processor = AutoProcessor.from_pretrained({CHECKPOINT!r})
model = AutoModel.from_pretrained({CHECKPOINT!r})
chat = [{{"role": "user", "content": [{{"type": "video", "path": {CLIP!r}}}]}}]
inputs = processor.apply_chat_template(
    chat, tokenize=True, return_dict=True, load_audio_from_video=True, num_frames=2, return_tensors="pt"
)
print(model.generate(**inputs, max_new_tokens=2).shape[0])
"""
    assert run(code).splitlines()[-1] == "1"


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param(
            "import transformers_omnivinci; from transformers import AutoConfig, AutoModel, AutoProcessor",
            marks=pytest.mark.compat,
        ),
        "from transformers import AutoConfig, AutoModel, AutoProcessor; import transformers_omnivinci",
        "from transformers import AutoProcessor; import transformers_omnivinci; from transformers import AutoConfig",
    ],
)
def test_order_of_imports_does_not_matter(imports):
    code = f"""
{imports}
from transformers import AutoModelForImageTextToText, pipeline
from transformers.pipelines import PIPELINE_REGISTRY
print(type(AutoConfig.from_pretrained({CHECKPOINT!r})).__name__)
print(type(AutoProcessor.from_pretrained({CHECKPOINT!r})).__name__)
print(type(AutoModelForImageTextToText.from_pretrained({CHECKPOINT!r})).__name__)
print("video-text-to-text" in PIPELINE_REGISTRY.get_supported_tasks())
"""
    assert run(code).splitlines() == [
        "OmniVinciConfig",
        "OmniVinciProcessor",
        "OmniVinciForConditionalGeneration",
        "True",
    ]


@pytest.mark.parametrize(
    "imports",
    [
        "import transformers_omnivinci; import transformers.models.auto as auto",
        "import transformers.models.auto as auto; auto.AutoModel, auto.AutoProcessor; import transformers_omnivinci",
    ],
)
def test_mappings_know_every_class(imports):
    code = f"""
{imports}
from transformers.models.auto import (
    feature_extraction_auto, image_processing_auto, modeling_auto, processing_auto, tokenization_auto,
    video_processing_auto,
)
mappings = [
    modeling_auto.MODEL_MAPPING, modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
    modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING,
    processing_auto.PROCESSOR_MAPPING, image_processing_auto.IMAGE_PROCESSOR_MAPPING,
    video_processing_auto.VIDEO_PROCESSOR_MAPPING, feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING,
    tokenization_auto.TOKENIZER_MAPPING,
]
config_class = auto.AutoConfig.for_model("omnivinci").__class__
for mapping in mappings:
    found = mapping[config_class]
    classes = set(found.values()) if isinstance(found, dict) else {{found}}
    print(*(one.__name__ for one in classes))
print("omnivinci" in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
"""
    assert run(code).splitlines() == [
        *["OmniVinciForConditionalGeneration"] * 4,
        "OmniVinciProcessor",
        "OmniVinciImageProcessor",
        "OmniVinciVideoProcessor",
        "WhisperFeatureExtractor",
        "Qwen2Tokenizer",
        "True",
    ]


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param("import transformers_omnivinci, transformers", marks=pytest.mark.compat),
        # Transformers makes its module anew in between.
        "import transformers; transformers.ProcessorMixin; import transformers_omnivinci",
    ],
)
def test_classes_are_found_by_name_in_transformers(imports):
    code = f"""
{imports}
from transformers import OmniVinciProcessor
print(transformers.OmniVinciForConditionalGeneration.__module__, OmniVinciProcessor.__name__)
print(hasattr(transformers, "OmniNada"), hasattr(transformers.models, "OmniVinciProcessor"))
"""
    assert run(code).splitlines() == [
        "transformers_omnivinci.modeling.modeling_omnivinci OmniVinciProcessor",
        "False False",
    ]


def test_unknown_names_are_attribute_errors():
    import transformers_omnivinci

    assert "OmniVinciProcessor" in dir(transformers_omnivinci)
    with pytest.raises(AttributeError, match="OmniNada"):
        transformers_omnivinci.OmniNada  # noqa: B018
