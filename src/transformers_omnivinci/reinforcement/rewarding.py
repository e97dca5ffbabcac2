"""Rewards as TRL's trainer calls them, with the problems that completions answer, and checks of what comes back."""

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from .problems import Problem
from .rewards import TAGS, format_reward

RULES = ("format", "accuracy")
"""The rewards of section 4.3."""


class Reward:
    """
    A reward for completions, as TRL's `reward_funcs` are called.

    A completion that was cut at the longest length earns nothing: what is above 0 becomes 0, so that no reward can be
    had by never coming to an end.

    Args:
        name (`str`): What curves and messages call it.
        function (`Callable`):
            Takes `prompts`, `completions`, `answer` (what is right) and `row` (the rows of the data), a list each,
            and what else TRL gives; returns a number for each completion, or `None` where it has no opinion.
        problems (`Mapping[str, Problem]`): The problems by their prompts.
        tells (`bool`, *optional*, defaults to `False`):
            Whether TRL's table of completions gets what is right, and which completions were cut, from here.
    """

    def __init__(self, name: str, function: Callable, problems: Mapping[str, Problem], tells: bool = False):
        self.__name__ = name
        self._function, self._problems, self._tells = function, problems, tells

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], truncated: Sequence[bool] = (), **others
    ) -> list[float | None]:
        """
        A reward for each completion.

        Raises:
            ValueError: the function raised, or returned something else than a finite number for each completion.
        """
        problems = [self._problems[prompt] for prompt in prompts]
        facts = {"answer": [problem.answer for problem in problems], "row": [problem.row for problem in problems]}
        if self._tells and "log_extra" in others:
            others["log_extra"]("answer", [str(answer) for answer in facts["answer"]])
            others["log_extra"]("truncated", list(truncated))
        try:
            earned = self._function(prompts=list(prompts), completions=list(completions), **{**others, **facts})
        except Exception as error:
            names = ", ".join(dict.fromkeys(problem.name for problem in problems))
            raise ValueError(
                f"The reward {self.__name__!r} raised {type(error).__name__}: {error} (answers to {names:.200})."
            ) from error
        try:
            earned = list(earned)
        except TypeError:
            earned = [earned]
        if len(earned) != len(completions):
            raise ValueError(
                f"The reward {self.__name__!r} returned {len(earned)} values for {len(completions)} answers: one for "
                "each is accepted."
            )
        cut = truncated or [False] * len(completions)
        return [
            self._checked(one, problem, is_cut) for one, problem, is_cut in zip(earned, problems, cut, strict=True)
        ]

    def _checked(self, earned, problem: Problem, is_cut: bool) -> float | None:
        if earned is None:
            return 0.0 if is_cut else None
        try:
            number = float(earned)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(
                f"The reward {self.__name__!r} gave {earned!r:.80} for an answer to {problem.name}: a finite number "
                "is accepted, or None."
            )
        return min(number, 0.0) if is_cut else number


def make_rewards(
    chosen: Sequence[str | Callable], problems: Mapping[str, Problem], tags: Sequence[str] = TAGS
) -> list[Reward]:
    """
    The rewards that are chosen.

    Args:
        chosen (`Sequence[str | Callable]`):
            `format`, `accuracy`, or a function as [`Reward`] takes it, or its import path, `package.module:function`.
        problems (`Mapping[str, Problem]`): The problems by their prompts.
        tags (`Sequence[str]`, *optional*): What an answer consists of, for `format`.

    Raises:
        ValueError: there is no such reward.
    """
    if not chosen:
        raise ValueError(f"No reward is chosen: {', '.join(RULES)}, or the import path of a function is accepted.")
    rewards = [(_name_of(one), one) for one in chosen]
    names = [name for name, _ in rewards]
    if len(set(names)) != len(names):
        raise ValueError(f"Of the rewards {', '.join(names)} several have the same name: each counts once.")
    format_reward("", tags)  # which says what is wrong with the tags

    def format_of(completions, **_):
        return [format_reward(text, tags) for text in completions]

    def accuracy_of(prompts, completions, **_):
        return [problems[prompt].accuracy(text) for prompt, text in zip(prompts, completions, strict=True)]

    rules = dict(zip(RULES, (format_of, accuracy_of), strict=True))
    return [
        Reward(name, one if callable(one) else rules.get(one) or load_function(one), problems, tells=index == 0)
        for index, (name, one) in enumerate(rewards)
    ]


def _name_of(reward: str | Callable) -> str:
    return reward.rpartition(":")[2] if isinstance(reward, str) else getattr(reward, "__name__", type(reward).__name__)


def load_function(path: str) -> Callable:
    """
    A function by its import path.

    Args:
        path (`str`): `package.module:function`.

    Raises:
        ValueError: it is no such path, or there is no such function.
    """
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise ValueError(
            f"There is no reward {path!r}: {', '.join(RULES)}, or the import path of a function such as "
            "'package.module:function' is accepted."
        )
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"The reward {path!r} cannot be imported: {error}. Is its folder in PYTHONPATH?") from error
    if not callable(function):
        raise ValueError(f"The reward {path!r} is {type(function).__name__}, but a function is accepted.")
    return function
