"""Data that teach a model to decide (paper, appendix D.3.2), from speech with its transcripts."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...evaluation import AnswerFile, word_errors
from ...media import download, is_url
from ...tasks import write_rows
from .corpora import Utterance
from .decisions import DECISIONS, THRESHOLD, check_number, check_threshold, decision_content, label_decision
from .decisions import write_target as answer_of
from .recognisers import Recogniser
from .transcribing import load_speech

INTERNAL = "internal"


@dataclass
class DecisionReport:
    """
    What was made of a corpus.

    Attributes:
        decisions (`Counter`): How many rows have each decision.
        errors (`Counter`): The word errors of each recogniser, by its name; the model is `"internal"`.
        words (`int`): The words that were said.
        skipped (`list[str]`): What was left out, and why.
    """

    decisions: Counter = field(default_factory=lambda: Counter(dict.fromkeys(DECISIONS, 0)))
    errors: Counter = field(default_factory=Counter)
    words: int = 0
    skipped: list[str] = field(default_factory=list)


def write_decision_data(
    utterances: Sequence[Utterance],
    model: Recogniser,
    externals: Mapping[str, Recogniser],
    target: Path,
    *,
    threshold: float = THRESHOLD,
    normalize: Callable[[str], str] | None = None,
    control_tokens: Iterable[str] = DECISIONS,
    kept: AnswerFile | None = None,
    skip_bad: bool = False,
    on_utterance: Callable[[], object] = lambda: None,
) -> DecisionReport:
    """
    Writes a JSONL file of chats, which appears once it is complete: in each the model is asked about an utterance
    with what it heard itself and what others heard, and answers with the right decision and what was said.

    Args:
        utterances (`Sequence[Utterance]`): Of [`read_corpus`].
        model ([`Recogniser`]): What writes the internal hypothesis.
        externals (`Mapping[str, Recogniser]`): From one to five others, by their names.
        target (`Path`): The file, which must not be there yet. Sounds below its folder have relative paths in it.
        threshold, normalize: As of [`label_decision`].
        control_tokens (`Iterable[str]`): As of [`decision_content`].
        kept ([`AnswerFile`], *optional*): What was heard before, by the names of recogniser and utterance.
        skip_bad (`bool`, *optional*, defaults to `False`): Whether utterances that cannot be used are left out.
        on_utterance (`Callable`, *optional*): Is called after each.

    Raises:
        OSError: the file is there already or cannot be written, or a recogniser or a sound fails.
        ValueError: the threshold or the number of recognisers is not accepted, there are no utterances, or one of them
            cannot be used.
    """
    check_threshold(threshold)
    check_number(len(externals))
    check_target_file(target)
    recognisers, report, rows = {INTERNAL: model, **externals}, DecisionReport(), []
    for utterance in utterances:
        try:
            heard = _listen(utterance, recognisers, kept)
            row, decision = _make_row(utterance, heard, target.parent, threshold, normalize, control_tokens)
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{utterance.name}: {error}") from error
            report.skipped.append(f"{utterance.name}: {error}")
        else:
            rows.append(row)
            report.decisions[decision] += 1
            for name, text in heard.items():
                errors, words = word_errors(text, utterance.text, normalize)
                report.errors[name] += errors
            report.words += words
        on_utterance()
    if not rows:
        reason = f", of which the first says: {report.skipped[0]}" if report.skipped else ""
        raise ValueError(f"None of {len(utterances)} utterances can be used{reason}")
    write_rows(target, rows)
    return report


def check_target_file(target: Path) -> None:
    """An OSError if a new file cannot be at `target`."""
    if target.exists():
        raise OSError(f"{target} is there already: the name of a new file is accepted.")
    if not target.parent.is_dir():
        raise OSError(f"{target} cannot be written: there is no folder {target.parent}.")


def _listen(utterance: Utterance, recognisers: Mapping[str, Recogniser], kept: AnswerFile | None) -> dict[str, str]:
    """What each hears, by its name."""
    known = {} if kept is None else kept.known
    heard, samples = {}, None
    for name, recogniser in recognisers.items():
        text = known.get((name, utterance.name))
        if text is None:
            if samples is None:
                samples = load_speech(download(utterance.sound) if is_url(utterance.sound) else utterance.sound)[:]
            text = recogniser.transcribe(samples)
            if kept is not None:
                kept.add([{"question": utterance.name, "senses": name, "answer": text}])
        heard[name] = text
    return heard


def _make_row(
    utterance: Utterance,
    heard: Mapping[str, str],
    folder: Path,
    threshold: float,
    normalize: Callable[[str], str] | None,
    control_tokens: Iterable[str],
) -> tuple[dict, str]:
    """A chat to train on, and its decision."""
    internal, *candidates = heard.values()
    decision = label_decision(utterance.text, internal, candidates, threshold, normalize)
    path, folder = utterance.sound, folder.resolve()
    if not is_url(path) and Path(path).is_relative_to(folder):
        path = Path(path).relative_to(folder).as_posix()
    asked = decision_content({"type": "audio", "path": path}, internal, candidates, control_tokens)
    messages = [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": answer_of(decision, utterance.text)},
    ]
    return {"id": utterance.name, "messages": messages, "heard": dict(heard), "decision": decision}, decision
