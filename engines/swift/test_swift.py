"""ms-swift trains nano by its own commands, on what this package trains on, and this package loads the result."""

import json
import math
import re
from copy import deepcopy

import pytest
import torch
from peft import PeftModel
from swift.model import get_model_processor
from swift.template import get_template

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
from transformers_omnivinci.integrations import ms_swift

PLUGIN = ms_swift.__file__
TRAIN = [
    *("--model", NANO, "--split_dataset_ratio", 0, "--torch_dtype", "float32", "--use_cpu", "true"),
    *("--per_device_train_batch_size", 4, "--gradient_accumulation_steps", 1, "--logging_steps", 1),
    *("--strict", "true", "--report_to", "none", "--add_version", "false", "--save_only_model", "true"),
]


def swift(command: str, *words, **options) -> str:
    return run_command("swift", command, "--external_plugins", PLUGIN, *words, **options)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return make_rows(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def template():
    _, processor = get_model_processor(str(NANO), load_model=False, use_hf=True)
    return get_template(processor)


@pytest.fixture
def trained(template):
    template.set_mode("train")
    return template


def encode(template, rows):
    return [template.encode(deepcopy(row)) for row in rows]


@pytest.fixture(scope="module")
def taught(rows, tmp_path_factory):
    """Rows about clips with sound and about sounds, with an answer that nano does not give."""
    taught = taught_rows(rows["video"] + rows["audio"][:4])
    path = write_lines(tmp_path_factory.mktemp("data") / "taught.jsonl", taught)
    assert ANSWER not in answers_of(OmniVinciForConditionalGeneration.from_pretrained(NANO), taught[:4])
    return path


@pytest.mark.parametrize("kind", ["video", "image", "audio", "mixed"])
def test_a_batch_is_what_this_package_trains_on(trained, rows, kind):
    batch = mixed_rows(rows) if kind == "mixed" else rows[kind][:4]
    assert_same(trained.data_collator(encode(trained, batch)), expected_batch(batch))


@pytest.mark.parametrize("hears", [True, False])
def test_options_come_from_the_environment_and_from_a_row(trained, rows, monkeypatch, hears):
    batch = rows["video"][:2]
    monkeypatch.setenv("USE_AUDIO_IN_VIDEO", str(hears))
    monkeypatch.setenv("NUM_FRAMES", "8")
    expected = expected_batch(batch, load_audio_from_video=hears, num_frames=4)
    batch = [{**row, "chat_template_kwargs": {"num_frames": 4}} for row in batch]
    assert_same(trained.data_collator(encode(trained, batch)), expected)


def test_packed_rows_are_those_of_this_package(trained, rows, monkeypatch):
    monkeypatch.setattr(trained, "padding_free", True)
    monkeypatch.setattr(trained, "packing", True)
    batch = mixed_rows(rows)
    encoded = [trained.encode(deepcopy(row), return_length=True) for row in batch]
    for one in encoded:
        one["length"] = one["lengths"][0]
    packed = trained.data_collator([encoded])
    assert_same(packed, expected_batch(batch, packing=True))


def test_weights_of_tokens_stay_beside_them(rows):
    _, processor = get_model_processor(str(NANO), load_model=False, use_hf=True)
    template = get_template(processor, loss_scale="last_round", is_binary_loss_scale=False)
    template.set_mode("train")
    (encoded,) = encode(template, mixed_rows(rows)[:1])
    lengths = {len(encoded[name]) for name in ("input_ids", "labels", "loss_scale")}
    assert len(lengths) == 1
    assert [label != -100 for label in encoded["labels"]] == [scale > 0 for scale in encoded["loss_scale"]]
    learned = [token for token, scale in zip(encoded["input_ids"], encoded["loss_scale"]) if scale]
    assert processor.tokenizer.decode(learned) == "the cyan square<|im_end|>"


def test_bad_rows_are_named(trained, rows):
    row = deepcopy(rows["video"][0])
    with pytest.raises(ValueError, match=r"The row .* 1 <image> in its messages, but 0 in `images`"):
        encode(
            trained, [{**row, "messages": [{"role": "user", "content": "<image>" + row["messages"][0]["content"]}]}]
        )
    with pytest.raises(ValueError, match="row-7 .* 2 in `videos`"):
        bad = [{"role": "user", "content": "<video><video><video>?"}, row["messages"][1]]
        encode(trained, [{"id": "row-7", "messages": bad, "videos": row["videos"] * 2}])
    with pytest.raises(ValueError, match="nowhere.mp4"):
        encode(trained, [{**row, "videos": ["nowhere.mp4"]}])
    with pytest.raises(ValueError, match="holds <sound> in a text"):
        encode(trained, [{"messages": [{"role": "user", "content": "<sound>?"}, row["messages"][1]]}])


def test_backends_that_decode_themselves_are_refused(template):
    with pytest.raises(ValueError, match="vllm"):
        template.set_mode("vllm")


def test_the_published_layout_is_found(pytestconfig):
    folder = pytestconfig.rootpath / "tests" / "fixtures" / "parity" / "published-tiny"
    model, processor = get_model_processor(str(folder), use_hf=True, torch_dtype=torch.float32)
    assert model.model_meta.model_type == "omnivinci"
    assert type(model) is OmniVinciForConditionalGeneration and get_template(processor).template_meta.suffix


def losses_of(folder):
    return [float(line["loss"]) for line in read_lines(folder / "logging.jsonl") if "loss" in line]


def answers_of_swift(checkpoint, data, tmp_path, *words):
    result = tmp_path / "result.jsonl"
    swift(
        "infer",
        *(*words, checkpoint, "--val_dataset", data, "--result_path", result, "--torch_dtype", "float32"),
        *("--max_batch_size", 4, "--temperature", 0, "--max_new_tokens", 16, "--device_map", "cpu"),
    )
    return [row["response"] for row in read_lines(result)]


def test_full_training(taught, rows, tmp_path):
    folder = tmp_path / "full"
    words = ("--dataset", taught, "--output_dir", folder, "--tuner_type", "full", "--freeze_vit", "true")
    swift("sft", *TRAIN, *words, "--max_steps", 12, "--learning_rate", 1e-3)
    losses = losses_of(folder)
    assert len(losses) == 12 and losses[-1] < losses[0] / 5, losses
    checkpoint = folder / "checkpoint-12"
    model = OmniVinciForConditionalGeneration.from_pretrained(checkpoint)
    changed = changed_parts(model, OmniVinciForConditionalGeneration.from_pretrained(NANO))
    assert {"language_model"} <= changed <= {"language_model", "lm_head"}
    asked = read_lines(taught) + rows["image"][:2]
    answers = answers_of(model, asked, checkpoint)
    assert are_taught(answers[:-2]), answers
    asked = write_lines(tmp_path / "asked.jsonl", asked)
    assert answers_of_swift(checkpoint, asked, tmp_path, "--model") == answers


def test_lora(taught, tmp_path):
    folder, merged = tmp_path / "lora", tmp_path / "merged"
    words = ("--dataset", taught, "--output_dir", folder, "--tuner_type", "lora", "--target_modules", "all-linear")
    parts = ("--freeze_vit", "false", "--freeze_aligner", "false")
    swift("sft", *TRAIN, *words, *parts, "--lora_rank", 8, "--max_steps", 12, "--learning_rate", 5e-3)
    losses = losses_of(folder)
    assert losses[-1] < losses[0] / 5, losses
    adapter = folder / "checkpoint-12"
    targets = re.compile(json.loads((adapter / "adapter_config.json").read_text())["target_modules"])
    base = OmniVinciForConditionalGeneration.from_pretrained(NANO)
    linear = {name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    assert {name for name in linear if targets.match(name)} == linear - {"lm_head"}
    swift("export", "--adapters", adapter, "--merge_lora", "true", "--output_dir", merged)
    asked = read_lines(taught)
    answers = answers_of(PeftModel.from_pretrained(base, str(adapter)), asked)
    assert are_taught(answers), answers
    assert answers_of(OmniVinciForConditionalGeneration.from_pretrained(merged), asked, merged) == answers
    assert answers_of_swift(adapter, taught, tmp_path, "--adapters") == answers


def test_preferences(rows, tmp_path):
    preferred = [{**row, "rejected_response": ANSWER} for row in rows["video"]]
    folder = tmp_path / "preferred"
    words = ("--dataset", write_lines(tmp_path / "rows.jsonl", preferred), "--output_dir", folder)
    swift(
        "rlhf", "--rlhf_type", "dpo", *TRAIN, *words, "--tuner_type", "lora", "--max_steps", 6, "--learning_rate", 5e-3
    )
    losses = losses_of(folder)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-3) and losses[-1] < 0.8 * losses[0], losses


def test_a_bad_row_ends_the_command(rows, tmp_path):
    bad = [{**row, "videos": []} for row in rows["video"]]
    words = ("--dataset", write_lines(tmp_path / "bad.jsonl", bad), "--output_dir", tmp_path / "run")
    printed = swift("sft", *TRAIN, *words, "--tuner_type", "full", "--max_steps", 1, succeeds=False)
    assert re.search(r"ValueError: The row .* has 1 <video> in its messages, but 0 in `videos`", printed)
