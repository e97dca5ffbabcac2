"""
Table 1 of the paper, in small: what Temporal Embedding Grouping, the time embeddings, OmniAlignNet and T_G do for a
model of nano's size, under one budget of training in the synthetic world.

As in the paper, each sense is learned alone first: nano's pictures, then silent clips and sounds, without time
embeddings. From there, all runs see the same clips, in the order of their seed; learned time embeddings and
OmniAlignNets are new. Runs that are done are not done again.

At the default budget, the rows without CRTE stay at chance where both senses are needed (one seed): it takes more.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from transformers import set_seed

from transformers_omnivinci import OmniVinciConfig, OmniVinciForConditionalGeneration, OmniVinciProcessor

# Clips of three slots at most: short enough for a small budget, long enough for an order. Nobody counts to four.
# They differ in length, and so in the seconds between frames: a frame's position alone does not tell its time.
WORLD = {"clip_seconds": [4.0, 8.0], "max_slots": 3, "num_frames": 8}
TYPES = ("visual", "audio", "synchrony", "order", "time")
LEARNED = (*TYPES, "matching")
# Of silent clips: nothing that moves, as few frames show it, and no seconds.
SEEN = ("first_colour", "first_form", "last_colour", "last_form", "colour_of_form", "form_of_colour")
SEEN = (*SEEN, "colour_of_form_each", "form_of_colour_each")
HEARD = ("first_sound", "last_sound", "sound_after_sound", "sound_before_sound", "sound_start", "sound_start_each")
HEARD = (*HEARD, "sound_after_sound_each", "sound_before_sound_each")
ERROR = "median error (s)"
T_G = 1.0
WINDOW_SECONDS = 3.0


def _time(kind: str) -> dict:
    return {"video_time_embedding": kind, "audio_time_embedding": kind}


ROWS = {
    "token concatenation": {**_time("none"), "interleave_audio_in_video": False},
    "+ TEG": _time("none"),
    "+ TEG + learned time embedding": _time("learned"),
    "+ TEG + RoTE": _time("rote"),
    "+ TEG + CRTE": _time("crte"),
    "+ TEG + CRTE + OmniAlignNet": {**_time("crte"), "align_loss_weight": 0.1},
    **{f"+ TEG + CRTE, T_G {seconds:g} s": {"group_duration": seconds} for seconds in (0.5, 3.0)},
}
"""Settings of the config in each row. Others are nano's; T_G is `T_G`."""

# Models are loaded by one thread at a time: meanwhile, those of other threads would have no data.
_ALONE = threading.Lock()

Result = dict[str, float]
"""Shares of right answers by type, and the median error in time."""


def prepare(learned: Path, settings: dict, seed: int, folder: Path) -> None:
    """
    Makes the checkpoint that a run begins with.

    Args:
        learned (`Path`): Checkpoint with the weights that have learned something.
        settings (`dict`): Of the config.
        seed (`int`): Of the weights that have learned nothing yet.
        folder (`Path`): Of the checkpoint to be.
    """
    weights = OmniVinciForConditionalGeneration.from_pretrained(learned, dtype=torch.float32).state_dict()
    config = OmniVinciConfig.from_pretrained(learned)
    for name, value in ({"group_duration": T_G} | settings).items():
        setattr(config, name, value)
    set_seed(seed)
    model = OmniVinciForConditionalGeneration(config)
    model.load_state_dict(weights, strict=False)
    model.save_pretrained(folder)
    processor = OmniVinciProcessor.from_pretrained(learned)
    for name, value in OmniVinciProcessor.settings_of(config).items():
        setattr(processor, name, value)
    processor.video_processor.num_frames = WORLD["num_frames"]
    # To whole windows, not 30 s: token concatenation alone would keep the silence.
    processor.audio_pad_to_multiple_of = WINDOW_SECONDS
    processor.save_pretrained(folder)


def learn_senses(arguments: argparse.Namespace) -> Path:
    """What all runs begin with, unless that was done before: nano, after its pictures, learns each sense alone."""
    folder = arguments.output / "senses"
    result = folder / "run"
    if not (result / "model.safetensors").exists():
        shutil.rmtree(folder, ignore_errors=True)
        prepare(arguments.pictures, _time("none"), 0, folder / "start")
        count = ("--num-clips", arguments.num_single)
        _synthesize(arguments, folder, *count, "--questions-per-clip", len(SEEN), *_options("--form", SEEN))
        options = (*count, "--modality", "audio", "--questions-per-clip", len(HEARD), *_options("--form", HEARD))
        _synthesize(arguments, folder, *options)
        data = ("--data", folder / "train.jsonl", "--data", folder / "train-audio.jsonl", "--no-audio")
        _train(folder / "start", result, *data, processes=arguments.num_workers)
    return result


