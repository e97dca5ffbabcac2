"""LLaMA-Factory trains nano by its own commands, on what this package trains on, and this package loads the result."""

import json
import re
import sys
from copy import deepcopy

import pytest
import torch
from peft import PeftModel

from engines.llamafactory import STAND_INS
from engines.tuning import (
    ANSWER,
    answers_of,
    are_taught,
    assert_same,
    changed_parts,
    expected_batch,
    make_rows,
    mixed_rows,
    read_lines,
    run_command,
    taught_rows,
    write_lines,
)
from transformers_omnivinci import NANO, OmniVinciForConditionalGeneration
from transformers_omnivinci.integrations import llamafactory as plugin

plugin.register()

from llamafactory.data import get_template_and_fix_tokenizer  # noqa: E402
from llamafactory.data.collator import SFTDataCollatorWith4DAttentionMask  # noqa: E402
from llamafactory.data.processor import PackedSupervisedDatasetProcessor, SupervisedDatasetProcessor  # noqa: E402
from llamafactory.hparams import DataArguments, ModelArguments  # noqa: E402
from llamafactory.model import load_tokenizer  # noqa: E402

TRAIN = {
    "model_name_or_path": str(NANO),
    "template": "omnivinci",
    "stage": "sft",
    "do_train": True,
    "dataset": "world",
    "cutoff_len": 4096,
    "max_steps": 12,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
    "report_to": "none",
}


class Framework:
    """What the framework makes of rows, as its command does."""

    def __init__(self, **arguments):
        self.arguments = DataArguments(template="omnivinci", cutoff_len=4096, **arguments)
        self.loaded = load_tokenizer(ModelArguments(model_name_or_path=str(NANO)))
        self.template = get_template_and_fix_tokenizer(self.loaded["tokenizer"], self.arguments)

    @property
    def processor(self):
        return self.loaded["processor"]

    def encode(self, rows: list[dict]) -> list[dict]:
        kind = PackedSupervisedDatasetProcessor if self.arguments.packing else SupervisedDatasetProcessor
        columns = {f"_{name}": [] for name in ("prompt", "response", "system", "tools", "images", "videos", "audios")}
        for row in deepcopy(rows):
            messages = row["messages"]
            system = messages.pop(0)["content"] if messages[0]["role"] == "system" else ""
            values = {"prompt": messages[:-1], "response": messages[-1:], "system": system, "tools": ""}
            for name in columns:
                columns[name].append(values.get(name[1:], row.get(name[1:]) or None))
        encoded = kind(template=self.template, data_args=self.arguments, **self.loaded).preprocess_dataset(columns)
        return [dict(zip(encoded, values)) for values in zip(*encoded.values())]

    def collate(self, encoded: list[dict], **options) -> dict:
        collator = SFTDataCollatorWith4DAttentionMask(template=self.template, **options, **self.loaded)
        return dict(collator(encoded))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return make_rows(tmp_path_factory.mktemp("world"))


@pytest.fixture
def framework():
    return Framework()


@pytest.fixture(scope="module")
def taught(rows, tmp_path_factory):
    """A folder with a data set about clips with sound and sounds, with an answer that nano does not give."""
    folder = tmp_path_factory.mktemp("data")
    taught = taught_rows(rows["video"] + rows["audio"][:4])
    write_data(folder, taught)
    assert ANSWER not in answers_of(OmniVinciForConditionalGeneration.from_pretrained(NANO), taught[:4])
    return folder


def write_data(folder, rows):
    """A data set named `world`, described as in docs/training.md."""
    write_lines(folder / "rows.jsonl", rows)
    described = {
        "file_name": "rows.jsonl",
        "formatting": "sharegpt",
        "columns": {name: name for name in ("messages", "images", "videos", "audios")},
        "tags": {
            **{"role_tag": "role", "content_tag": "content"},
            **{f"{role}_tag": role for role in ("user", "assistant", "system")},
        },
    }
    (folder / "dataset_info.json").write_text(json.dumps({"world": described}))


def run(command, folder, succeeds=True, **settings):
    """Runs a command of the framework, with a configuration."""
    path = folder / "config.yaml"
    path.write_text(json.dumps(settings))
    words = (sys.executable, "-m", "transformers_omnivinci.integrations.llamafactory", command, path)
    return run_command(*words, succeeds=succeeds, PYTHONPATH=str(STAND_INS))


@pytest.mark.parametrize("kind", ["video", "image", "audio", "mixed"])
def test_a_batch_is_what_this_package_trains_on(framework, rows, kind):
    batch = mixed_rows(rows) if kind == "mixed" else rows[kind][:4]
    assert_same(framework.collate(framework.encode(batch)), expected_batch(batch))


def test_options_come_from_the_environment(framework, rows, monkeypatch):
    batch = rows["video"][:2]
    monkeypatch.setenv("LOAD_AUDIO_FROM_VIDEO", "0")
    monkeypatch.setenv("NUM_FRAMES", "4")
    expected = expected_batch(batch, load_audio_from_video=False, num_frames=4)
    assert_same(framework.collate(framework.encode(batch)), expected)


