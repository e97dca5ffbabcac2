"""The contexts that are written before an answer, and how a question is asked with them. Plain text, without torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

SEE, HEAR, TIMELINE = "see", "hear", "timeline"
PROMPTS = {
    SEE: "What is shown, and at which seconds?",
    HEAR: "What is heard, and at which seconds?",
    TIMELINE: "What is shown and heard, and at which seconds?",
}
"""What asks for each context, in the order in which they are written. Nano is trained with these words."""

PICTURE, SOUND, BOTH = "picture", "sound", "both"
VIEWS = {SEE: PICTURE, HEAR: SOUND, TIMELINE: BOTH}
"""What of the media the model gets while it writes each context: images and frames, sound, or both."""

MODES = ("full", "auto")
CONFIDENCES = ("probability", "agreement")


def ask_with(contexts: Mapping[str, str], question: str, prompts: Mapping[str, str] = PROMPTS) -> str:
    """
    A question behind the contexts that were written so far, each behind what asked for it, on lines of their own.

    Args:
        contexts (`Mapping[str, str]`): Texts by their names, which are keys of `prompts`.
        question (`str`): The question, or what asks for the next context.
        prompts (`Mapping[str, str]`, *optional*): What asked for each.

    Returns:
        `str`: without contexts, the question itself.
    """
    written = [line for name in PROMPTS if name in contexts for line in (prompts[name], contexts[name])]
    return "\n".join([*written, question])


@dataclass(frozen=True)
class UnrollOptions:
    """
    How contexts are unrolled.

    Args:
        mode (`str`, defaults to `"full"`):
            `"full"` writes all contexts and answers then. `"auto"` answers at once, writes one context after another
            and answers again behind each, until its answer is sure enough.
        threshold (`float`, defaults to 0.9): The confidence, from 0 to 1, at which `"auto"` stops.
        confidence (`str`, defaults to `"probability"`):
            `"probability"` is that of all tokens of the answer, to its end, under the model: long answers are never
            likely. `"agreement"` is 1 where the answer is that of the reading before, but for case and the punctuation
            around it, and 0 otherwise. `"full"` then answers once before its contexts, too.
        max_rounds (`int`, defaults to 3): The most contexts that are written.
        prompts (`Mapping[str, str]`): What asks for contexts instead of `PROMPTS`, of all or some of them.
        views (`Mapping[str, str]`): What is shown while contexts are written instead of `VIEWS`, of all or some of
            them: `"picture"`, `"sound"` or `"both"`.
        context_tokens (`int`, defaults to 256): The most tokens of a context.

    Raises:
        ValueError, TypeError: a value is not accepted.
    """

    mode: str = "full"
    threshold: float = 0.9
    confidence: str = "probability"
    max_rounds: int = len(PROMPTS)
    prompts: Mapping[str, str] = field(default_factory=dict)
    views: Mapping[str, str] = field(default_factory=dict)
    context_tokens: int = 256

    def __post_init__(self):
        _check_among("mode", self.mode, MODES)
        _check_among("confidence", self.confidence, CONFIDENCES)
        is_number = isinstance(self.threshold, (int, float)) and not isinstance(self.threshold, bool)
        if not is_number or not 0 <= self.threshold <= 1 or math.isnan(self.threshold):
            raise ValueError(f"`threshold={self.threshold!r:.40}` is not accepted: a number from 0 to 1 is.")
        for name in ("max_rounds", "context_tokens"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"`{name}={value!r:.40}` is not accepted: a whole number from 1 on is.")
        for name, default in (("prompts", PROMPTS), ("views", VIEWS)):
            given = getattr(self, name)
            if not isinstance(given, Mapping) or not given.keys() <= default.keys():
                raise ValueError(f"`{name}={given!r:.80}` is not accepted: some of {', '.join(default)} are its keys.")
            for key, value in given.items():
                if name == "views":
                    _check_among(f"views[{key!r}]", value, (PICTURE, SOUND, BOTH))
                elif not isinstance(value, str) or not value.strip():
                    raise ValueError(f"`prompts[{key!r}]={value!r:.40}` is not accepted: a text is.")
            object.__setattr__(self, name, {**default, **given})

    @classmethod
    def of(cls, given) -> "UnrollOptions":
        """
        Options as callers give them: a mode, `True` for `"full"`, a mapping of fields, or options.

        Raises:
            ValueError, TypeError: they are something else, or a value is not accepted.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, (str, bool)):
            return cls() if given is True else cls(mode=given)
        if not isinstance(given, Mapping):
            raise TypeError(f"`unroll` is a mode or a mapping of options, got {type(given).__name__} {given!r:.40}.")
        known = [spec.name for spec in fields(cls)]
        unknown = [f"{name!r:.40}" for name in given if name not in known]
        if unknown:
            raise ValueError(f"`unroll` has unknown options {', '.join(unknown)}: {', '.join(known)} are accepted.")
        return cls(**given)


def _check_among(name: str, value, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"`{name}={value!r:.40}` is not accepted: {' and '.join(map(repr, accepted))} are.")
