"""Asks a back end, and reads what it answers: plain text, or JSON of a wanted structure with one round of repair."""

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from .backends.protocol import Backend, Reply, Request
from .typed import json_schema, read

REPAIR = """{text}

Your last answer was:

{answer}

It cannot be used: {reason} Write the whole answer again, in the form that was asked for and with nothing else."""
MAX_SHOWN = 4000
"""Characters of a wrong answer that are shown to its model when it is asked again."""


@dataclass(frozen=True)
class Asked:
    """
    What became of a question.

    Attributes:
        value: The answer, a text or an instance of the wanted type. `None`: there is none.
        error (`str`): One sentence on why.
        replies (`list[Reply]`): All that came back, for accounts.
    """

    value: object = None
    error: str = ""
    replies: list[Reply] = field(default_factory=list)

    @property
    def repairs(self) -> int:
        """How often the question was asked again."""
        return max(0, len(self.replies) - 1)


def ask(
    backend: Backend, requests: Sequence[Request], wanted: type | None = None, check: Callable | None = None
) -> list[Asked]:
    """
    Asks a back end. Answers that are not of the wanted structure are asked again, once.

    Args:
        backend ([`Backend`]): Whom.
        requests (`Sequence[Request]`): What.
        wanted (`type`, *optional*):
            A dataclass that answers must be, as JSON. `None`: plain text, and `str`: plain text that may be empty.
        check (`Callable`, *optional*): Gets a request and its answer, and raises a `ValueError` on what is wrong.

    Returns:
        `list[Asked]`: one for each request.
    """
    if wanted not in (None, str):
        schema = json_schema(wanted)
        requests = [replace(request, schema=request.schema or schema) for request in requests]
    asked = [
        _read(request, reply, [reply], wanted, check) for request, reply in zip(requests, _complete(backend, requests))
    ]
    wrong = [place for place, one in enumerate(asked) if one.error and not one.replies[0].error]
    if wrong:
        again = [_repair(requests[place], asked[place]) for place in wrong]
        for place, request, reply in zip(wrong, again, _complete(backend, again)):
            asked[place] = _read(request, reply, [*asked[place].replies, reply], wanted, check)
    return asked


def parse_json(text: str):
    """
    The JSON object in an answer, which may stand in a fence, or between other words.

    Raises:
        ValueError: there is none, or it is broken.
    """
    fenced = re.search(r"```(?:json)?\s*(.*?)```", text, re.DOTALL)
    text = fenced[1] if fenced else text
    start = text.find("{")
    if start < 0:
        raise ValueError("there is no JSON object in it.")
    try:
        value, _ = json.JSONDecoder().raw_decode(text[start:])
    except ValueError as error:
        raise ValueError(f"its JSON is broken: {error}.") from error
    return value


def _complete(backend: Backend, requests: Sequence[Request]) -> list[Reply]:
    started = time.monotonic()
    replies = backend.complete(requests)
    if len(replies) != len(requests):
        raise RuntimeError(f"The back end {backend.model} gave {len(replies)} replies to {len(requests)} requests.")
    share = (time.monotonic() - started) / max(1, len(requests))
    return [reply if reply.seconds else replace(reply, seconds=share) for reply in replies]


def _read(request: Request, reply: Reply, replies: list[Reply], wanted: type | None, check) -> Asked:
    if reply.error:
        return Asked(error=reply.error, replies=replies)
    try:
        is_text = wanted in (None, str)
        value = reply.text.strip() if is_text else read(wanted, parse_json(reply.text), "the answer")
        if wanted is None and not value:
            raise ValueError("it is empty.")
        if check is not None:
            check(request, value)
    except ValueError as error:
        cut = f" It was cut off after {reply.completion_tokens} tokens, see `max_tokens`." if reply.is_cut else ""
        return Asked(error=f"The model's answer cannot be used: {error}{cut}", replies=replies)
    return Asked(value, replies=replies)


def _repair(request: Request, asked: Asked) -> Request:
    reason = asked.error.partition(": ")[2]
    text = REPAIR.format(text=request.text, answer=asked.replies[-1].text[:MAX_SHOWN], reason=reason)
    return replace(request, text=text, seed=request.seed + 1)
