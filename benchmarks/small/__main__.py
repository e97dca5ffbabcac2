"""
`make small`: parts, speech, training and evaluation of a small model that transcribes English.

    python -m benchmarks.small [all|data|assemble|warm-up|train|evaluate|speed|pooling|encoders] [--hours H]

What is done is not done again: an interrupted run goes on by the same command.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from transformers_omnivinci.new_folder import check_vacant

from .._harness import Report, add_bf16
from . import parts, stages
from .data import read_rows
from .evaluation import answer_questions, evaluate, measure_latencies, misses_by_count
from .stages import Plan
from .texts import QUESTIONS
from .warm_up import share_heard

POOLINGS = ("none", "conv", "avg", "max")


def run_all(plan: Plan, arguments: argparse.Namespace) -> None:
    """Everything, one stage after another."""
    check_vacant(arguments.output, force=True)  # before a night is spent
    assembled, rows = stages.prepare_parts(plan), stages.prepare_speech(plan)
    trained = stages.train_all(plan, assembled, rows)
    model = stages.publish(stages.average(plan, assembled, trained, rows), arguments.output)
    print(f"{model} holds the model: omnivinci ask SOUND 'Transcribe the speech.' --model {model}")
    run_evaluate(plan, arguments)


def run_data(plan: Plan, arguments: argparse.Namespace) -> None:
    """The speech alone."""
    for name, path in stages.prepare_speech(plan).items():
        rows = read_rows(path)
        print(f"{name}: {len(rows):,} utterances, {sum(row['seconds'] for row in rows) / 3600:.2f} h, {path}")


def run_assemble(plan: Plan, arguments: argparse.Namespace) -> None:
    """The checkpoint that training starts from."""
    print(stages.prepare_parts(plan))


def run_warm_up(plan: Plan, arguments: argparse.Namespace) -> None:
    """The warm-up alone, and what is heard after it."""
    assembled, rows = stages.prepare_parts(plan), stages.prepare_speech(plan)
    model = stages.warm_up_all(plan, assembled, rows["train"])
    report = Report(
        "small-warm-up",
        vars(arguments),
        "Positions whose embedding is nearest to that of the token that is said, of all that the set says.",
    )
    asked = {name: stages.align_rows(plan, assembled, rows[name]) for name in stages.HELD_OUT}
    report.add(
        "Positions",
        [{"speech": name, "heard %": 100 * share_heard(model, *found)} for name, found in asked.items()],
    )
    report.save()


def run_train(plan: Plan, arguments: argparse.Namespace) -> None:
    """Both stages of training, with what they need."""
    print(stages.train_all(plan, stages.prepare_parts(plan), stages.prepare_speech(plan)))


def run_evaluate(plan: Plan, arguments: argparse.Namespace) -> None:
    """Word error rates beside Whisper tiny.en's, and answers beside the original's."""
    if not (arguments.output / "config.json").is_file():
        raise OSError(f"{arguments.output} holds no model yet: `python -m benchmarks.small` makes it.")
    paths, assembled = stages.prepare_speech(plan), stages.prepare_parts(plan)
    sets = {name: read_rows(paths[name]) for name in stages.HELD_OUT}
    results = evaluate(arguments.output, sets, parts.make_whisper(plan.work))
    report = Report("small", vars(arguments), "Greedy decoding; texts are normalized as Whisper's are.")
    report.add(
        "Word error rates",
        [
            {
                "speech": name,
                "utterances": len(sets[name]),
                "WER %": 100 * found["wer"],
                "Whisper tiny.en %": 100 * found["whisper_wer"],
                "seconds for one of speech (s)": found["seconds"],
            }
            for name, found in results.items()
        ],
    )
    trained = [row["messages"][-1]["content"] for row in read_rows(paths["train"])]
    for name in stages.SCORED:
        texts = [transcript["written"] for transcript in results[name]["transcripts"]]
        report.add(f"Words of {name} by how often they were trained on", misses_by_count(sets[name], texts, trained))
    for name, found in results.items():
        report.add(f"The first of {name}", found["transcripts"][:5])
    own, before = answer_questions(arguments.output), answer_questions(assembled)
    report.add(
        "Text",
        [
            {"question": question, "SmolLM2": old, "trained": new}
            for question, old, new in zip(QUESTIONS, before, own, strict=True)
        ],
    )
    report.save()


def run_speed(plan: Plan, arguments: argparse.Namespace) -> None:
    """What a step takes, and with it a night."""
    assembled, rows = stages.prepare_parts(plan), stages.prepare_speech(plan)
    data = stages.split_rows(plan, rows["train"])["audio-1"]
    report = Report("small-speed", vars(arguments), f"Steps of {plan.batch} utterances; processor time.")
    took = {recipe: stages.measure_step(plan, recipe, assembled, data) for recipe in stages.RATES}
    share = {"audio-1": stages.ALIGNED, "audio-2": 1 - stages.ALIGNED}
    per_utterance = sum(took[recipe] * share[recipe] for recipe in took) / plan.batch
    report.add("Steps", [{"recipe": recipe, "a step (s)": seconds} for recipe, seconds in took.items()])
    report.add("Both", [{"an utterance (s)": per_utterance, "utterances per hour of a core": 3600 / per_utterance}])
    report.save()


def run_pooling(plan: Plan, arguments: argparse.Namespace) -> None:
    """Table 18 of the paper in small: how the audio sequence is compressed, after the same number of utterances."""

    def count_embeddings(pooling: str) -> int:
        """Of a minute: the encoder gives 25 in a second."""
        return 60 * 25 // (1 if pooling == "none" else 2)

    report = Report("small-pooling", vars(arguments), describe_budget(plan))
    report.add(
        "Table 18 in small",
        [
            {"compression": pooling, "embeddings per minute": count_embeddings(pooling), **measured}
            for pooling, measured in measure_each(plan, "pooling", POOLINGS).items()
        ],
    )
    report.save()


def run_encoders(plan: Plan, arguments: argparse.Namespace) -> None:
    """Table 17 of the paper in small: whose encoder hears, after the same number of utterances."""
    report = Report("small-encoders", vars(arguments), describe_budget(plan))
    report.add(
        "Table 17 in small",
        [
            {"encoder": encoder, "parameters": stages.count_encoder(replace(plan, encoder=encoder)), **measured}
            for encoder, measured in measure_each(plan, "encoder", parts.WHISPERS).items()
        ],
    )
    report.save()


def describe_budget(plan: Plan) -> str:
    """What each model is trained on that is compared."""
    return f"{plan.utterances:,} utterances each, {plan.epochs} times."


def measure_each(plan: Plan, field: str, choices: Sequence[str]) -> dict[str, dict[str, float]]:
    """Word error rates and latencies of models that differ in a field of their plans, by what was chosen."""
    plans = {choice: replace(plan, **{field: choice}) for choice in choices}
    rows = stages.prepare_speech(plan)
    found = {choice: stages.score(one, rows) for choice, one in plans.items()}
    checkpoints = {choice: stages.prepare_parts(one) for choice, one in plans.items()}
    latencies = measure_latencies(checkpoints, read_rows(rows["unseen"])[0])
    return {
        choice: {
            **{f"WER {name} %": 100 * found[choice][name]["wer"] for name in stages.SCORED},
            "latency (s)": latencies[choice],
        }
        for choice in choices
    }


COMMANDS = {
    "all": run_all,
    "data": run_data,
    "assemble": run_assemble,
    "warm-up": run_warm_up,
    "train": run_train,
    "evaluate": run_evaluate,
    "speed": run_speed,
    "pooling": run_pooling,
    "encoders": run_encoders,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.small", description=__doc__.strip().splitlines()[0])
    parser.add_argument("command", nargs="?", choices=COMMANDS, default="all")
    parser.add_argument("--hours", type=float, default=8.0, help="of training on two cores; default: 8")
    parser.add_argument("--utterances", type=int, help="to train on; default: 4,000 for each of the hours")
    parser.add_argument("--epochs", type=int, default=1, help="how often each is trained on; default: 1")
    parser.add_argument("--batch", type=int, default=8, help="utterances of a step; default: 8")
    parser.add_argument("--encoder", choices=parts.WHISPERS, default=Plan.encoder, help="the Whisper whose it is")
    parser.add_argument("--work", type=Path, default=Path("build/small-work"), help="parts, speech and runs")
    parser.add_argument("--output", type=Path, default=Path("build/small"), help="the model")
    parser.add_argument("--workers", type=int, default=2, help="processes that render, threads that train")
    parser.add_argument("--seed", type=int, default=0)
    add_bf16(parser)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a training would outlive this process, and go on alone
    try:
        if not 0 < arguments.hours <= 1000 or min(arguments.workers, arguments.epochs, arguments.batch) < 1:
            raise ValueError(
                "`--hours` between 0 and 1,000, and at least one worker, one epoch and one utterance in a batch are "
                "accepted."
            )
        utterances = arguments.utterances or round(arguments.hours * stages.UTTERANCES_PER_HOUR)
        if utterances < 2 * arguments.batch:
            raise ValueError(f"{utterances} utterances were asked for: at least two batches are accepted.")
        plan = Plan(
            arguments.work,
            utterances,
            arguments.epochs,
            arguments.batch,
            arguments.seed,
            arguments.workers,
            arguments.encoder,
            bf16=arguments.bf16,
        )
        COMMANDS[arguments.command](plan, arguments)
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
