"""Adapters that were trained here, served by vLLM's server beside the model itself."""

import base64
from pathlib import Path

import httpx
import openai
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModel, AutoProcessor, TrainingArguments

from engines.vllm.asking import answer, ask
from engines.vllm.served import Server
from tests.chats import CLIP_ITEM, chat, write
from tests.conftest import CLIP
from transformers_omnivinci import NANO
from transformers_omnivinci.training import ChatDataset, DataSource, OmniVinciTrainer, SampleEncoder, get_recipe
from transformers_omnivinci.training.command import train, training_arguments

QUESTIONS = ("What is heard first?", "Which shape is shown first?", "What happens?")
SOUND = {"load_audio_from_video": True}
RANK = 4
OPTIONS = [
    *("--max-model-len", "2048", "--block-size", "32", "--num-gpu-blocks-override", "128"),
    *("--mm-processor-cache-type", "shm", "--mm-processor-cache-gb", "0.1", "--trust-request-mm-kwargs"),
    *("--enable-lora", "--max-lora-rank", "8", "--max-loras", "2"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def data(folder):
    rows = [chat("star square star", CLIP_ITEM, question=question) for question in QUESTIONS]
    return write(folder / "data.jsonl", *rows)


@pytest.fixture(scope="module")
def adapter(folder, data):
    """One of the language model alone, by our trainer."""
    processor, model = AutoProcessor.from_pretrained(NANO), AutoModel.from_pretrained(NANO, dtype=torch.float32)
    layers = r".*language_model\.layers\..*_proj"
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=layers))
    arguments = TrainingArguments(
        output_dir=str(folder / "adapter"),
        max_steps=6,
        learning_rate=1e-2,
        per_device_train_batch_size=3,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
    )
    dataset = ChatDataset([DataSource(data)], SampleEncoder(processor, 2048, load_audio_from_video=True))
    trainer = OmniVinciTrainer(model, arguments, dataset, processing_class=processor)
    trainer.train()
    trainer.save_model()
    return folder / "adapter"


@pytest.fixture(scope="module")
def server(folder, adapter):
    options = [*OPTIONS, "--lora-modules", f"mine={adapter}"]
    with Server(NANO, folder / "log", options, {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}) as server:
        yield server


def texts_of(server, name):
    client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0)
    url = f"data:video/mp4;base64,{base64.b64encode(Path(CLIP).read_bytes()).decode()}"
    texts = []
    for question in QUESTIONS:
        content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": question}]
        completion = client.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": content}],
            max_tokens=12,
            temperature=0,
            extra_body={"mm_processor_kwargs": SOUND},
        )
        texts.append(completion.choices[0].message.content)
    return texts


def test_a_trained_adapter_answers_beside_the_model_as_in_peft(server, adapter):
    processor, model = AutoProcessor.from_pretrained(NANO), AutoModel.from_pretrained(NANO, dtype=torch.float32)
    chats = [ask(question, ("video", CLIP)) for question in QUESTIONS]

    def expected(model):
        return [
            processor.decode(tokens, skip_special_tokens=True) for tokens in answer(model, processor, chats, **SOUND)
        ]

    plain = expected(model)
    adapted = expected(PeftModel.from_pretrained(model, adapter).eval())
    assert plain != adapted
    assert texts_of(server, Server.NAME) == plain
    assert texts_of(server, "mine") == adapted
    assert texts_of(server, Server.NAME) == plain


def test_an_adapter_with_whole_projectors_is_refused_with_a_reason(server, folder, data):
    """That is what `omnivinci train --lora` writes: its recipes train the projectors, too."""
    recipe = get_recipe("omni")
    options = ["--use-cpu", "True", "--max-steps", "1", "--report-to", "none"]
    arguments = training_arguments(recipe, folder / "whole", options, with_evaluation=False)
    train(recipe, [DataSource(data)], str(NANO), arguments, lora_rank=2)
    wanted = {"lora_name": "whole", "lora_path": str(folder / "whole")}
    refused = httpx.post(f"{server.address}/v1/load_lora_adapter", json=wanted, timeout=60)
    assert refused.status_code >= 400 and "modules_to_save" in refused.text and "projector" in refused.text
    assert "whole" not in httpx.get(f"{server.address}/v1/models").text
