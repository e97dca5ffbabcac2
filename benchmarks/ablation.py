"""
Table 1 of the paper, in small: what Temporal Embedding Grouping, the time embeddings, OmniAlignNet and T_G do for a
model of nano's size, under one budget of training in the synthetic world.

As in the paper's joint training, the encoders are frozen and the projectors have learned before: both are those of the
shipped nano. The language model is new in each run, as are learned time embeddings and OmniAlignNets. All runs learn
from the same clips, in the order of their seed. Clips are encoded once for all of them, and runs that are done are not
done again.

Nano's projectors have learned with CRTE. The first rows are therefore trained once more from projectors that favour
none: they have learned here, with each of the time embeddings that rotate, and with none, in turn.
"""

import argparse
import copy
import json
import os
import pickle
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import groupby, islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.modeling_outputs import BaseModelOutput
from transformers.trainer_callback import PrinterCallback

from transformers_omnivinci import NANO, OmniVinciConfig, OmniVinciForConditionalGeneration, OmniVinciProcessor
from transformers_omnivinci.evaluation import score_answers
from transformers_omnivinci.evaluation.synthetic import answer_rows, read_rows
from transformers_omnivinci.modeling.time_embedding import build_time_embedding
from transformers_omnivinci.new_file import new_file
from transformers_omnivinci.new_folder import new_folder
from transformers_omnivinci.synthetic import SyntheticDataset, WorldConfig, write_dataset
from transformers_omnivinci.training import OmniVinciTrainer, SampleEncoder, get_recipe
from transformers_omnivinci.training.data import read_sample

from ._harness import add_bf16

# Three slots at most: clips are short enough for a small budget, and long enough for an order. They differ in length,
# and so in the seconds between frames: a frame's place alone does not tell its time.
ASKED = WorldConfig(clip_seconds=(4.0, 8.0), max_slots=3)
# In half of the clips to learn from, sounds go with shapes, so that OmniAlignNet has something to align. In those that
# are asked about, neither sense gives away what happens in the other.
LEARNED = replace(ASKED, match_probability=0.5)
# Across the senses, a shape is asked with: it is found by two words. Questions with a sound are learned much later.
FORMS = {
    "visual": ("first_colour", "last_form", "form_of_colour", "colour_of_form"),
    "audio": ("first_sound", "last_sound", "sound_after_sound", "sound_before_sound"),
    "synchrony": ("sound_during_shape",),
    "order": ("sound_after_shape", "sound_before_shape"),
    "time": ("shape_start", "sound_start"),
}
PRACTISED = tuple(f"{form}_each" for type in ("synchrony", "order", "time") for form in FORMS[type])
QUESTIONS_PER_CLIP = 12
ERROR, LOSS, STEPS = "median error (s)", "loss", "steps to 0.15"
REACHED = 0.15
"""Nats a token: below that, relations between the senses are being learned."""
T_G = 1.0
WINDOW_SECONDS = 3.0
BATCH = 8
NUM_FRAMES = 16
"""Of a clip: a third of what nano takes, so that a step takes half of the time."""


def _time(kind: str) -> dict:
    return {"video_time_embedding": kind, "audio_time_embedding": kind}


PARTS = ("table", "durations", "starts")
"""What can be run: the rows of table 1, those of other T_G, and those from projectors that favour none."""

ROWS = {
    "token concatenation": {**_time("none"), "interleave_audio_in_video": False},
    "+ TEG": _time("none"),
    "+ TEG + learned time embedding": _time("learned"),
    "+ TEG + RoTE": _time("rote"),
    "+ TEG + CRTE": _time("crte"),
    "+ TEG + CRTE + OmniAlignNet": {**_time("crte"), "align_loss_weight": 0.1},
    **{f"+ TEG + CRTE, T_G {seconds:g} s": {"group_duration": seconds} for seconds in (0.5, 3.0)},
}
"""Settings of the config and the processor in each row. Others are nano's; T_G is `T_G`."""

TABLE, DURATIONS = list(ROWS)[:6], list(ROWS)[6:]
"""The rows of table 1, and those of other T_G."""

