"""
Figure 6 and table 9 of the paper, in small: what GRPO does for nano, with sound and without, and with several seeds.

Nano answers questions of the synthetic world directly. It first learns, from few chats about clips with their sound
and without, to write which events it sees and hears, and when, before it answers:
`<think>…</think><answer>…</answer>`. From there GRPO goes on, rewarded for the format and for right answers, about
clips with their sound and about the same clips without it. Answers before and after are those to clips of the test
split, decoded greedily from mp4 files.

Run in TRL's environment, `make reasoning`. Data, the start and runs are kept in the folder, and not made again.
"""

import argparse
import json
import statistics
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from transformers import AutoModel, AutoProcessor, GenerationConfig
from transformers.utils import logging

from transformers_omnivinci import NANO
from transformers_omnivinci.reinforcement.grpo_command import grpo, grpo_arguments
from transformers_omnivinci.reinforcement.held_prompts import HeldPrompt
from transformers_omnivinci.reinforcement.problems import Problem, read_problems
from transformers_omnivinci.reinforcement.rewards import format_reward
from transformers_omnivinci.reinforcement.rollouts import sample_completions
from transformers_omnivinci.synthetic import SyntheticDataset, WorldConfig, events_of, write_dataset
from transformers_omnivinci.synthetic.candidates import format_seconds
from transformers_omnivinci.synthetic.clips import write_clip
from transformers_omnivinci.training import DataSource
from transformers_omnivinci.training.command import train, training_arguments
from transformers_omnivinci.training.recipes import Recipe

from ._harness import Report, to_markdown

NOTE = (
    "Right answers of nano to questions about clips of the test split, one clip a question, decoded greedily; after "
    "GRPO the mean over seeds. Answers must be right to the letter. Its start has learned the format from chats; "
    "without sound, nothing is heard in training nor when it is asked."
)
TYPES = ("visual", "audio", "synchrony", "order", "time", "counting")
WORLD = WorldConfig(clip_seconds=(4.0, 8.0), max_slots=4)
MAX_TOKENS = 96
HEARS = {"with sound": True, "without sound": False}
COLOURS = {"with sound": "#1f6fb2", "without sound": "#c8642a"}
START = Recipe("format", "a cold start for GRPO", ("language_model",))


def think(scene) -> str:
    """What is seen and heard in a scene, and when, in a line."""
    events = (f"the {event.what} at {format_seconds(event.start)}" for event in events_of(scene))
    return ", ".join(events)


def write_thoughts(path: Path, dataset: SyntheticDataset) -> Path:
    """Chats in the format about written clips, and the same about copies without their sound."""
    scenes = {sample.id: sample for sample in dataset}
    thinking = []
    for line in path.read_text().splitlines():
        for hears in HEARS.values():
            row = json.loads(line)
            sample, medium = scenes[row["id"].rpartition("-")[0]], row["messages"][0]["content"][0]
            scene = sample.scene if hears else replace(sample.scene, sounds=())
            if not hears:
                row["id"], medium["path"] = f"{row['id']}-silent", medium["path"].replace(".mp4", "-silent.mp4")
                write_clip(path.parent / medium["path"], dataset.render(sample), with_sound=False)
            answer = row["messages"][1]["content"][0]
            answer["text"] = f"<think>{think(scene)}</think><answer>{answer['text']}</answer>"
            thinking.append(json.dumps(row) + "\n")
    path = path.with_name("thinking.jsonl")
    path.write_text("".join(thinking))
    return path


def write_data(folder: Path, arguments: argparse.Namespace) -> tuple[Path, Path, Path]:
    """Chats in the format, questions for GRPO, and held-out questions."""
    splits = {"start": ("train", arguments.start_clips, 11), "train": ("train", arguments.clips, 12)}
    splits["test"] = ("test", arguments.test_clips * len(TYPES), 13)
    paths = []
    for name, (split, count, seed) in splits.items():
        dataset = SyntheticDataset(split, count, seed, WORLD, TYPES)
        path = write_dataset(folder / name, dataset)
        paths.append(write_thoughts(path, dataset) if name == "start" else path)
    return tuple(paths)