def run(name: str, seed: int, learned: Path, arguments: argparse.Namespace) -> Result:
    """Trains and evaluates a row with a seed, on one core, unless that was done before."""
    folder = arguments.output / f"{list(ROWS).index(name)}-{seed}"
    scores = folder / "scores.json"
    if not scores.exists():
        shutil.rmtree(folder, ignore_errors=True)
        with _ALONE:
            prepare(learned, ROWS[name], seed, folder / "start")
        _train(folder / "start", folder / "run", "--data", arguments.output / "clips" / "train.jsonl", "--seed", seed)
        # Runs side by side would wait for each other's lock on the clips.
        shutil.copytree(arguments.output / "asked", folder / "asked", copy_function=os.link)
        _omnivinci(
            *("eval", "--suite", "synthetic", "--model", folder / "run", "--folder", folder / "asked"),
            *("--world", arguments.output / "world.json", "--clips-per-type", arguments.clips_per_type),
            *("--senses", "both", "--batch-size", 32, "--output", scores, *_options("--type", TYPES)),
        )
    read = json.loads(scores.read_text())
    error = next(score["median_error"] for score in read if score["type"] == "time")
    return {score["type"]: score["accuracy"] for score in read} | {ERROR: error}


def _synthesize(arguments: argparse.Namespace, folder: Path, *options) -> None:
    world = arguments.output / "world.json"
    _omnivinci("synthesize", "--output", folder, "--world", world, "--num-workers", arguments.num_workers, *options)


def _train(start: Path, output: Path, *options, processes: int = 1) -> None:
    """Once through the data, on one core a process, 8 clips at a time in each."""
    _omnivinci(
        *("train", "--recipe", "full", "--model", start, "--output", output, "--share-media", "--use-cpu", "True"),
        *("--muon", "--weight-decay", 0.01, "--adam-beta2", 0.98, "--learning-rate", 2e-3),
        *("--per-device-train-batch-size", 8, "--num-train-epochs", 1, "--save-strategy", "no", *options),
        *("--ddp-find-unused-parameters", "True"),
        processes=processes,
    )


def _options(name: str, values) -> list[str]:
    return [part for value in values for part in (name, value)]


def _omnivinci(*arguments, processes: int = 1) -> None:
    """Runs a command of the package."""
    launch = ("torch.distributed.run", "--nproc-per-node", processes, "-m") if processes > 1 else ()
    command = [sys.executable, "-m", *map(str, (*launch, "transformers_omnivinci.cli", *arguments))]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")


def table(results: dict[str, list[Result]]) -> str:
    """Means and standard deviations over seeds, and the median of the error, in Markdown."""
    columns = (*TYPES, ERROR)
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, runs in results.items():
        shares = [[run[type] for run in runs] for type in TYPES]
        cells = [f"{statistics.mean(share):.0%} ± {statistics.stdev(share):.0%}" for share in shares]
        cells.append(f"{statistics.median(run[ERROR] for run in runs):.2f}")  # it can be infinite
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: dict[str, list[Result]], path: Path, legend: str) -> None:
    """Bars of the means, with standard deviations, in groups of one type of question."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(results)
    for place, (name, runs) in enumerate(results.items()):
        values = [[run[type] for run in runs] for type in TYPES]
        axes.bar(
            [index + (place + 0.5) * width - 0.4 for index in range(len(TYPES))],
            [statistics.mean(value) for value in values],
            width=width,
            yerr=[statistics.stdev(value) for value in values],
            label=name,
            capsize=2,
        )
    axes.set_xticks(range(len(TYPES)), TYPES)
    axes.set_ylabel("right answers")
    axes.set_ylim(0, 1)
    axes.legend(title=legend, fontsize=8, ncols=2)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    parser.add_argument(
        "--pictures", type=Path, default="build/nano/1", help="nano after its first stage (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("build/ablation"), help="default: %(default)s")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the plots go (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each row (default: %(default)s)")
    parser.add_argument(
        "--num-single",
        type=int,
        default=7000,
        help="silent clips and sounds to learn from first (default: %(default)s)",
    )
    parser.add_argument("--num-clips", type=int, default=3200, help="to learn from then (default: %(default)s)")
    parser.add_argument("--clips-per-type", type=int, default=100, help="to ask about (default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=os.cpu_count(), help="runs side by side")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "world.json").write_text(json.dumps(WORLD))
    types = _options("--type", TYPES)
    learned = learn_senses(arguments)
    options = ("--num-clips", arguments.num_clips, "--questions-per-clip", 16, *_options("--type", LEARNED))
    _synthesize(arguments, arguments.output / "clips", *options)
    count = arguments.clips_per_type * len(TYPES)
    _synthesize(arguments, arguments.output / "asked", "--split", "test", "--num-clips", count, *types)
    console, jobs = Console(), [(name, seed) for seed in range(arguments.seeds) for name in ROWS]
    results: dict[str, list[Result]] = {name: [] for name in ROWS}
    with ThreadPoolExecutor(arguments.num_workers) as executor:
        for (name, seed), result in zip(
            jobs, executor.map(lambda job: run(*job, learned, arguments), jobs), strict=True
        ):
            results[name].append(result)
            console.print(name, seed, result, highlight=False, soft_wrap=True)
    console.print(table(results), markup=False, highlight=False, soft_wrap=True)
    arguments.docs.mkdir(exist_ok=True)
    durations = {ROWS[name].get("group_duration", T_G): runs for name, runs in results.items() if "T_G" in name}
    durations[T_G] = results["+ TEG + CRTE"]
    draw({f"{seconds:g}": durations[seconds] for seconds in sorted(durations)}, arguments.docs / "t-g.png", "T_G (s)")
    parts = {name: runs for name, runs in results.items() if "T_G" not in name}
    draw(parts, arguments.docs / "ablation.png", "")


if __name__ == "__main__":
    main()
