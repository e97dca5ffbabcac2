"""Answers that are JSON of a wanted structure: tokens that would leave it are never chosen. Needs llguidance."""

import json
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from .limits import RequestError
from .parameters import read_object, refuse_unknown

FORMATS = ("text", "json_object", "json_schema")
ANY_OBJECT = {"type": "object"}
COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Small models that may put spaces anywhere put them everywhere."""


def read_format(request: dict) -> dict | None:
    """
    The JSON schema of the answer by `response_format`, which it takes out of a request of chat completions; `None` if
    any text will do. Raises a `RequestError` (422) if it is not understood.
    """
    given = read_object("response_format", request.pop("response_format", None))
    kind = given.get("type", "text")
    if kind not in FORMATS:
        raise RequestError(422, f"`response_format.type` is {kind!r:.80}: {', '.join(FORMATS)} are accepted.")
    refuse_unknown("`response_format`", given, ["type", "json_schema"])
    if kind != "json_schema":
        return ANY_OBJECT if kind == "json_object" else None
    named = read_object("response_format.json_schema", given.get("json_schema"))
    refuse_unknown("`response_format.json_schema`", named, ["name", "description", "schema", "strict"])
    return read_object("response_format.json_schema.schema", named.get("schema")) or ANY_OBJECT


class StructuredOutput:
    """
    What holds the answers of a model to JSON schemas.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Of the model.
        vocab_size (`int`): Of the model, whose logits may be more than the tokenizer has tokens.
        ends (`Iterable[int]`): Ids of the tokens that end an answer.

    Raises:
        RequestError: llguidance is not installed (422).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int, ends: Iterable[int]):
        try:
            from llguidance import LLMatcher
            from llguidance.hf import from_tokenizer
        except ImportError as error:
            wanted = "pip install 'transformers-omnivinci[structured]'"
            raise RequestError(422, f"This server has no `response_format` but text: it needs {wanted}.") from error
        self._library = LLMatcher
        self._tokenizer = from_tokenizer(tokenizer, n_vocab=vocab_size, eos_token=sorted(ends))

    def hold(self, schema: Mapping) -> "HeldToSchema":
        """A processor of logits for one generation. Raises a `RequestError` (422) if there is no such schema."""
        grammar = self._library.grammar_from_json_schema(json.dumps(schema), defaults=COMPACT)
        if wrong := self._library.validate_grammar(grammar, self._tokenizer):
            raise RequestError(422, f"The JSON schema of the answer cannot be followed: {' '.join(wrong.split())}")
        return HeldToSchema(lambda: self._library(self._tokenizer, grammar, log_level=0))


class HeldToSchema(LogitsProcessor):
    """Leaves the tokens alone with which each answer may go on. What it is first called with is the prompt."""

    def __init__(self, make_matcher):
        self._make_matcher, self._matchers, self._num_seen = make_matcher, [], 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The changed scores, of shape (rows, vocabulary), for `input_ids` of shape (rows, tokens)."""
        if not self._matchers:
            self._matchers = [self._make_matcher() for _ in input_ids]
        else:
            for matcher, new in zip(self._matchers, input_ids[:, self._num_seen :].tolist()):
                if not matcher.is_stopped():  # else the row has ended, and what follows is padding
                    matcher.consume_tokens(new)
        self._num_seen = input_ids.shape[1]
        allowed = torch.ones(scores.shape, dtype=torch.bool)
        for row, matcher in enumerate(self._matchers):
            if not matcher.is_error():
                bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
                allowed[row] = torch.from_numpy(bits[: scores.shape[1]].astype(bool))
        return scores.masked_fill(~allowed.to(scores.device), -torch.inf)