def test_options_come_from_the_configuration(framework, rows):
    batch = rows["video"][:2]
    framework.processor.use_audio_in_video, framework.processor.video_fps = True, 1.0
    framework.processor.load_audio_from_video = False
    expected = expected_batch(batch, load_audio_from_video=True, fps=1.0)
    assert_same(framework.collate(framework.encode(batch)), expected)


def test_packed_rows_give_the_loss_of_separate_ones(rows):
    batch = rows["video"][:2] + rows["audio"][:2]
    framework = Framework(packing=True, neat_packing=True)
    (packed,) = framework.encode(batch)
    model = OmniVinciForConditionalGeneration.from_pretrained(NANO, attn_implementation="eager")
    together = framework.collate(
        [packed],
        model=model,
        neat_packing=True,
        block_diag_attn=True,
        attn_implementation="eager",
        compute_dtype=torch.float32,
    )
    with torch.no_grad():
        found = model(**together).loss
        expected = model(**expected_batch(batch)).loss
    torch.testing.assert_close(found, expected)


def test_bad_rows_are_named(framework, rows):
    row = {name: rows["video"][0][name] for name in ("messages", "videos")}
    with pytest.raises(ValueError, match=r"The row '<image>Which' .* has 1 <image> .* 0 in `images`"):
        framework.encode([{**row, "messages": [{"role": "user", "content": "<image>Which"}, row["messages"][1]]}])
    with pytest.raises(ValueError, match="nowhere.mp4"):
        framework.encode([{**row, "videos": ["nowhere.mp4"]}])
    with pytest.raises(ValueError, match="holds <sound> in a text"):
        framework.encode([{"messages": [{"role": "user", "content": "<sound>?"}, row["messages"][1]]}])


def test_rows_that_were_cut_are_named(framework, rows):
    framework.arguments.cutoff_len = 40
    encoded = framework.encode(rows["video"][:1])
    with pytest.raises(ValueError, match=r"The row about .*mp4: The placeholders in a row of 40 tokens"):
        framework.collate(encoded)


def losses_of(folder):
    return [line["loss"] for line in read_lines(folder / "trainer_log.jsonl") if "loss" in line]


def predictions_of(taught, folder, **settings):
    """What the framework answers."""
    settings = TRAIN | {"do_train": False, "do_predict": True, "predict_with_generate": True} | settings
    settings["eval_dataset"] = settings.pop("dataset")
    run(
        "train",
        folder,
        dataset_dir=str(taught),
        do_sample=False,
        max_new_tokens=16,
        output_dir=str(folder),
        **settings,
    )
    return [line["predict"] for line in read_lines(folder / "generated_predictions.jsonl")]


def test_full_training(taught, tmp_path):
    folder = tmp_path / "full"
    settings = TRAIN | {"finetuning_type": "full", "dataset_dir": str(taught), "learning_rate": 1e-3}
    run("train", tmp_path, output_dir=str(folder), **settings)
    losses = losses_of(folder)
    assert len(losses) == 12 and losses[-1] < losses[0] / 5, losses
    model = OmniVinciForConditionalGeneration.from_pretrained(folder)
    changed = changed_parts(model, OmniVinciForConditionalGeneration.from_pretrained(NANO))
    assert {"language_model"} <= changed <= {"language_model", "lm_head"}
    answers = answers_of(model, read_lines(taught / "rows.jsonl"), folder)
    assert are_taught(answers), answers
    (tmp_path / "predicted").mkdir()
    assert predictions_of(taught, tmp_path / "predicted", model_name_or_path=str(folder)) == answers


def test_lora(taught, tmp_path):
    folder, merged = tmp_path / "lora", tmp_path / "merged"
    settings = {"finetuning_type": "lora", "lora_target": "all", "lora_rank": 8, "learning_rate": 1e-2}
    run("train", tmp_path, dataset_dir=str(taught), output_dir=str(folder), **TRAIN, **settings)
    losses = losses_of(folder)
    assert losses[-1] < losses[0] / 5, losses
    base = OmniVinciForConditionalGeneration.from_pretrained(NANO)
    layers = {name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    layers = {name for name in layers if name.startswith("model.language_model.")}
    found = set(json.loads((folder / "adapter_config.json").read_text())["target_modules"])
    assert all(any(layer.endswith(name) for name in found) for layer in layers)
    adapted = PeftModel.from_pretrained(base, str(folder))
    trained = {name.split(".lora_")[0] for name, _ in adapted.named_parameters() if ".lora_" in name}
    assert {name.removeprefix("base_model.model.") for name in trained} == layers
    answers = answers_of(adapted, read_lines(taught / "rows.jsonl"))
    assert are_taught(answers), answers
    run(
        "export",
        tmp_path,
        model_name_or_path=str(NANO),
        adapter_name_or_path=str(folder),
        template="omnivinci",
        export_dir=str(merged),
    )
    model = OmniVinciForConditionalGeneration.from_pretrained(merged)
    assert answers_of(model, read_lines(taught / "rows.jsonl"), merged) == answers


def test_a_bad_row_ends_the_command(rows, tmp_path):
    write_data(tmp_path, [{**row, "videos": []} for row in rows["video"]])
    settings = TRAIN | {"finetuning_type": "full", "dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "run")}
    printed = run("train", tmp_path, succeeds=False, **settings)
    assert re.search(r"ValueError: The row .* has 1 <video> in its messages, but 0 in `videos`", printed)
