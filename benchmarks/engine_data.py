"""
Table 2 of the paper, in small: what sound, and what the data engine writes, do for a model of nano's size, under one
budget of training in the synthetic world.

All runs begin with one model, which has learned of pictures without sound and of sounds without picture, and never of
both at once. They learn from the same clips in as many steps, in the order of their seed. What they are asked and told
about these clips is all that differs, see [`ARMS`].

Encoders are nano's, and frozen. Clips are encoded once for all runs, and what is done is not done again.
"""

import argparse
import gzip
import json
import os
import pickle
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from functools import cache, partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import ConcatDataset
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.modeling_outputs import BaseModelOutput
from transformers.trainer_callback import PrinterCallback

from transformers_omnivinci import NANO, OmniVinciConfig, OmniVinciForConditionalGeneration, OmniVinciProcessor
from transformers_omnivinci.data_engine.assembly import settings_of
from transformers_omnivinci.data_engine.backends.protocol import Reply, Request
from transformers_omnivinci.data_engine.backends.rule_reasoner import RuleReasoner, RuleReasonerOptions
from transformers_omnivinci.data_engine.config import EngineConfig
from transformers_omnivinci.data_engine.engine import HereRunner, curate
from transformers_omnivinci.data_engine.truth_audit import audit_folder
from transformers_omnivinci.data_engine.typed import read
from transformers_omnivinci.data_engine.world_claims import shift, tell
from transformers_omnivinci.evaluation import score_answers
from transformers_omnivinci.labels import IGNORED
from transformers_omnivinci.new_file import new_file
from transformers_omnivinci.synthetic import (
    CLOSED_TYPES,
    QUESTION_FORMS,
    SyntheticDataset,
    WorldConfig,
    events_of,
    write_reel,
)
from transformers_omnivinci.synthetic.claims import claims_of
from transformers_omnivinci.training import OmniVinciTrainer, SampleEncoder, get_recipe
from transformers_omnivinci.training.collator import OmniVinciCollator
from transformers_omnivinci.training.data import Sample

WORLD = WorldConfig(clip_seconds=(4.0, 8.0), max_slots=4)
"""Of all clips: short enough for a small budget, and long enough for an order."""

OMITTED = ("count_of_one_sound",)  # no clip of four slots has a sound four times
ASKED = tuple(form.name for form in QUESTION_FORMS if form.type in CLOSED_TYPES and form.name not in OMITTED)
OF_PICTURES = tuple(form.name for form in QUESTION_FORMS if form.name in ASKED and form.type == "visual") + (
    "shape_start",
    "count_of_shapes",
)
PICTURE_CAPTIONS = ("What is shown, and when?", "Describe the picture of the clip with times.")
QUESTIONS_PER_CLIP = 6
WINDOW_SECONDS = 3.0
MAX_NEW_TOKENS = 112
"""Enough for a trace that tells of every event of a clip."""

PRACTISED = {
    "deaf": ("first_colour", "last_form", "colour_of_form", "form_of_colour", "form_of_colour_each"),
    "blind": ("first_sound", "last_sound", "sound_after_sound", "sound_before_sound", "sound_after_sound_each"),
}
ONSETS = {"deaf": ("shape_start", "shape_start_each"), "blind": ("sound_start", "sound_start_each")}
"""What the first model has learned of each sense alone, see [`base_chats`]."""

ENGINE = {
    "split": {"segment_seconds": 12, "clip_seconds": 12, "silence": None},
    "backends": {
        "captioner": {
            "type": "test-captioner", "drop": 0.1, "mistime": 0.1, "invent": 0.15, "imagine": 0.25, "seconds_off": 2
        },
        "reasoner": {"type": "test-reasoner"},
        "answerer": {"type": "test-answerer"},
    },
    "stages": {
        "visual_caption": {"backend": "captioner", "batch_size": 64},
        "audio_caption": {"backend": "captioner", "batch_size": 64},
        "cross_modal_correction": {"backend": "reasoner", "batch_size": 64},
        "questions": {"backend": "reasoner", "multiple_choice": 2, "open": 3, "batch_size": 64},
        "filter": {"backend": "answerer", "support": "reasoner", "batch_size": 64},
    },
}  # fmt: skip
"""The config of the engine: captions of one clip each, with mistakes at stated rates."""