COMPARED = TABLE[:5]
"""The rows that differ in layout and time embedding: those trained from both kinds of projectors."""

IN_TURN = ("+ TEG", "+ TEG + RoTE", "+ TEG + CRTE")
"""The rows whose time embeddings projectors learn with in turn."""

STARTS = ("nano", "in turn")
"""Where the projectors come from."""

ENCODERS = {"pixel_values_videos": "vision_tower", "input_features": "audio_tower"}
"""The encoder of each input."""

PROJECTORS = ("vision_projector", "audio_projector")
PROJECTORS_FILE = "projectors.pt"

Result = dict[str, float | None]
"""
Shares of right answers by type, the median error in time, the loss of answers at the end (nats a token), and the first
step at which it was below [`REACHED`], if any.
"""


class Encoded(nn.Module):
    """In the place of a frozen encoder: takes for input what that has given."""

    dtype = torch.float32

    def forward(self, features: torch.Tensor, **kwargs) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=features)


def sequence_settings(row: str) -> dict:
    """What of a row's settings decides where things stand in the sequence."""
    settings = {"interleave_audio_in_video": True, "group_duration": T_G}
    return {name: ROWS[row].get(name, value) for name, value in settings.items()}


def configure(row: str) -> OmniVinciConfig:
    """Nano's config with the settings of a row."""
    return OmniVinciConfig.from_pretrained(
        NANO, **{name: value for name, value in ROWS[row].items() if name not in sequence_settings(row)}
    )


def build_processor(row: str) -> OmniVinciProcessor:
    """Nano's processor, as a row lays out its sequence."""
    processor = OmniVinciProcessor.from_pretrained(NANO, **sequence_settings(row))
    processor.video_processor.num_frames, processor.video_processor.fps = NUM_FRAMES, None
    # To whole windows, not 30 s: token concatenation alone would keep the silence.
    processor.audio_pad_to_multiple_of = WINDOW_SECONDS
    return processor


def layout_of(row: str) -> str:
    """The name of a row's sequence."""
    settings = sequence_settings(row)
    kind = "TEG" if settings["interleave_audio_in_video"] else "concatenation"
    return f"{kind}-{settings['group_duration']:g}"


class _Remembered:
    """Decodes a clip once, for all layouts."""

    def __init__(self, load):
        self.load, self.videos, self.loaded = load, None, None

    def __call__(self, videos, **options):
        if videos != self.videos:
            self.videos, self.loaded = videos, self.load(videos, **options)
        return self.loaded


@torch.no_grad()
def encode(clips: Path, part: int, parts: int, folder: Path) -> None:
    """
    Writes what the encoders give for one part of the clips, and the sequence of its questions in each layout: a file
    for each clip, as all of them together may not fit into memory.
    """
    encoders = {layout_of(row): SampleEncoder(build_processor(row)) for row in ROWS}
    decode = _Remembered(next(iter(encoders.values())).processor.video_processor.load_videos)
    for encoder in encoders.values():
        encoder.processor.video_processor.load_videos = decode
    rows = groupby(read_rows(clips), key=lambda row: row["messages"][0]["content"][0]["path"])
    for number, (_, chats) in islice(enumerate(rows), part, None, parts):
        samples = [read_sample(chat, chat["id"], clips.parent) for chat in chats]
        layouts = {layout: encoder.encode(*samples) for layout, encoder in encoders.items()}
        media = next(iter(layouts.values()))  # the same in all of them
        features = {
            name: getattr(nano().model, encoder)(media[name]).last_hidden_state for name, encoder in ENCODERS.items()
        }
        texts = {
            layout: {name: value for name, value in item.items() if name not in ENCODERS}
            for layout, item in layouts.items()
        }
        encoded = (_to_arrays(features), {layout: _to_arrays(text) for layout, text in texts.items()})
        # torch.save would be slow: these are very many.
        (folder / f"{number:06}.pickle").write_bytes(pickle.dumps(encoded))


