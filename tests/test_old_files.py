"""What the package wrote before its redesign still loads; `fixtures/written-before/README.md` says how it was made."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

from transformers_omnivinci import OmniVinciConfig, OmniVinciForConditionalGeneration, OmniVinciProcessor
from transformers_omnivinci.publishing.code import write_code
from transformers_omnivinci.sequence_settings import SEQUENCE_SETTINGS

from .conftest import CLIP, PARITY

pytestmark = pytest.mark.compat

BEFORE = PARITY.parent / "written-before"
CHECKPOINTS = {
    "settings": "published-tiny-short-groups",
    "settings-of-the-sequence": "published-tiny-maxpool",
    "with-code": "published-tiny",
}
"""The checkpoints that the folders were made of."""

OPTIONS = {
    "settings-of-the-sequence": {
        "group_duration": 5.0,
        "interleave_audio_in_video": False,
        "video_end_tokens": "\n",
    }
}
"""What the processors were loaded with before they were saved."""


@pytest.fixture(scope="module")
def today(load_checkpoint, tmp_path_factory):
    """The same folders, written now."""
    root = tmp_path_factory.mktemp("today")
    for name, checkpoint in CHECKPOINTS.items():
        load_checkpoint(checkpoint)[0].save_pretrained(root / name)
        AutoProcessor.from_pretrained(PARITY / checkpoint, **OPTIONS.get(name, {})).save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def before(today, tmp_path_factory):
    """The folders as they were, with the weights and the tokenizer of today."""
    root = tmp_path_factory.mktemp("before")
    for name in CHECKPOINTS:
        shutil.copytree(today / name, root / name)
        shutil.copytree(BEFORE / name, root / name, dirs_exist_ok=True)
    return root


def own(settings: dict) -> dict:
    """The settings that are this package's alone; those of the parts of transformers are of its version."""
    foreign = {*SEQUENCE_SETTINGS, "auto_map", "custom_pipelines", "transformers_version", "_name_or_path"}
    return {name: value for name, value in settings.items() if name not in foreign and not isinstance(value, dict)}


@pytest.mark.parametrize("load", [OmniVinciConfig.from_pretrained, AutoConfig.from_pretrained])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_config_has_the_same_values(name, load, before, today):
    config = load(before / name)
    assert type(config) is OmniVinciConfig
    now = config.to_dict()
    assert own(json.loads((before / name / "config.json").read_text())).items() <= own(now).items()
    assert now | {"_name_or_path": None} == load(today / name).to_dict() | {"_name_or_path": None}


@pytest.mark.parametrize("load", [OmniVinciProcessor.from_pretrained, AutoProcessor.from_pretrained])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_processor_has_the_same_values(name, load, before, today):
    processor = load(before / name)
    assert type(processor) is OmniVinciProcessor
    saved = json.loads((before / name / "processor_config.json").read_text())
    now, expected = (json.loads(one.to_json_string()) for one in (processor, load(today / name)))
    assert {setting: saved[setting] for setting in SEQUENCE_SETTINGS}.items() <= now.items()
    assert own(saved).items() <= own(now).items()
    for part in ("image_processor", "video_processor"):
        assert own(saved[part]).items() <= own(now[part]).items()
    assert now == expected


def test_the_model_never_read_the_settings_of_the_sequence(before):
    """The processor has those that it was saved with, whatever the config says."""
    folder = before / "settings-of-the-sequence"
    assert json.loads((folder / "config.json").read_text())["group_duration"] == 30
    processor = AutoProcessor.from_pretrained(folder)
    assert {name: getattr(processor, name) for name in OPTIONS[folder.name]} == OPTIONS[folder.name]


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_model_and_processor_compute_the_same(name, before, today):
    chat = [{"role": "user", "content": [{"type": "video", "path": CLIP}, {"type": "text", "text": "What?"}]}]
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}

    def compute(folder):
        model, processor = (cls.from_pretrained(folder) for cls in (AutoModel, AutoProcessor))
        assert type(model) is OmniVinciForConditionalGeneration
        inputs = processor.apply_chat_template(chat, num_frames=4, **options)
        with torch.no_grad():
            return inputs, model(**inputs).logits

    (inputs, logits), (expected_inputs, expected_logits) = compute(before / name), compute(today / name)
    assert inputs.keys() == expected_inputs.keys() and "input_features" in inputs
    for key in inputs:
        assert torch.equal(inputs[key], expected_inputs[key]), key
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=1e-5)


def test_the_package_is_taken_before_code_that_a_repository_names(before):
    """The folder has none of the files that its configs name: what read them would fail."""
    folder = before / "with-code"
    assert "auto_map" in json.loads((folder / "config.json").read_text()) and not list(folder.glob("*.py"))
    for options in ({}, {"trust_remote_code": True}, {"trust_remote_code": False}):
        assert type(AutoConfig.from_pretrained(folder, **options)) is OmniVinciConfig
        assert type(AutoModel.from_pretrained(folder, **options)) is OmniVinciForConditionalGeneration
        assert type(AutoProcessor.from_pretrained(folder, **options)) is OmniVinciProcessor


@pytest.mark.slow
def test_new_code_is_written_over_a_repository_with_code(before, tmp_path):
    shutil.copytree(before / "with-code", tmp_path, dirs_exist_ok=True)
    write_code(tmp_path)
    for name in ("config.json", "processor_config.json"):
        then, now = (json.loads((folder / name).read_text()) for folder in (before / "with-code", tmp_path))
        assert now["auto_map"] == then["auto_map"]
        assert now.get("custom_pipelines") == then.get("custom_pipelines")
        modules = {reference.split(".")[0] for reference in now["auto_map"].values()}
        assert all((tmp_path / f"{module}.py").is_file() for module in modules)


def test_media_are_still_found_where_they_were():
    from transformers_omnivinci import media
    from transformers_omnivinci.processing import media as before

    assert {name: getattr(before, name) for name in media.__all__} == {
        name: getattr(media, name) for name in media.__all__
    }
