"""
Context unrolling on the synthetic world: right answers, tokens and time of direct answers, of answers from all
contexts, and of those that stop as soon as they are sure, at several thresholds.

Each question is read directly and behind one, two and three contexts. What `mode="auto"` answers at a threshold, with
how many tokens and in what time, follows from these readings, and so does agreement; `tests/test_unrolling.py` holds
`unroll` to it. Clips are of the test split and decoded from mp4 files before time is taken.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from transformers import AutoModel, AutoProcessor

from transformers_omnivinci import NANO
from transformers_omnivinci.evaluation.synthetic import chat_of, read_rows
from transformers_omnivinci.reasoning.contexts import HEAR, SEE, TIMELINE, UnrollOptions
from transformers_omnivinci.reasoning.unrolling import Reading, Unroller
from transformers_omnivinci.reasoning.views import ReadChat
from transformers_omnivinci.synthetic import CLOSED_TYPES, SyntheticDataset, contexts_of, write_dataset

from ._harness import Report, parser_on_device, to_markdown

THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
NOTE = "Times begin when media are decoded and include encoding them once; x means ratios to direct answers."
DIRECT, FULL, AGREEMENT = "direct", "unroll", "auto, two readings agree"


@dataclass
class Asked:
    """
    A question, read behind 0, 1, ... contexts.

    Attributes:
        type (`str`), right (`str`): Its type and the right answer.
        readings (`list[Reading]`): From the direct one on.
        reading_seconds (`list[float]`), context_seconds (`list[float]`), encoding_seconds (`float`): What these took.
        context_tokens (`list[int]`): What was generated for each context.
    """

    type: str
    right: str
    readings: list[Reading]
    reading_seconds: list[float]
    context_seconds: list[float]
    encoding_seconds: float
    context_tokens: list[int]


@dataclass(frozen=True)
class Outcome:
    """What a way to answer gives: whether it is right, tokens generated, seconds, and contexts written."""

    is_right: bool
    tokens: int
    seconds: float
    contexts: int


def ask(model, processor, row: dict, folder: Path, truth: dict[str, str]) -> tuple[Asked, dict[str, tuple]]:
    """Reads the question of a row in all ways; also of each context how many events it tells, how many there are, and
    how many of those that it tells are true."""
    chat = ReadChat.of(processor, chat_of(row, folder))
    started = time.perf_counter()
    unroller = Unroller(model, processor, chat, UnrollOptions(), max_new_tokens=16)
    encoding = time.perf_counter() - started
    readings, reading_seconds, context_seconds, context_tokens, told = [], [], [], [], {}
    for number in range(len(unroller.order) + 1):
        if number:
            name = unroller.order[number - 1]
            context, seconds = _timed(lambda name=name: unroller.context(name))
            context_seconds.append(seconds)
            context_tokens.append(context.generated_tokens)
            given, right = context.text.split(", "), truth[name].split(", ")
            told[name] = len(given), len(right), sum(event in right for event in set(given))
        reading, seconds = _timed(lambda number=number: unroller.read(unroller.order[:number]))
        readings.append(reading)
        reading_seconds.append(seconds)
    right = row["messages"][-1]["content"][0]["text"]
    asked = Asked(row["question_type"], right, readings, reading_seconds, context_seconds, encoding, context_tokens)
    return asked, told


def _timed(run: Callable):
    started = time.perf_counter()
    return run(), time.perf_counter() - started


def outcome(asked: Asked, first: int, last: int) -> Outcome:
    """The reading behind `last` contexts as the answer, where readings were made from that behind `first` on."""
    read = range(first, last + 1)
    return Outcome(
        asked.readings[last].answer == asked.right,
        sum(asked.context_tokens[:last]) + sum(asked.readings[number].generated_tokens for number in read),
        asked.encoding_seconds + sum(asked.context_seconds[:last]) + sum(asked.reading_seconds[one] for one in read),
        last,
    )


def ways() -> dict[str, Callable[[Asked], Outcome]]:
    """All ways to answer, by name."""

    def stop_at(threshold: float) -> Callable[[Asked], Outcome]:
        def answer(asked: Asked) -> Outcome:
            sure = (place for place, one in enumerate(asked.readings) if one.probability >= threshold)
            return outcome(asked, 0, next(sure, len(asked.readings) - 1))

        return answer

    def stop_at_agreement(asked: Asked) -> Outcome:
        answers = [one.answer for one in asked.readings]
        same = (place for place in range(1, len(answers)) if answers[place - 1] == answers[place])
        return outcome(asked, 0, next(same, len(answers) - 1))

    return {
        DIRECT: lambda asked: outcome(asked, 0, 0),
        **{f"auto, {threshold:g}": stop_at(threshold) for threshold in THRESHOLDS},
        AGREEMENT: stop_at_agreement,
        FULL: lambda asked: outcome(asked, len(asked.readings) - 1, len(asked.readings) - 1),
    }


def summarise(asked: Sequence[Asked]) -> list[dict]:
    """A row for each way: right answers by type and of all, and cost; times as ratios to direct answers."""
    rows, base = [], None
    for name, answer in ways().items():
        given = [answer(one) for one in asked]
        row = {"answers": name}
        for type in dict.fromkeys(one.type for one in asked):
            row[type] = _share([each.is_right for one, each in zip(asked, given) if one.type == type])
        seconds = statistics.mean(each.seconds for each in given)
        base = base or seconds
        row |= {
            "all": _share([each.is_right for each in given]),
            "contexts": round(statistics.mean(each.contexts for each in given), 2),
            "tokens": round(statistics.mean(each.tokens for each in given), 1),
            "time ×": seconds / base,
        }
        rows.append(row)
    return rows


def _share(values: Sequence[bool]) -> str:
    return f"{100 * sum(values) / len(values):.1f}%"


def draw(rows: Sequence[dict], types: Sequence[str], path: Path) -> None:
    """Right answers over the tokens that they take: of all questions, and of each type."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    whole, parts = figure.subplots(1, 2, sharey=True)
    number = {name: [float(row[name].rstrip("%")) for row in rows] for name in (*types, "all")}
    tokens, curve = [row["tokens"] for row in rows], [i for i, row in enumerate(rows) if row["answers"] != AGREEMENT]
    order = sorted(curve, key=lambda place: tokens[place])
    whole.plot([tokens[i] for i in order], [number["all"][i] for i in order], "o-", color="#2f6db3")
    for place, row in enumerate(rows):
        if row["answers"] == AGREEMENT:
            whole.plot(tokens[place], number["all"][place], "s", color="#e0812f", label=AGREEMENT)
        else:
            label = row["answers"].removeprefix("auto, ")
            whole.annotate(label, (tokens[place], number["all"][place]), (4, 5), textcoords="offset points", size=8)
    whole.set_title("all questions; numbers are thresholds", size=10)
    whole.set_ylabel("right answers (%)")
    whole.legend(loc="lower center")
    for type in types:
        parts.plot([tokens[i] for i in order], [number[type][i] for i in order], "o-", ms=3, label=type)
    parts.set_title("by type of question", size=10)
    parts.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    for axes in (whole, parts):
        axes.set_xlabel("tokens generated for an answer (mean)")
        axes.grid(alpha=0.3)
        axes.set_ylim(max(0, min(min(values) for values in number.values()) - 12), 103)
        axes.margins(x=0.12)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = parser_on_device("python -m benchmarks.unroll", __doc__.strip().split("\n\n")[0])
    parser.add_argument("--model", default=NANO, metavar="DIR", help="checkpoint (default: nano)")
    parser.add_argument("--clips-per-type", type=int, default=40, metavar="N", help="questions a type (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the clips (default: 0)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="where to draw the curve")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = Report("unroll", {**vars(arguments), "plot": str(arguments.plot)}, NOTE)
    model = AutoModel.from_pretrained(arguments.model, dtype=getattr(torch, arguments.dtype)).eval()
    model, processor = model.to(arguments.device), AutoProcessor.from_pretrained(arguments.model)
    dataset = SyntheticDataset(
        "test", len(CLOSED_TYPES) * arguments.clips_per_type, arguments.seed, types=CLOSED_TYPES
    )
    asked, told = [], []
    with tempfile.TemporaryDirectory() as folder:
        rows = read_rows(write_dataset(folder, dataset))
        ask(model, processor, rows[0], Path(folder), contexts_of(dataset[0].scene))  # what is done once is not timed
        for row, sample in zip(rows, dataset, strict=True):
            one, events = ask(model, processor, row, Path(folder), contexts_of(sample.scene))
            asked.append(one)
            told.append(events)
    contexts = []
    for name in (SEE, HEAR, TIMELINE):
        given, true, right = (sum(column) for column in zip(*(events[name] for events in told), strict=True))
        shares = {"told and true": f"{100 * right / given:.1f}%", "true and told": f"{100 * right / true:.1f}%"}
        contexts.append({"context": name, "events": true, **shares})
    summary = summarise(asked)
    report.add("Events of the contexts, exact in kind, motion and half-second", contexts)
    report.add("Right answers, contexts, generated tokens and time for a question", summary)
    report.save()
    print(f"{to_markdown(contexts)}\n\n{to_markdown(summary)}")
    if arguments.plot:
        draw(summary, list(dict.fromkeys(one.type for one in asked)), arguments.plot)


if __name__ == "__main__":
    main()
