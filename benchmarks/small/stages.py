"""The stages of `make small`. Each finds what is done, goes on with what is not, and leaves nothing half-written."""

import json
import resource
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor
from transformers.trainer_utils import get_last_checkpoint

from transformers_omnivinci.new_file import new_file
from transformers_omnivinci.new_folder import new_folder
from transformers_omnivinci.tasks import write_rows

from .._harness import run_training
from . import parts
from .alignment import Span, align_set, read_spans
from .averaging import average_encoder
from .data import SpeechSet, read_rows, write_set
from .evaluation import evaluate
from .loading import load
from .recordings import fetch_arctic, list_librivox
from .remembering import remember
from .voices import UNSEEN, check_voices, gather_foreign, gather_voices
from .warm_up import warm_up

UTTERANCES_PER_HOUR = 4_000
"""What two cores train on; see docs/small.md for how it was measured."""
ALIGNED = 0.05
"""The share of utterances that the projector learns from alone."""
WARM_UP = {"num_train_epochs": 2, "learning_rate": 1e-3, "per_device_train_batch_size": 16, "save_total_limit": 1}
"""Of all utterances; each takes less than half of what it takes where the language model is run."""
TEXTS = 0.1
"""Chats without sound beside the utterances of the last stage, answered as the language model did before."""
EVALUATED = 100
HELD_OUT = ("seen", "unseen", "foreign", "real")
"""Sets that are never trained on."""
CHOSEN_BY = "foreign"
"""The one by which the share of what the encoder has learned is chosen."""
SCORED = ("unseen", "real")
"""Sets by which ways of training are compared."""
RATES = {"audio-1": 3e-4, "audio-2": 2e-4}
"""Learning rates: those of the recipes suit models that have learned before."""


@dataclass(frozen=True)
class Plan:
    """
    How much is trained, and where everything lies.

    Attributes:
        work (`Path`): The folder of parts, speech and runs.
        utterances (`int`): How many are rendered to train on.
        epochs (`int`): How often each of them is trained on.
        batch (`int`): How many a step takes.
        seed (`int`): Of all that is drawn.
        workers (`int`): Processes that render, threads that train on a CPU, and processes that read for a GPU.
        encoder (`str`): Whose it is, one of [`parts.WHISPERS`].
        pooling (`str`): The compression of the audio sequence.
        bf16 (`bool`): Whether matrices are multiplied in bfloat16, which processors that know it do in half the time.
    """

    work: Path
    utterances: int
    epochs: int = 1
    batch: int = 8
    seed: int = 0
    workers: int = 2
    encoder: str = "base"
    pooling: str = "avg"
    bf16: bool = False

    @property
    def aligned(self) -> int:
        """How many utterances the first stage takes."""
        return max(self.batch, round(ALIGNED * self.utterances))

    @property
    def runs(self) -> Path:
        """The folder of both stages: other budgets have others."""
        return self.work / f"{self.encoder}-{self.pooling}-{self.utterances}x{self.epochs}-{self.batch}"


def prepare_parts(plan: Plan) -> Path:
    """Assembles the checkpoint that training starts from."""
    whisper = parts.make_whisper(plan.work, plan.encoder)
    name = f"assembled-{plan.encoder}-{plan.pooling}-{parts.WINDOW:g}s"
    return parts.assemble(plan.work / name, whisper, plan.pooling, seed=plan.seed)


def count_encoder(plan: Plan) -> int:
    """Parameters of what hears, before its projector."""
    model, _ = load(prepare_parts(plan))
    return sum(parameter.numel() for parameter in model.model.audio_tower.parameters())


def prepare_speech(plan: Plan) -> dict[str, Path]:
    """
    Renders what is trained on and evaluated. Held-out sentences are read by known voices (`seen`) and by some that
    are never trained on: one of a program (`unseen`), and speakers of other languages (`foreign`).

    Returns:
        `dict[str, Path]`: files of rows: `train`, `seen`, `unseen`, `foreign` and `real`.
    """
    voices = gather_voices(plan.work)
    check_voices((*voices, UNSEEN))
    packages = parts.unpack_packages(plan.work / "packages")
    trained, held_out = parts.split_texts(parts.read_texts(packages))
    speech = {
        "train": (SpeechSet(trained, voices, plan.seed), plan.utterances),
        "seen": (SpeechSet(held_out, voices, plan.seed + 1), EVALUATED),
        "unseen": (SpeechSet(held_out, (UNSEEN,), plan.seed + 2, varied=False), EVALUATED),
        "foreign": (SpeechSet(held_out, gather_foreign(plan.work), plan.seed + 4, varied=False), EVALUATED),
    }
    rows = {name: write_set(plan.work / name, one, count, plan.workers) for name, (one, count) in speech.items()}
    rows["real"] = plan.work / "real.jsonl"
    write_rows(rows["real"], [*list_librivox(packages), fetch_arctic(plan.work / "recordings")])
    return rows


def split_rows(plan: Plan, train: Path) -> dict[str, Path]:
    """The rows of each recipe, beside the file of all of them."""
    lines = train.read_text().splitlines(keepends=True)
    files = {"audio-1": lines[: plan.aligned], "audio-2": lines[plan.aligned :]}
    paths = {}
    for recipe, mine in files.items():
        paths[recipe] = train.parent / f"{recipe}-{plan.utterances}.jsonl"
        if not paths[recipe].is_file():
            with new_file(paths[recipe]) as new:
                new.write_text("".join(mine))
    return paths


