"""The arms of the comparison: the model that all begin with, its training, and what is asked in the end."""

import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import ConcatDataset
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.modeling_outputs import BaseModelOutput
from transformers.trainer_callback import PrinterCallback

from transformers_omnivinci import NANO, OmniVinciConfig, OmniVinciForConditionalGeneration
from transformers_omnivinci.evaluation import score_answers
from transformers_omnivinci.labels import IGNORED
from transformers_omnivinci.new_file import new_file
from transformers_omnivinci.training import OmniVinciTrainer, get_recipe
from transformers_omnivinci.training.collator import OmniVinciCollator

from .chats import ANSWER, dataset
from .encoding import ENCODERS, Learned, nano, processor, read_encoded

ARMS = {
    "visual only": ("deaf", ("picture",)),
    "implicit learning": ("both", ("asked",)),
    "+ engine data": ("both", ("asked", "engine")),
    "+ engine data without traces": ("both", ("asked", "untraced")),
    "+ engine data, uncorrected": ("both", ("asked", "uncorrected")),
    "+ as many questions again": ("both", ("asked", "more")),
}
"""Of each arm, the senses that it has of a clip, and the groups of chats about it, see `chats.chats_about`."""

MAIN, OTHERS = list(ARMS)[:3], list(ARMS)[3:]
"""The arms of the paper's table, and what they are compared with beside."""

BASE_FILE = "base.pt"
MAX_NEW_TOKENS = 112
"""Enough for a trace that tells of every event of a clip."""

LOSS, STEPS, ERROR = "loss", "steps", "median error (s)"


class Encoded(nn.Module):
    """In the place of a frozen encoder: takes for input what that has given."""

    dtype = torch.float32

    def forward(self, features: torch.Tensor, **kwargs) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=features)


class StopAt(TrainerCallback):
    """Ends a run when its time is over."""

    def __init__(self, deadline: float):
        self.deadline = deadline

    def on_step_end(self, args, state, control, **kwargs):
        if time.time() > self.deadline:
            control.should_training_stop = True
        return control


def train(model, data, steps: int, batch_size: int, seed: int, rate: float, device: str, deadline: float) -> dict:
    """
    Trains projectors and language model with the recipe `omni`, in place.

    Returns:
        `dict`: the mean loss of the last 50 steps, in nats a token, and the number of steps.
    """
    for encoder in ENCODERS.values():
        setattr(model.model, encoder, Encoded())
    trainer = OmniVinciTrainer(
        model,
        TrainingArguments(
            output_dir=tempfile.gettempdir(),  # to which nothing is saved
            seed=seed,
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            weight_decay=0.01,
            adam_beta2=0.98,
            use_cpu=device == "cpu",
            save_strategy="no",
            logging_steps=10,
            report_to="none",
            disable_tqdm=True,
            **(get_recipe("omni").training_arguments | {"learning_rate": rate}),
        ),
        train_dataset=data,
        processing_class=processor(),
        recipe=get_recipe("omni"),
        muon=True,
        callbacks=[StopAt(deadline)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return {LOSS: statistics.mean(losses[-5:]) if losses else float("nan"), STEPS: trainer.state.global_step}


def answer_all(model, clips: list[dict], senses: str, device: str, batch_size: int = 300) -> list[str]:
    """The answers to the questions about test clips, by greedy decoding; after a trace, what stands behind it."""
    model.to(device).eval()
    collate = OmniVinciCollator(processor().tokenizer.pad_token_id, padding_side="left")
    prompts = Learned(clips, senses, ("asked",))
    answers = []
    for first in range(0, len(prompts), batch_size):
        items = [_prompt(prompts[index]) for index in range(first, min(first + batch_size, len(prompts)))]
        batch = {name: value.to(device) for name, value in collate(items).items() if isinstance(value, torch.Tensor)}
        del batch["labels"]
        with torch.inference_mode():
            output = model.generate(**batch, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        texts = processor().batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        answers += [text.rpartition(ANSWER)[2].strip() for text in texts]
    return answers


def _prompt(item: dict) -> dict:
    end = int((item["labels"] != IGNORED).nonzero()[0, 0])
    return item | {"input_ids": item["input_ids"][:end], "labels": item["labels"][:end]}


def build_base(folder: Path, steps: int, batch_size: int, device: str, deadline: float) -> dict:
    """Trains the model that all runs begin with, unless it is there: a new language model behind nano's projectors."""
    path = folder / BASE_FILE
    told = {}
    if not path.exists():
        torch.set_float32_matmul_precision("high")
        set_seed(0)
        model = OmniVinciForConditionalGeneration(OmniVinciConfig.from_pretrained(NANO)).float()
        model.model.vision_projector.load_state_dict(nano().model.vision_projector.state_dict())
        model.model.audio_projector.load_state_dict(nano().model.audio_projector.state_dict())
        clips = read_encoded("base", folder)
        data = ConcatDataset([Learned(clips, senses, ("alone",)) for senses in ("deaf", "blind")])
        told = train(model, data, steps, batch_size, 0, 4e-3, device, deadline)
        with new_file(path) as part:
            torch.save({name: value.cpu().half() for name, value in model.state_dict().items()}, part)
    return told


def run(
    arm: str,
    seed: int,
    steps: int,
    batch_size: int,
    rate: float,
    folder: Path,
    results: Path,
    num_asked: int,
    device: str,
    deadline: float,
) -> dict | None:
    """Trains and evaluates an arm with a seed, unless that was done. `None` where the time was over before."""
    path = results / f"{list(ARMS).index(arm)}-{seed}.json"
    if not path.exists():
        start = time.time()
        if start > deadline:
            return None
        torch.set_float32_matmul_precision("high")
        set_seed(seed)
        model = OmniVinciForConditionalGeneration(OmniVinciConfig.from_pretrained(NANO)).float()
        model.generation_config = nano().generation_config
        for encoder in ENCODERS.values():
            setattr(model.model, encoder, Encoded())
        model.load_state_dict(torch.load(folder / BASE_FILE))
        senses, groups = ARMS[arm]
        data = Learned(read_encoded("train", folder), senses, groups)
        result = {"arm": arm, "seed": seed, **data.count()}
        result |= train(model, data, steps, batch_size, seed, rate, device, deadline)
        trained = time.time()
        if result[STEPS] < steps:
            return None
        clips = read_encoded("test", folder)
        rows = asked_rows(folder, num_asked)
        answers = answer_all(model, clips, senses, device)
        scores = {score.type: score for score in score_answers(rows, answers)}
        result |= {type: score.accuracy for type, score in scores.items()} | {ERROR: scores["time"].median_error}
        result |= {"training (s)": trained - start, "asking (s)": time.time() - trained}
        with new_file(path) as part:
            part.write_text(json.dumps(result), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def asked_rows(folder: Path, size: int) -> list[dict]:
    """The rows of the test clips, in the order of [`read_encoded`]."""
    parts = len(list((folder / "encoded").glob("test-*.pickle")))
    return [dataset("test", size)[index].rows("")[0] for part in range(parts) for index in range(part, size, parts)]