class EncodedClips(Dataset):
    """What [`encode`] has written, in the order of the clips and in one of the layouts."""

    def __init__(self, folder: Path, layout: str):
        self.paths, self.layout = sorted(folder.glob("*.pickle")), layout

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        features, layouts = pickle.loads(self.paths[index].read_bytes())
        return _to_tensors(features | layouts[self.layout])


def _to_arrays(item: dict) -> dict:
    return {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in item.items()}


def _to_tensors(item: dict) -> dict:
    return {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in item.items()}


@cache
def nano() -> OmniVinciForConditionalGeneration:
    """The shipped model."""
    return OmniVinciForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32).eval()


class _TimeInTurn(TrainerCallback):
    """Another time embedding in each step. None of them has weights."""

    def __init__(self):
        self.embeddings = [
            {f"{modality}_time_embedding": build_time_embedding(config, modality) for modality in ("video", "audio")}
            for config in map(configure, IN_TURN)
        ]

    def on_step_begin(self, args, state, control, model, **kwargs) -> None:
        for name, embedding in self.embeddings[state.global_step % len(IN_TURN)].items():
            setattr(model.model, name, embedding)


def learn_projectors(folder: Path, bf16: bool) -> None:
    """Trains new weights with the time embeddings in turn, and keeps the projectors alone, unless that was done."""
    path = folder / PROJECTORS_FILE
    if not path.exists():
        model = build_model(IN_TURN[0], seed=0)
        train(model, IN_TURN[0], 0, folder, "projectors", bf16, [_TimeInTurn()])
        with new_file(path) as part:
            torch.save(_projectors(model), part)


def _projectors(model: OmniVinciForConditionalGeneration) -> dict[str, dict]:
    return {projector: getattr(model.model, projector).state_dict() for projector in PROJECTORS}


def build_model(row: str, seed: int) -> OmniVinciForConditionalGeneration:
    """New weights for a row, in float32."""
    set_seed(seed)
    model = OmniVinciForConditionalGeneration(configure(row)).float()
    model.generation_config = nano().generation_config
    return model


def name_of(start: str, row: str, seed: int) -> str:
    """What the files of a run are called."""
    return f"{start.replace(' ', '-')}-{list(ROWS).index(row)}-{seed}"


def steps_to(curve: Path) -> int | None:
    """The first step at which the loss of answers, as a mean over 50 steps, was below [`REACHED`], if any."""
    newest = max(curve.glob("runs/*"), key=lambda run: run.stat().st_mtime)  # a run that was killed has left another
    log = EventAccumulator(str(newest)).Reload()
    name = next(name for name in ("train/language_loss", "train/loss") if name in log.Tags()["scalars"])
    losses = log.Scalars(name)
    for end in range(5, len(losses) + 1):
        if statistics.mean(event.value for event in losses[end - 5 : end]) < REACHED:
            return losses[end - 1].step
    return None


def run(start: str, row: str, seed: int, folder: Path, bf16: bool) -> Result:
    """Trains and evaluates a row with a seed, from either of [`STARTS`], unless that was done before."""
    name = name_of(start, row, seed)
    path = folder / f"{name}.json"
    if not path.exists():
        model = build_model(row, seed)
        projectors = _projectors(nano()) if start == "nano" else torch.load(folder / PROJECTORS_FILE)
        for projector, weights in projectors.items():
            getattr(model.model, projector).load_state_dict(weights)
        loss = train(model, row, seed, folder, name, bf16)
        result = evaluate(model, build_processor(row), folder / "asked") | {LOSS: loss}
        with new_file(path) as part:
            part.write_text(json.dumps(result))
    return json.loads(path.read_text())