def learn_format(folder: Path, data: Path, steps: int, rounds: int) -> Path:
    """Nano after some steps on chats in the format, in rounds with a schedule of their own."""
    model = NANO
    for number in range(1, rounds + 1):
        run = folder / f"start-{number}"
        if not (run / "model.safetensors").is_file():
            words = ["--max-steps", str(steps), "--per-device-train-batch-size", "16", "--learning-rate", "2e-3"]
            words += ["--save-strategy", "no", "--report-to", "none", "--use-cpu", "True", "--seed", str(number)]
            options = training_arguments(START, run, words, with_evaluation=False)
            train(START, [DataSource(data)], str(model), options, muon=True)
        model = run
    return model


def run_grpo(folder: Path, start: Path, data: Path, hears: bool, seed: int, arguments) -> list[dict]:
    """The log of a run."""
    state = folder / "trainer_state.json"
    if not state.is_file():
        words = {
            "max-steps": arguments.steps,
            "per-device-train-batch-size": 8 * arguments.prompts,
            "gradient-accumulation-steps": 1,
            "num-generations": 8,
            "max-completion-length": MAX_TOKENS,
            "learning-rate": arguments.learning_rate,
            "lr-scheduler-type": "constant",
            "beta": arguments.beta,
            "seed": seed,
            "data-seed": seed,
            "save-strategy": "no",
            "report-to": "none",
            "log-completions": False,
            "gradient-checkpointing": False,
            "use-cpu": True,
        }
        options = grpo_arguments(folder, [str(word) for name, value in words.items() for word in (f"--{name}", value)])
        grpo([data], str(start), options, instruction="", load_audio_from_video=hears, num_frames=16)
    return [entry for entry in json.loads(state.read_text())["log_history"] if "rewards/accuracy/mean" in entry]