def train(recipe: str, model: Path, data: Sequence[Path], output: Path, plan: Plan, *options: str) -> Path:
    """
    Runs `omnivinci train`, or goes on with a run that was interrupted.

    Args:
        recipe: `audio-1` or `audio-2`.
        model: The checkpoint to begin with.
        data: Files of rows.
        output: The folder of the run.
        plan: Seed and threads.
        options: Further ones of the command; they win.

    Raises:
        OSError: the command failed.
    """
    if (output / "config.json").is_file():
        return output
    has_gpu = torch.cuda.is_available()
    # The encoder has learned in the warm-up. With a rate of these stages it would forget all voices but its own.
    chosen = ["--freeze", "audio_encoder", "--learning-rate", str(RATES[recipe]), "--seed", str(plan.seed)]
    chosen += ["--num-train-epochs", str(plan.epochs), "--per-device-train-batch-size", str(plan.batch)]
    chosen += ["--dataloader-num-workers", str(plan.workers if has_gpu else 1)]
    chosen += ["--save-total-limit", "1", "--save-steps", "1000" if has_gpu else "100"]
    if output.is_dir() and get_last_checkpoint(str(output)):
        chosen += ["--resume-from-checkpoint", "True"]
    threads = 1 if has_gpu else plan.workers
    run_training(recipe, model, data, output, *chosen, *options, bf16=plan.bf16, threads=threads)
    return output


def align_rows(plan: Plan, assembled: Path, path: Path) -> tuple[list[dict], list[list[Span]]]:
    """The rows of a set, and when the tokens of each are said, as far as that is not known."""
    align_set(path, parts.make_whisper(plan.work), assembled, plan.workers, plan.bf16)
    rows, spans = read_rows(path), {}
    sounds = [row["messages"][0]["content"][0]["path"] for row in rows]
    for shard in sorted({Path(sound).parent for sound in sounds}):
        spans |= {str(path.parent / name): found for name, found in read_spans(shard).items()}
    return rows, [spans[sound] for sound in sounds]


def warm_up_all(plan: Plan, assembled: Path, path: Path) -> Path:
    """Warms the assembled checkpoint up by all utterances, unless that is done."""
    has_gpu = torch.cuda.is_available()
    torch.set_num_threads(1 if has_gpu else plan.workers)
    return warm_up(
        assembled,
        *align_rows(plan, assembled, path),
        plan.runs / "warm-up",
        use_cpu=not has_gpu,
        dataloader_num_workers=plan.workers if has_gpu else 1,
        bf16=plan.bf16,
        seed=plan.seed,
        save_steps=1000 if has_gpu else 100,
        **WARM_UP,
    )


def train_all(plan: Plan, assembled: Path, rows: dict[str, Path]) -> Path:
    """Warm-up and both stages, unless that is done. Returns the checkpoint of the last one."""
    last = plan.runs / "audio-2"
    if (last / "config.json").is_file():
        return last
    files = split_rows(plan, rows["train"])
    warm = warm_up_all(plan, assembled, rows["train"])
    said = [json.loads(line)["messages"][-1]["content"] for line in files["audio-1"].read_text().splitlines()]
    count = max(2, round(TEXTS * (plan.utterances - plan.aligned)))
    chats = remember(plan.work / f"chats-{count}-{plan.seed}.jsonl", assembled, said, count, plan.seed)
    first = train("audio-1", warm, [files["audio-1"]], plan.runs / "audio-1", plan)
    return train("audio-2", first, [files["audio-2"], chats], last, plan)


def average(plan: Plan, assembled: Path, checkpoint: Path, rows: dict[str, Path]) -> Path:
    """The trained model with the encoder that understands voices best which it never heard, unless that is done."""
    return average_encoder(checkpoint, assembled, read_rows(rows[CHOSEN_BY]), plan.runs / "averaged")


def score(plan: Plan, rows: dict[str, Path]) -> dict:
    """
    Trains and evaluates a model, as far as that is not done.

    Returns:
        `dict`: of each of [`SCORED`], as of [`evaluate`].
    """
    path = plan.runs / "scores.json"
    if not path.is_file():
        model = train_all(plan, prepare_parts(plan), rows)
        found = evaluate(model, {name: read_rows(rows[name]) for name in SCORED})
        with new_file(path) as new:
            new.write_text(json.dumps(found, indent=1) + "\n")
    return json.loads(path.read_text())


def publish(checkpoint: Path, destination: Path) -> Path:
    """
    Copies the weights and the processor of a run, without its checkpoints, to where the model is used from.

    Raises:
        OSError: there is something else than a checkpoint.
    """
    with new_folder(destination, force=True) as new:
        AutoModel.from_pretrained(checkpoint).save_pretrained(new)
        AutoProcessor.from_pretrained(checkpoint).save_pretrained(new)
    return destination


def measure_step(plan: Plan, recipe: str, model: Path, data: Path, steps: int = 4) -> float:
    """
    Seconds of processor time that a step takes, all threads together, from two runs that differ in length.

    Args:
        plan: Seed and threads.
        recipe, model, data: As of [`train`].
        steps: By how many the runs differ.
    """
    took, output = [], plan.work / "measured"
    for number in (1, 1 + steps):
        shutil.rmtree(output, ignore_errors=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        train(recipe, model, [data], output, plan, "--max-steps", str(number), "--save-strategy", "no")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    shutil.rmtree(output)
    return (took[1] - took[0]) / steps
