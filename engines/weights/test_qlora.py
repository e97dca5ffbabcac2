"""QLoRA: adapters of PEFT trained on a language model in 4 or 8 bits, saved, loaded again and merged."""

import json

import peft
import pytest
import torch
from transformers import AutoModel, Trainer, TrainingArguments
from typer.testing import CliRunner

from transformers_omnivinci import NANO
from transformers_omnivinci.cli import app
from transformers_omnivinci.cli.options import Bits, quantization_config
from transformers_omnivinci.training import ChatDataset, DataSource, OmniVinciTrainer, SampleEncoder

from .conftest import CLIP, QUANTIZERS, answer, linear_layers, logits_of, quantized_layers

LORA = peft.LoraConfig(r=4, lora_alpha=8, target_modules=r".*language_model\.layers\..*_proj", task_type="CAUSAL_LM")
QUESTION, ANSWER = "Which sound is heard first?", "the red star"
STEPS = 6


def arguments(folder, **options):
    return TrainingArguments(
        str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=1,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        logging_steps=1,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=True,
        **options,
    )


def losses_of(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(params=["bnb-nf4", "bnb-nf4-double", "bnb-int8", "torchao-int8"])
def name(request):
    return request.param


@pytest.fixture
def adapted(name):
    model = AutoModel.from_pretrained(NANO, quantization_config=QUANTIZERS[name]())
    return peft.get_peft_model(peft.prepare_model_for_kbit_training(model), LORA)


@pytest.fixture
def batch(ask):
    inputs = ask(QUESTION, ANSWER)
    inputs["labels"] = inputs["input_ids"].clone()
    inputs["labels"][:, : ask(QUESTION)["input_ids"].shape[1]] = -100
    return dict(inputs)


@pytest.fixture
def chats(processor):
    """The same as a data set."""
    content = [{"type": "video", "path": CLIP}, {"type": "text", "text": QUESTION}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": ANSWER}]
    encoder = SampleEncoder(processor, 2048)
    return ChatDataset([DataSource([{"messages": messages}] * STEPS)], encoder)


def test_adapters_are_trained_saved_and_loaded_again(name, adapted, batch, ask, tmp_path):
    """By the stock `Trainer`, with evaluations between the steps."""
    options = {"eval_strategy": "steps", "eval_steps": 2, "remove_unused_columns": False}
    trainer = Trainer(
        adapted,
        arguments(tmp_path / "run", **options),
        train_dataset=[0] * STEPS,
        eval_dataset=[0],
        data_collator=lambda _: batch,
    )
    losses = losses_of(trainer)
    assert losses[-1] < losses[0] / 2
    assert {key for key, weight in adapted.named_parameters() if weight.grad is not None} <= {
        key for key in dict(adapted.named_parameters()) if "lora_" in key
    }
    trainer.save_model(tmp_path / "adapter")
    logits = logits_of(adapted.eval(), ask())
    quantized = AutoModel.from_pretrained(NANO, quantization_config=QUANTIZERS[name]())
    quantized = peft.prepare_model_for_kbit_training(quantized)  # which puts what is not quantized into float32
    again = peft.PeftModel.from_pretrained(quantized, tmp_path / "adapter").train().eval()
    torch.testing.assert_close(logits_of(again, ask()), logits, rtol=0, atol=1e-4)


def test_the_trainer_of_this_package_trains_them(adapted, chats, processor, tmp_path):
    losses = losses_of(OmniVinciTrainer(adapted, arguments(tmp_path), chats, processing_class=processor))
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("bits", ["bnb-4bit", "bnb-8bit"])
def test_the_command_trains_adapters_and_projectors(bits, ask, plain, processor, tmp_path):
    content = [{"type": "video", "path": CLIP}, {"type": "text", "text": QUESTION}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": ANSWER}]
    data, output = tmp_path / "chats.jsonl", tmp_path / "run"
    data.write_text(json.dumps({"messages": messages}) + "\n")
    command = f"train --recipe omni --model {NANO} --data {data} --output {output} --lora --quantization {bits}"
    options = "--max-steps 12 --learning-rate 1e-2 --logging-steps 1 --activation-checkpointing --use-cpu True"
    result = CliRunner().invoke(app, [*command.split(), *options.split(), "--report-to", "none"])
    assert result.exit_code == 0, result.output
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < losses[0] / 2
    model = AutoModel.from_pretrained(output, quantization_config=quantization_config(Bits(bits)))
    assert {name.removesuffix(".base_layer") for name in quantized_layers(model)} == linear_layers(
        plain, "model.language_model"
    )
    assert [answer(one, processor, ask(QUESTION)) for one in (plain, model)] == ["low tone", ANSWER]


@pytest.fixture
def folder(name, tmp_path):
    """Adapters that change something."""
    torch.manual_seed(0)
    model = peft.get_peft_model(AutoModel.from_pretrained(NANO, quantization_config=QUANTIZERS[name]()), LORA)
    for key, weight in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(weight, std=0.02)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_the_folder_of_adapters_is_loaded_with_a_quantized_base(name, folder, ask, plain):
    config = QUANTIZERS[name]()
    by_peft = peft.AutoPeftModelForCausalLM.from_pretrained(folder, quantization_config=config)
    by_transformers = AutoModel.from_pretrained(folder, quantization_config=config)
    expected = linear_layers(plain, "model.language_model")
    for model in (by_peft.get_base_model(), by_transformers):
        assert {layer.removesuffix(".base_layer") for layer in quantized_layers(model)} == expected
    logits = logits_of(by_peft, ask())
    without = AutoModel.from_pretrained(NANO, quantization_config=config)
    effect, difference = (logits_of(one, ask()) - logits for one in (without, by_transformers))
    assert difference.abs().max() < effect.abs().max() / 4  # PEFT computes adapters in float32, transformers does not


def test_adapters_are_merged_and_the_result_is_saved(name, folder, ask, plain, tmp_path):
    def adapted():
        return peft.AutoPeftModelForCausalLM.from_pretrained(folder, quantization_config=QUANTIZERS[name]())

    with_adapters, merged = logits_of(adapted(), ask()), adapted().merge_and_unload()
    assert quantized_layers(merged) == linear_layers(plain, "model.language_model")
    merged.save_pretrained(tmp_path / "merged")
    logits = logits_of(merged, ask())
    assert (logits - with_adapters).abs().mean() < with_adapters.std() / 4  # rounded anew
    again = AutoModel.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits_of(again, ask()), logits, rtol=0, atol=0)