ARMS = {
    "visual only": ("deaf", ("picture",)),
    "implicit learning": ("both", ("asked",)),
    "+ engine data": ("both", ("asked", "engine")),
    "+ engine data without traces": ("both", ("asked", "untraced")),
    "+ engine data, uncorrected": ("both", ("asked", "uncorrected")),
    "+ as many questions again": ("both", ("asked", "more")),
}
"""Of each arm, the senses that it has of a clip, and the groups of chats about it, see [`chats_about`]."""

MAIN, OTHERS = list(ARMS)[:3], list(ARMS)[3:]
"""The arms of the paper's table, and what they are compared with beside."""

BASE_FILE = "base.pt"
ANSWER = "Answer:"
"""Behind which the answer stands, after a trace."""
CORRECTION = "cross_modal_correction"
LOSS, STEPS, ERROR = "loss", "steps", "median error (s)"
Chats = dict[str, list[tuple[str, str]]]
"""Questions and answers about a clip, by group."""


class Encoded(nn.Module):
    """In the place of a frozen encoder: takes for input what that has given."""

    dtype = torch.float32

    def forward(self, features: torch.Tensor, **kwargs) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=features)


ENCODERS = {"pixel_values_videos": "vision_tower", "input_features": "audio_tower"}
"""The encoder of each input."""


class Merger(RuleReasoner):
    """A test-reasoner that believes everything: it merges the captions of both senses and corrects nothing."""

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        replies = iter(super().complete([one for one in requests if one.task != CORRECTION]))
        return [self._merge(one) if one.task == CORRECTION else next(replies) for one in requests]

    @staticmethod
    def _merge(request: Request) -> Reply:
        captions = [(clip, clip[sense]) for clip in request.fields["clips"] for sense in ("visual", "audio")]
        told = [shift(event, clip["start"]) for clip, caption in captions for event in claims_of(caption)]
        return Reply(json.dumps({"omni_caption": tell(told) or "Nothing is heard.", "rejected_statements": []}))


# What there is to learn -------------------------------------------------------------------------------------------


@cache
def dataset(name: str, size: int) -> SyntheticDataset:
    """The clips that are called `"train"`, `"base"` (of single senses) or `"test"`, with their questions."""
    if name == "test":
        return SyntheticDataset("test", size, config=WORLD, types=CLOSED_TYPES, forms=ASKED)
    forms = ASKED if name == "train" else tuple(chain(*PRACTISED.values(), *ONSETS.values()))
    seed = ("train", "base").index(name)
    return SyntheticDataset("train", size, seed, WORLD, forms=forms, questions_per_clip=len(forms))


def chats_about(
    name: str, size: int, index: int, engine: dict[str, dict[str, list]], most: int | None
) -> dict[str, Chats]:
    """What is said about a clip, by senses."""
    sample = dataset(name, size)[index]
    if name == "test":
        pairs = [(question.text, question.answer) for question in sample.questions]
        return {"both": {"asked": pairs}, "deaf": {"asked": pairs}}
    if name == "base":
        return {
            senses: {
                "alone": [
                    (question.text, question.answer)
                    for question in sample.questions
                    if question.form in (*PRACTISED[senses], *ONSETS[senses])
                ]
            }
            for senses in ("deaf", "blind")
        }
    caption = tell(event for event in events_of(sample.scene) if event.sense == "visual")
    captions = [(PICTURE_CAPTIONS[index % len(PICTURE_CAPTIONS)], caption)] if caption else []
    pairs = [(question.text, question.answer) for question in sample.questions]
    seen = [(one.text, one.answer) for one in sample.questions if one.form in OF_PICTURES]
    found = {"asked": captions + pairs[:QUESTIONS_PER_CLIP], "more": pairs[QUESTIONS_PER_CLIP:][:QUESTIONS_PER_CLIP]}
    found |= {group: [tuple(pair) for pair in chats.get(sample.id, [])[:most]] for group, chats in engine.items()}
    told = found.get("engine", [])
    found["untraced"] = [(question, answer.rpartition(ANSWER)[2].strip()) for question, answer in told]
    return {"both": found, "deaf": {"picture": captions + seen[:QUESTIONS_PER_CLIP]}}


def write_film(name: str, size: int, folder: Path, index: int) -> None:
    """Renders a clip, unless it is there."""
    sample = dataset(name, size)[index]
    path = folder / f"{sample.id}.mp4"
    if not path.exists():
        write_reel(path, [sample.scene], WORLD)


