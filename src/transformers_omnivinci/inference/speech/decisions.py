"""
The second opinion that a model decides about (paper, appendix D.3.1 to D.3.3, figure 16 b): what it is asked, what it
learns to say, and what is done with it. Plain text, without a model.
"""

import math
from collections.abc import Callable, Iterable, Sequence

from ...evaluation import word_errors

ACCEPT, INTEGRATE = "<accept_internal>", "<integrate_reference>"
DECISIONS = (ACCEPT, INTEGRATE)
"""The control tokens that are added to the vocabulary."""
MOST_CANDIDATES = 5
THRESHOLD = 0.05
"""Word error rate below which a hypothesis is good enough; the paper does not give its own."""
LONGEST_TEXTS = 8000
"""Characters of the hypothesis and all candidates together that a prompt has room for."""

_INSTRUCTION = f"""Task: Perform reference-augmented correction for a given speech input.
Objective: Evaluate the quality of an internally generated hypothesis against external candidates.
First, select a generation strategy by producing a control token. Then, generate the final, corrected text.
- If the internal hypothesis is deemed superior and well-aligned with the audio, select {ACCEPT}.
- If the external candidates provide necessary corrections, select {INTEGRATE}.
--
Acoustic Evidence: """


def decision_content(
    sound: dict, internal: str, candidates: Sequence[str], control_tokens: Iterable[str] = DECISIONS
) -> list[dict]:
    """
    The content of the message that a model decides about (D.3.1), with the sound where the paper has it.

    Args:
        sound (`dict`): The content item of the sound.
        internal (`str`): What the model heard by itself.
        candidates (`Sequence[str]`): What others heard, from one to five texts.
        control_tokens (`Iterable[str]`, defaults to `DECISIONS`): What none of the texts may hold.

    Raises:
        ValueError: there are no candidates, or more than five; the texts are longer than a prompt has room for; or
            one of them holds a control token.
    """
    check_number(len(candidates))
    length = len(internal) + sum(map(len, candidates))
    if length > LONGEST_TEXTS:
        raise ValueError(
            f"The hypothesis and the {len(candidates)} candidates of a stretch have {length} characters, where "
            f"{LONGEST_TEXTS} fit into a prompt: give transcripts with times, as SRT, VTT or JSON, so that each "
            "stretch gets its own part."
        )
    held = next((token for token in control_tokens for text in (internal, *candidates) if token in text), None)
    if held is not None:
        raise ValueError(f"A hypothesis or candidate holds the control token {held}: plain text is accepted.")
    listed = "\n".join(f"{number}. {' '.join(text.split())}" for number, text in enumerate(candidates, 1))
    rest = f"\nExternal Candidate Transcriptions:\n{listed}\nInternal Hypothesis:\n{internal.strip()}\n--\nOutput:"
    return [{"type": "text", "text": _INSTRUCTION}, sound, {"type": "text", "text": rest}]


def check_number(num_candidates: int) -> None:
    """A ValueError unless there is a candidate, and no more than five."""
    if not 1 <= num_candidates <= MOST_CANDIDATES:
        raise ValueError(f"Got {num_candidates} external candidates: from 1 to {MOST_CANDIDATES} are accepted.")


def check_threshold(threshold: float) -> None:
    """A ValueError unless it is a word error rate from 0 on."""
    if not (math.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"A threshold of {threshold!r} is not accepted: a word error rate from 0 on is.")


def label_decision(
    truth: str,
    internal: str,
    candidates: Sequence[str],
    threshold: float = THRESHOLD,
    normalize: Callable[[str], str] | None = None,
) -> str:
    """
    The token that a model is taught (D.3.2): `INTEGRATE` if the internal hypothesis has a word error rate of
    `threshold` or more and a candidate has a lower one, else `ACCEPT`.

    Args:
        truth (`str`): What was said.
        internal (`str`), candidates (`Sequence[str]`): As of [`decision_content`].
        threshold (`float`, defaults to 0.05): A word error rate, from 0 on.
        normalize (`Callable`, *optional*): As of [`~transformers_omnivinci.evaluation.word_errors`].

    Raises:
        ValueError: the threshold is negative, or nothing was said, so that there is no error rate.
    """
    check_threshold(threshold)
    errors, words = word_errors(internal, truth, normalize)
    if not words:
        raise ValueError(f"There are no words in {truth!r:.80}, by which hypotheses could be compared.")
    if errors / words < threshold:
        return ACCEPT
    best = min((word_errors(one, truth, normalize)[0] for one in candidates), default=errors)
    return INTEGRATE if best < errors else ACCEPT


def write_target(decision: str, truth: str) -> str:
    """What a model learns to answer (D.3.2): the token, then what was said. A ValueError for another token."""
    if decision not in DECISIONS:
        raise ValueError(f"{decision!r:.40} is no decision: {' and '.join(DECISIONS)} are.")
    return f"{decision}{truth.strip()}"


def apply_decision(answer: str, internal: str) -> tuple[str, str]:
    """
    What an answer decides, and the final text (D.3.3): the stored hypothesis with `ACCEPT`, what was generated behind
    the token with `INTEGRATE`.

    Args:
        answer (`str`): What was generated, with special tokens. With `ACCEPT` it may end there.
        internal (`str`): What the model heard by itself.

    Raises:
        ValueError: it does not begin with a decision.
    """
    answer = answer.strip()
    if answer.startswith(ACCEPT):
        return ACCEPT, internal.strip()
    if answer.startswith(INTEGRATE):
        return INTEGRATE, answer.removeprefix(INTEGRATE).strip()
    raise ValueError(f"The answer begins with no decision, {' or '.join(DECISIONS)}: {answer!r:.80}.")


def check_decision_tokens(tokenizer) -> None:
    """A ValueError unless each decision is a single token of a tokenizer of transformers."""
    lacking = [one for one in DECISIONS if len(tokenizer.encode(one, add_special_tokens=False)) != 1]
    if lacking:
        raise ValueError(
            f"The tokenizer lacks {', '.join(lacking)}: a model is accepted that `omnivinci train --recipe "
            "asr-decision` has taught to decide."
        )