@torch.no_grad()
def answer(model: str | Path, problems: list[Problem], hears: bool, batch_size: int = 40) -> list[str]:
    """What a model answers, greedily."""
    network = AutoModel.from_pretrained(model, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(model)
    config = GenerationConfig(
        max_new_tokens=MAX_TOKENS,
        do_sample=False,
        eos_token_id=network.generation_config.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    answers = []
    for first in range(0, len(problems), batch_size):
        held = [
            HeldPrompt.of(processor, problem.messages, load_audio_from_video=hears, num_frames=16)
            for problem in problems[first : first + batch_size]
        ]
        completions = sample_completions(network, held, config)
        answers += processor.batch_decode(completions, skip_special_tokens=True)
    return answers


def score(path: Path, model: str | Path, problems: list[Problem], hears: bool) -> dict[str, float]:
    """Shares of right answers by type, of all, and of those in the format; kept in a file."""
    if not path.is_file():
        earned = defaultdict(list)
        for problem, text in zip(problems, answer(model, problems, hears), strict=True):
            for name in (problem.row["question_type"], "all"):
                earned[name].append(problem.accuracy(text))
            earned["format"].append(format_reward(text))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({name: statistics.mean(values) for name, values in earned.items()}))
    return json.loads(path.read_text())


def draw(curves: dict[str, list[list[dict]]], path: Path) -> None:
    """Rewards over steps: each seed thinly, their mean over five steps boldly."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("accuracy", "format"), strict=True):
        for hearing, runs in curves.items():
            colour, values = COLOURS[hearing], []
            for run in runs:
                values.append([entry[f"rewards/{name}/mean"] for entry in run])
                axes.plot(range(1, len(run) + 1), values[-1], color=colour, alpha=0.2, linewidth=0.8)
            mean = [statistics.mean(step) for step in zip(*values, strict=True)]
            smooth = [statistics.mean(mean[max(0, place - 4) : place + 1]) for place in range(len(mean))]
            axes.plot(range(1, len(smooth) + 1), smooth, color=colour, linewidth=2, label=hearing)
        axes.set_title(f"{name} reward")
        axes.set_xlabel("steps of GRPO")
        axes.set_ylim(0, 1.02)
        axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reasoning", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="where data, the start and runs are kept")
    parser.add_argument("--plot", type=Path, default=Path("docs/reasoning.png"), help="default: docs/reasoning.png")
    parser.add_argument("--seeds", type=int, default=3, help="runs with sound, and as many without; default: 3")
    parser.add_argument("--steps", type=int, default=40, help="of GRPO; default: 40")
    parser.add_argument("--prompts", type=int, default=8, help="of a step, 8 completions each; default: 8")
    parser.add_argument("--learning-rate", type=float, default=3e-5, help="of GRPO; default: 3e-5")
    parser.add_argument("--beta", type=float, default=0.0, help="weight of the KL divergence; default: 0")
    parser.add_argument("--start-steps", type=int, default=100, help="on chats in the format, 16 a step; default: 100")
    parser.add_argument("--start-rounds", type=int, default=2, help="of these steps, one after another; default: 2")
    parser.add_argument(
        "--start-clips", type=int, default=600, help="of these chats, also without sound; default: 600"
    )
    parser.add_argument("--clips", type=int, default=96, help="questions for GRPO; default: 96")
    parser.add_argument("--test-clips", type=int, default=15, help="held-out questions of a type; default: 15")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    folder = arguments.folder
    chats, data, test = write_data(folder / "data", arguments)
    start = learn_format(folder, chats, arguments.start_steps, arguments.start_rounds)
    problems = read_problems(test, "")
    direct = score(folder / "nano.json", NANO, problems, True)
    before = {
        hearing: score(folder / f"start-{number}.json", start, problems, hears)
        for number, (hearing, hears) in enumerate(HEARS.items())
    }
    curves, after = defaultdict(list), defaultdict(list)
    for seed in range(arguments.seeds):
        for hearing, hears in HEARS.items():
            run = folder / f"{hearing.replace(' ', '-')}-{seed}"
            curves[hearing].append(run_grpo(run, start, data, hears, seed, arguments))
            after[hearing].append(score(run / "score.json", run, problems, hears))
            print(hearing, seed, after[hearing][-1], flush=True)
    rows = [{"right answers": "nano, answers directly", **_shares([direct])}]
    for hearing in HEARS:
        rows.append({"right answers": f"{hearing}, before", **_shares([before[hearing]])})
        rows.append({"right answers": f"{hearing}, after", **_shares(after[hearing])})
    draw(curves, arguments.plot)
    report = Report("reasoning", vars(arguments), NOTE)
    report.add("Right answers before and after GRPO", rows)
    print(to_markdown(rows))
    for hearing, runs in curves.items():
        for name in ("accuracy", "format"):
            ends = [_mean_of(run[:5], name) for run in runs], [_mean_of(run[-5:], name) for run in runs]
            told = ["–".join(f"{one:.2f}" for one in (min(end), max(end))) for end in ends]
            print(f"{hearing}, {name} reward: {told[0]} in the first five steps, {told[1]} in the last five")
    report.save()


def _mean_of(log: list[dict], name: str) -> float:
    return statistics.mean(entry[f"rewards/{name}/mean"] for entry in log)


def _shares(scores: list[dict[str, float]]) -> dict[str, str]:
    """Means over runs, and where there are several, the least and the most of all types."""
    shares = {name: f"{100 * statistics.mean(one[name] for one in scores):.1f}%" for name in (*TYPES, "all", "format")}
    if len(scores) > 1:
        ends = [100 * one["all"] for one in scores]
        shares["all"] += f" ({min(ends):.1f}–{max(ends):.1f})"
    return shares


if __name__ == "__main__":
    main()