def run_engine(films: Sequence[Path], folder: Path) -> None:
    """Lets the engine write about films, with and without correction; keeps questions and answers, and the audit."""
    config = read(EngineConfig, ENGINE, "the config")
    runners = {"engine": HereRunner(), "uncorrected": HereRunner({"reasoner": Merger(RuleReasonerOptions())})}
    found: dict[str, dict] = {}
    audits = {}
    for group, runner in runners.items():
        output, chats = folder / group, defaultdict(list)
        report = curate(config, [str(film) for film in films], output, runner)
        for line in (output / "chats.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            (medium, question), (answer,) = (message["content"] for message in row["messages"])
            chats[Path(medium["path"]).stem].append((question["text"], answer["text"]))
        found[group] = chats
        audits[group] = asdict(audit_folder(output, settings_of(config), config.write.drop)) | {"chats": report.chats}
    (folder / "audit.json").write_text(json.dumps(audits, indent=1) + "\n", encoding="utf-8")
    with new_file(folder / "engine.json.gz") as part:
        part.write_bytes(gzip.compress(json.dumps(found).encode(), mtime=0))


# Clips as their encoders give them --------------------------------------------------------------------------------


@cache
def nano() -> OmniVinciForConditionalGeneration:
    """The shipped model."""
    return OmniVinciForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32).eval()


@cache
def processor() -> OmniVinciProcessor:
    """Nano's, which pads sound to whole windows, not to 30 s."""
    found = OmniVinciProcessor.from_pretrained(NANO)
    found.audio_pad_to_multiple_of = WINDOW_SECONDS
    return found


@cache
def read_engine(folder: Path) -> dict[str, dict[str, list]]:
    """What [`run_engine`] has kept."""
    return json.loads(gzip.decompress((folder / "engine.json.gz").read_bytes()))


@torch.no_grad()
def encode(name: str, size: int, folder: Path, most: int | None, part: int, parts: int, path: Path) -> None:
    """Writes what the encoders give for one part of the clips, and the sequences of the chats about them."""
    engine = read_engine(folder) if name == "train" else {}
    encoders = {hears: SampleEncoder(processor(), load_audio_from_video=hears) for hears in (True, False)}
    encoded = []
    for index in range(part, size, parts):
        film = str(folder / "films" / f"{dataset(name, size)[index].id}.mp4")
        clip: dict[str, dict] = {"features": {}}
        for senses, groups in chats_about(name, size, index, engine, most).items():
            medium = {"type": "audio", "audio": film} if senses == "blind" else {"type": "video", "video": film}
            chats = [_sample(medium, *pair) for pairs in groups.values() for pair in pairs]
            if not chats:
                continue
            item = encoders[senses != "deaf"].encode(*chats)
            features = {name: item.pop(name) for name in ENCODERS if name in item}
            for key, value in features.items():
                if key not in clip["features"]:
                    hidden = getattr(nano().model, ENCODERS[key])(value).last_hidden_state
                    clip["features"][key] = hidden.half().numpy()
            item = {key: value.numpy() if isinstance(value, torch.Tensor) else value for key, value in item.items()}
            item["groups"] = [group for group, pairs in groups.items() for _ in pairs]
            item["inputs"] = list(features)
            clip[senses] = item
        encoded.append(clip)
    with new_file(path) as written:
        written.write_bytes(pickle.dumps(encoded, protocol=5))


