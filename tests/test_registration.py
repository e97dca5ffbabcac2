"""Importing the package makes transformers know it, in whatever order things are imported."""

import json

import pytest

from .conftest import CLIP, PARITY
from .processes import run_python

CHECKPOINT = str(PARITY / "published-tiny")


def run(code: str) -> str:
    result = run_python(code, CHECKPOINT, CLIP)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.slow
@pytest.mark.compat
def test_nothing_needs_torchvision_torchaudio_or_torchcodec():
    code = """
import sys
for name in ("torchvision", "torchaudio", "torchcodec"):
    sys.modules[name] = None
import transformers_omnivinci
from transformers import AutoModel, AutoProcessor
processor = AutoProcessor.from_pretrained(sys.argv[1])
model = AutoModel.from_pretrained(sys.argv[1])
chat = [{"role": "user", "content": [{"type": "video", "path": sys.argv[2]}]}]
inputs = processor.apply_chat_template(
    chat, tokenize=True, return_dict=True, load_audio_from_video=True, num_frames=2, return_tensors="pt"
)
print(model.generate(**inputs, max_new_tokens=2).shape[0])
"""
    assert run(code).splitlines()[-1] == "1"


ORDERS = {
    "the package first": (
        "import transformers_omnivinci\nfrom transformers import AutoConfig, AutoModel, AutoProcessor"
    ),
    "the package last": (
        "import transformers.models.auto; from transformers import AutoConfig, AutoModel, AutoProcessor\n"
        "import transformers_omnivinci"
    ),
    # transformers makes its module anew in between.
    "the package between": (
        "from transformers import AutoProcessor, ProcessorMixin; import transformers_omnivinci\n"
        "from transformers import AutoConfig"
    ),
}
TELL = """
import json, transformers
from transformers import AutoModelForImageTextToText, OmniVinciProcessor, pipeline
from transformers.models.auto import (
    feature_extraction_auto, image_processing_auto, modeling_auto, processing_auto, tokenization_auto,
    video_processing_auto,
)
from transformers.pipelines import PIPELINE_REGISTRY
loaded = [one.from_pretrained(sys.argv[1]) for one in (AutoConfig, AutoProcessor, AutoModelForImageTextToText)]
mappings = [
    modeling_auto.MODEL_MAPPING, modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
    modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING,
    processing_auto.PROCESSOR_MAPPING, image_processing_auto.IMAGE_PROCESSOR_MAPPING,
    video_processing_auto.VIDEO_PROCESSOR_MAPPING, feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING,
    tokenization_auto.TOKENIZER_MAPPING,
]
mapped = []
for mapping in mappings:
    found = mapping[AutoConfig.for_model("omnivinci").__class__]
    classes = set(found.values()) if isinstance(found, dict) else {found}
    mapped.append(" ".join(one.__name__ for one in classes))
print(json.dumps({
    "loaded": [type(one).__name__ for one in loaded],
    "has a pipeline": "video-text-to-text" in PIPELINE_REGISTRY.get_supported_tasks(),
    "mapped": mapped,
    "is named": "omnivinci" in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    "found by name": [transformers.OmniVinciForConditionalGeneration.__module__, OmniVinciProcessor.__name__],
    "made up": [hasattr(transformers, "OmniNada"), hasattr(transformers.models, "OmniVinciProcessor")],
}))
"""


@pytest.fixture(scope="module", params=[pytest.param(next(iter(ORDERS)), marks=pytest.mark.compat), *[*ORDERS][1:]])
def told(request):
    """What a process tells that imports in some order."""
    return json.loads(run(f"import sys\n{ORDERS[request.param]}\n{TELL}").splitlines()[-1])


@pytest.mark.slow
def test_order_of_imports_does_not_matter(told):
    assert told["loaded"] == ["OmniVinciConfig", "OmniVinciProcessor", "OmniVinciForConditionalGeneration"]
    assert told["has a pipeline"]


@pytest.mark.slow
def test_mappings_know_every_class(told):
    assert told["mapped"] == [
        *["OmniVinciForConditionalGeneration"] * 4,
        "OmniVinciProcessor",
        "OmniVinciImageProcessor",
        "OmniVinciVideoProcessor",
        "WhisperFeatureExtractor",
        "Qwen2Tokenizer",
    ]
    assert told["is named"]


@pytest.mark.slow
def test_classes_are_found_by_name_in_transformers(told):
    assert told["found by name"] == ["transformers_omnivinci.modeling.modeling_omnivinci", "OmniVinciProcessor"]
    assert told["made up"] == [False, False]


def test_unknown_names_are_attribute_errors():
    import transformers_omnivinci

    assert "OmniVinciProcessor" in dir(transformers_omnivinci)
    with pytest.raises(AttributeError, match="OmniNada"):
        transformers_omnivinci.OmniNada  # noqa: B018