def train(model, row: str, seed: int, folder: Path, name: str, bf16: bool, callbacks: list | None = None) -> float:
    """
    Trains a model on all clips, once each.

    Args:
        model ([`OmniVinciForConditionalGeneration`]): Has nano's encoders afterwards, and is in eval mode.
        row (`str`): Of [`ROWS`]: how sequences are laid out.
        seed (`int`): Of the order of clips.
        folder (`Path`): Where the encoded clips are.
        name (`str`): Of the curve.
        bf16 (`bool`): Whether matrices are multiplied in bfloat16.
        callbacks (`list`, *optional*): Of the trainer.

    Returns:
        `float`: the mean loss of the last 50 steps.
    """
    for encoder in ENCODERS.values():
        setattr(model.model, encoder, Encoded())
    if bf16 and not torch.cuda.is_available():
        model.set_attn_implementation("eager")  # on CPUs it takes bfloat16 in two thirds of the time of "sdpa"
    trainer = OmniVinciTrainer(
        model,
        TrainingArguments(
            output_dir=str(folder / "curves" / name),
            seed=seed,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            weight_decay=0.01,
            adam_beta2=0.98,
            bf16=bf16,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            logging_first_step=True,
            logging_steps=10,
            report_to="tensorboard",
            disable_tqdm=True,
            **(get_recipe("omni").training_arguments | {"learning_rate": 4e-3}),
        ),
        train_dataset=EncodedClips(folder / "encoded", layout_of(row)),
        processing_class=build_processor(row),
        recipe=get_recipe("omni"),
        muon=True,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    for encoder in ENCODERS.values():
        setattr(model.model, encoder, copy.deepcopy(getattr(nano().model, encoder)).to(model.device))
    model.eval()
    losses = [log.get("language_loss", log["loss"]) for log in trainer.state.log_history if "loss" in log]
    return statistics.mean(losses[-5:])


def evaluate(model, processor, folder: Path) -> Result:
    """Asks about clips of the test split, from the mp4 files."""
    rows = read_rows(folder / "test.jsonl")
    answers = answer_rows(model, processor, rows, folder, batch_size=32)
    scores = {score.type: score for score in score_answers(rows, answers)}
    return {type: scores[type].accuracy for type in FORMS} | {ERROR: scores["time"].median_error}


def table(results: dict[str, list[Result]], asked: list[dict]) -> str:
    """Means and standard deviations over seeds, and the median of the error, in Markdown."""
    chances = {score.type: score.chance for score in score_answers(asked, [""] * len(asked))}
    lines = [f"| | {' | '.join((*FORMS, ERROR, LOSS, STEPS))} |", f"|---|{'---|' * (len(FORMS) + 3)}"]
    lines.append(f"| chance | {' | '.join(f'{chances[type]:.0%}' for type in FORMS)} | | | |")
    for name, runs in results.items():
        cells = [_with_deviation(runs, type, "{:.0%}") for type in FORMS]
        cells.append(f"{statistics.median(run[ERROR] for run in runs):.2f}")  # it can be infinite
        cells.append(_with_deviation(runs, LOSS, "{:.3f}"))
        cells.append(", ".join(f"{run[STEPS] or 'never'}" for run in runs))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_deviation(runs: list[Result], column: str, form: str) -> str:
    values = [run[column] for run in runs]
    numbers = [statistics.mean(values)] + ([statistics.stdev(values)] if len(values) > 1 else [])
    return " ± ".join(map(form.format, numbers))


def draw(results: dict[str, list[Result]], path: Path) -> None:
    """Bars of the means, in groups of one type of question, with a dot for each run."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(results)
    for place, (name, runs) in enumerate(results.items()):
        means = [statistics.mean(run[type] for run in runs) for type in FORMS]
        places = [index + (place + 0.5) * width - 0.4 for index in range(len(FORMS))]
        axes.bar(places, means, width=width, label=name)
        for run in runs:
            axes.plot(places, [run[type] for type in FORMS], ".", color="black", markersize=4)
    axes.set_xticks(range(len(FORMS)), FORMS)
    axes.set_ylabel("right answers (bars: means; dots: runs)")
    axes.set_ylim(0, 1.02)
    figure.legend(loc="outside upper center", fontsize=8, ncols=3)
    figure.savefig(path, dpi=110)


def report(results: dict[str, dict[str, list[Result]]], asked: list[dict], docs: Path, budget: str) -> None:
    """
    Puts the tables of the parts that were run into their places in `ablation.md`, each behind its budget, and the
    plots and all numbers beside it.
    """
    path, rows = docs / "ablation.md", results.get("nano", {})
    parts = {part: {} for part in PARTS} | {"starts": results.get("in turn", {})}
    parts["table"] = {name: runs for name, runs in rows.items() if name in TABLE}
    if any(name in rows for name in DURATIONS):
        seconds_of = {name: ROWS[name].get("group_duration", T_G) for name in (TABLE[4], *DURATIONS) if name in rows}
        parts["durations"] = {
            f"T_G {seconds_of[name]:g} s": rows[name] for name in sorted(seconds_of, key=seconds_of.get)
        }
    places = "".join(f"\n<!-- {part} --><!-- end -->\n" for part in PARTS)
    text = path.read_text(encoding="utf-8") if path.exists() else f"# Ablation\n{places}"
    for part, runs in parts.items():
        if runs:
            lines = f"<!-- {part} -->\n\n{budget}\n\n{table(runs, asked)}\n\n<!-- end -->"
            text = re.sub(f"<!-- {part} -->.*?<!-- end -->", lines, text, flags=re.DOTALL)
    path.write_text(text, encoding="utf-8")
    (docs / "ablation.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if parts["table"]:
        draw(parts["table"], docs / "ablation.png")
    if parts["durations"]:
        draw(parts["durations"], docs / "t-g.png")


@contextmanager
def cancelled_on_failure(executor: ProcessPoolExecutor) -> Iterator[None]:
    """Drops what waits in the queue, which would run before the failure is told."""
    try:
        yield
    except BaseException:
        executor.shutdown(cancel_futures=True)
        raise


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/ablation"), help="default: %(default)s")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the report goes (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each row (default: %(default)s)")
    parser.add_argument("--num-clips", type=int, default=12_800, help="to learn from (default: %(default)s)")
    parser.add_argument("--clips-per-type", type=int, default=100, help="to ask about (default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=os.cpu_count(), help="runs side by side, on a core each")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    add_bf16(parser)
    arguments = parser.parse_args()
    folder, workers = arguments.output, arguments.num_workers
    arguments.docs.mkdir(parents=True, exist_ok=True)

    forms = [form for forms in FORMS.values() for form in forms]
    asked = SyntheticDataset("test", arguments.clips_per_type * len(FORMS), config=ASKED, types=FORMS, forms=forms)
    write_dataset(folder / "asked", asked, num_workers=workers)
    forms += PRACTISED
    learned = SyntheticDataset(
        "train", arguments.num_clips, config=LEARNED, questions_per_clip=QUESTIONS_PER_CLIP, forms=forms
    )
    clips = write_dataset(folder / "clips", learned, num_workers=workers)

    console, context = Console(), get_context("spawn")
    results: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    pool = ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,))
    with pool as executor, cancelled_on_failure(executor):
        if not (folder / "encoded").exists():
            with new_folder(folder / "encoded") as part:
                tasks = [executor.submit(encode, clips, number, workers, part) for number in range(workers)]
                for task in tasks:
                    task.result()
        with_starts = "starts" in arguments.parts
        projectors = executor.submit(learn_projectors, folder, arguments.bf16) if with_starts else None
        groups = [rows for part, rows in (("table", TABLE), ("durations", DURATIONS)) if part in arguments.parts]
        jobs = [("nano", row, seed) for rows in groups for seed in range(arguments.seeds) for row in rows]
        runs = [executor.submit(run, *job, folder, arguments.bf16) for job in jobs]
        if projectors is not None:
            projectors.result()  # the other cores need not wait for them, but what follows does
            others = [("in turn", row, 0) for row in COMPARED]
            runs += [executor.submit(run, *job, folder, arguments.bf16) for job in others]
            jobs += others
        for (start, row, seed), result in zip(jobs, runs, strict=True):
            steps = steps_to(folder / "curves" / name_of(start, row, seed))
            results[start][row].append(result.result() | {STEPS: steps})
            line = f"{row}, seed {seed}, projectors {start}: {results[start][row][-1]}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    budget = f"{arguments.num_clips:,} clips, {arguments.num_clips // BATCH:,} steps of {BATCH}:"
    report(results, read_rows(folder / "asked" / "test.jsonl"), arguments.docs, budget)


if __name__ == "__main__":
    main()