def _sample(medium: dict, question: str, answer: str) -> Sample:
    content = [medium, {"type": "text", "text": question}]
    told = [{"role": "user", "content": content}, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
    return Sample(question, told)


@cache
def read_encoded(name: str, folder: Path) -> list[dict]:
    """What [`encode`] has written."""
    paths = sorted((folder / "encoded").glob(f"{name}-*.pickle"))
    return list(chain.from_iterable(pickle.loads(path.read_bytes()) for path in paths))


class Learned(Sequence):
    """Clips as a model gets them: of some senses, with some groups of chats."""

    def __init__(self, clips: list[dict], senses: str, groups: Sequence[str]):
        texts = [(clip, _select(clip[senses], groups)) for clip in clips if senses in clip]
        self.items = [(clip["features"], text) for clip, text in texts if (text["labels"] != IGNORED).any()]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        features, text = self.items[index]
        item = {name: torch.from_numpy(one) if isinstance(one, np.ndarray) else one for name, one in text.items()}
        item |= {name: torch.from_numpy(features[name]).float() for name in item.pop("inputs")}
        return item

    def count(self) -> dict[str, float]:
        """What a clip has on average: chats, tokens of answers, positions of the sequence."""
        texts = [text for _, text in self.items]
        return {
            "chats": statistics.mean(len(text["sample_ids"]) for text in texts),
            "answer tokens": statistics.mean(float((text["labels"] != IGNORED).sum()) for text in texts),
            "positions": statistics.mean(len(text["input_ids"]) for text in texts),
        }


def _select(item: dict, groups: Sequence[str]) -> dict:
    """The sequence of a clip with the chats of some groups alone. Chats do not see each other, whatever is left."""
    item, found = dict(item), item["groups"]
    del item["groups"]
    if "segment_ids" not in item:
        return item
    chosen = [number for number, group in enumerate(found, start=1) if group in groups]
    is_kept = np.isin(item["segment_ids"], [0, *chosen])
    for name in ("input_ids", "labels", "position_ids", "segment_ids"):
        item[name] = item[name][is_kept]
    item["sample_ids"] = [item["sample_ids"][number - 1] for number in chosen]
    return item


# Training and asking ----------------------------------------------------------------------------------------------


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


# Report -----------------------------------------------------------------------------------------------------------


def table(runs: list[dict], chance: dict[str, float]) -> str:
    """Means and standard deviations over seeds in Markdown, and what each arm learns of a clip."""
    lines = [
        f"| | {' | '.join(CLOSED_TYPES)} | all | answer tokens a clip |",
        f"|---|{'---|' * (len(CLOSED_TYPES) + 2)}",
    ]
    told = [f"{chance[type]:.0%}" for type in CLOSED_TYPES] + [f"{statistics.mean(chance.values()):.0%}"]
    lines.append(f"| chance | {' | '.join(told)} | |")
    for arm in ARMS:
        found = [run for run in runs if run["arm"] == arm]
        if found:
            cells = [_with_deviation([run[type] for run in found]) for type in CLOSED_TYPES]
            cells.append(f"**{_with_deviation([overall(run) for run in found])}**")
            lines.append(f"| {arm} (runs: {len(found)}) | {' | '.join(cells)} | {found[0]['answer tokens']:.0f} |")
    return "\n".join(lines)


def overall(run: dict) -> float:
    """The mean over types of questions."""
    return statistics.mean(run[type] for type in CLOSED_TYPES)


def _with_deviation(values: list[float]) -> str:
    numbers = [statistics.mean(values)] + ([statistics.stdev(values)] if len(values) > 1 else [])
    return " ± ".join(map("{:.0%}".format, numbers))


def draw(runs: list[dict], path: Path) -> None:
    """Bars of the means by type of question, with a dot for each run."""
    from matplotlib.figure import Figure  # which machines that train need not have

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots()
    arms = [arm for arm in ARMS if any(run["arm"] == arm for run in runs)]
    width = 0.8 / len(arms)
    for place, arm in enumerate(arms):
        found = [run for run in runs if run["arm"] == arm]
        places = [index + (place + 0.5) * width - 0.4 for index in range(len(CLOSED_TYPES))]
        means = [statistics.mean(run[type] for run in found) for type in CLOSED_TYPES]
        axes.bar(places, means, width=width, label=arm)
        for one in found:
            axes.plot(places, [one[type] for type in CLOSED_TYPES], ".", color="black", markersize=4)
    axes.set_xticks(range(len(CLOSED_TYPES)), CLOSED_TYPES)
    axes.set_ylabel("right answers (bars: means; dots: runs)")
    axes.set_ylim(0, 1.02)
    figure.legend(loc="outside upper center", fontsize=8, ncols=3)
    figure.savefig(path, dpi=110)


def report(results: Path, size: int, docs: Path) -> None:
    """Puts the table into its place in `data-engine.md`, and the plot and all numbers beside it."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    rows = [row for sample in dataset("test", size) for row in sample.rows("")]
    chance = {score.type: score.chance for score in score_answers(rows, [""] * len(rows))}
    path = docs / "data-engine.md"
    text = path.read_text(encoding="utf-8") if path.exists() else "<!-- does it help --><!-- end -->\n"
    lines = f"<!-- does it help -->\n\n{table(runs, chance)}\n\n<!-- end -->"
    text = re.sub(r"<!-- does it help -->.*?<!-- end -->", lambda _: lines, text, flags=re.DOTALL)
    path.write_text(text, encoding="utf-8")
    (docs / "engine-data.json").write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    draw(runs, docs / "engine-data.png")


# All of it --------------------------------------------------------------------------------------------------------


def wait_for(tasks: Sequence[Future]) -> list:
    """Results of tasks; the first failure ends what waits."""
    try:
        return [task.result() for task in tasks]
    except BaseException:
        for task in tasks:
            task.cancel()
        raise


def warm_up() -> None:
    """Starts a process while others still make its data."""
    nano()
    processor()


def prepare(pool: ProcessPoolExecutor, name: str, size: int, folder: Path, most: int | None, parts: int) -> None:
    """Clips of a kind, what the engine writes about them, and both as the model gets them; what is there is kept."""
    paths = [folder / "encoded" / f"{name}-{part:02}.pickle" for part in range(parts)]
    if all(path.exists() for path in paths):
        return
    list(pool.map(partial(write_film, name, size, folder / "films"), range(size), chunksize=16))
    if name == "train" and not (folder / "engine.json.gz").exists():
        run_engine([folder / "films" / f"{sample.id}.mp4" for sample in dataset(name, size)], folder)
    tasks = [
        pool.submit(encode, name, size, folder, most, part, parts, path)
        for part, path in enumerate(paths)
        if not path.exists()
    ]
    wait_for(tasks)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_data", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/engine-data"), help="default: %(default)s")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the report goes (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="where results of runs go (default: OUTPUT/runs)")
    parser.add_argument("--only", choices=("runs", "report"), help="leave out the report, or all but the report")
    parser.add_argument("--device", default="cpu", help="to train on (default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=os.cpu_count(), help="processes that make data")
    parser.add_argument("--num-runs", type=int, default=os.cpu_count(), help="runs side by side")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which no run goes on")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm (default: %(default)s)")
    parser.add_argument("--num-clips", type=int, default=4000, help="to learn from (default: %(default)s)")
    parser.add_argument("--num-base-clips", type=int, default=1600, help="of the first model (default: %(default)s)")
    parser.add_argument("--clips-per-type", type=int, default=100, help="to ask about (default: %(default)s)")
    parser.add_argument("--base-steps", type=int, default=800, help="of the first model (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=800, help="of each run (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="clips in a step (default: %(default)s)")
    parser.add_argument("--engine-chats", type=int, help="the most that the engine tells of a clip")
    parser.add_argument("--main", action="store_true", help="only the arms of the paper's table")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate (default: %(default)s)")
    arguments = parser.parse_args()
    start = time.time()
    folder, results = arguments.output, arguments.results or arguments.output / "runs"
    for one in (results, arguments.docs, folder / "films", folder / "encoded"):
        one.mkdir(parents=True, exist_ok=True)
    num_asked = arguments.clips_per_type * len(CLOSED_TYPES)

    def say(text: str) -> None:
        print(f"{time.time() - start:.0f} s: {text}", flush=True)

    if arguments.only != "report":
        sizes = {"base": arguments.num_base_clips, "train": arguments.num_clips, "test": num_asked}
        options = {"mp_context": get_context("spawn"), "initializer": torch.set_num_threads, "initargs": (1,)}
        where = (arguments.device, start + arguments.seconds)
        with (
            ProcessPoolExecutor(arguments.num_workers, **options) as makers,
            ProcessPoolExecutor(arguments.num_runs, **options) as runners,
        ):
            warm = [runners.submit(warm_up) for _ in range(arguments.num_runs)]
            if not (folder / BASE_FILE).exists():
                prepare(makers, "base", sizes["base"], folder, None, arguments.num_workers)
                say("Clips of single senses are made.")
            base = runners.submit(build_base, folder, arguments.base_steps, arguments.batch_size, *where)
            for name in ("train", "test"):
                prepare(makers, name, sizes[name], folder, arguments.engine_chats, arguments.num_workers)
                say(f"Clips are made: {name}.")
            say(f"The first model is trained: {base.result()}.")
            wait_for(warm)
            jobs = [
                (arm, seed)
                for arms in ((MAIN,) if arguments.main else (MAIN, OTHERS))
                for seed in range(arguments.seeds)
                for arm in arms
            ]  # those that matter most are first, if the time is over
            settings = (arguments.steps, arguments.batch_size, arguments.rate, folder, results, num_asked, *where)
            tasks = [runners.submit(run, *job, *settings) for job in jobs]
            for job, task in zip(jobs, tasks, strict=True):
                say(f"{job}: {task.result()}")
    if arguments.only != "runs":
        report(results, num_asked, arguments.docs)


if __name__ == "__main__":
    main()
