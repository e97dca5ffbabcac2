"""Prompts that are ready to be answered, and what follows their answers token by token."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessor, StoppingCriteria

LEAST_LOGPROB = -9999.0  # what OpenAI writes for the impossible, as JSON has no infinity


@dataclass(frozen=True)
class Token:
    """A token of an answer: its id, its log probability before penalties and temperature, and the likeliest ones."""

    index: int
    logprob: float | None = None
    top: Sequence[tuple[int, float]] = ()  # ids and log probabilities


@dataclass(frozen=True)
class Answer:
    """An answer: its text, why it ended (`"stop"` or `"length"`), and its tokens."""

    text: str
    finish_reason: str
    tokens: Sequence[Token]


@dataclass
class Job:
    """
    A prompt that is ready to be answered.

    Attributes:
        inputs (`Mapping`): What the pipeline's `preprocess` returned.
        num_prompt_tokens (`int`): Length of the prompt.
        generation (`dict`): Options of `generate`.
        stop (`Sequence[str]`): Texts that end an answer.
        seed (`int`, *optional*): Seed of the sampling.
        penalties (`tuple[float, float]`): OpenAI's frequency and presence penalty.
        bias (`Mapping[int, float]`, *optional*): What is added to the logits of which tokens.
        held ([`LogitsProcessor`], *optional*): What holds the answer to a wanted structure.
        num_top (`int`, *optional*): How many of the likeliest tokens are reported. `None`: no log probabilities.
        model_name (`str`): The model's name in the answer.
        evidence (`dict`, *optional*): What of the media the answers rest on, if that is asked for.
        num_cached_tokens (`int`): How much of the prompt had been read before, once it was answered.
    """

    inputs: Mapping
    num_prompt_tokens: int
    generation: dict
    stop: Sequence[str] = ()
    seed: int | None = None
    penalties: tuple[float, float] = (0.0, 0.0)
    bias: Mapping[int, float] | None = None
    held: LogitsProcessor | None = None
    num_top: int | None = None
    model_name: str = ""
    evidence: dict | None = None
    num_cached_tokens: int = 0

    @property
    def has_beams(self) -> bool:
        """Whether beam search is asked for."""
        return self.generation.get("num_beams", 1) > 1

    def is_ended_by(self, text: str) -> bool:
        """Whether a text contains a stop sequence."""
        return any(word in text for word in self.stop)


class Scores(LogitsProcessor):
    """Applies OpenAI's penalties and a logit bias, and keeps the log probabilities from before."""

    def __init__(self, job: Job):
        self.job, self.logprobs = job, None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The changed scores, of shape (rows, vocabulary), for `input_ids` of shape (rows, tokens)."""
        job, (frequency, presence) = self.job, self.job.penalties
        if job.num_top is not None:
            self.logprobs = scores.float().log_softmax(-1)
        said = input_ids[:, job.num_prompt_tokens :]
        if said.shape[1] and (frequency or presence):
            counts = torch.zeros_like(scores).scatter_add_(1, said, torch.ones_like(said, dtype=scores.dtype))
            scores = scores - frequency * counts - presence * (counts > 0)
        if job.bias:
            scores = scores.clone()
            scores[:, list(job.bias)] += scores.new_tensor(list(job.bias.values()))
        return scores


class Cancelled(StoppingCriteria):
    """Ends a generation with its next token once it is told to, from any thread."""

    def __init__(self):
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ends the generation."""
        self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether the generation ends."""
        return self._event.is_set()

    def __call__(self, input_ids: torch.Tensor, scores, **kwargs) -> torch.Tensor:
        """Which rows of `input_ids`, of shape (rows, tokens), have ended: all of them or none."""
        return torch.full((len(input_ids),), self.is_set, dtype=torch.bool, device=input_ids.device)


class Watch(StoppingCriteria):
    """
    Follows the answers as they grow: ends each one at a stop sequence, and all of them when they are cancelled. Stop
    sequences are looked for in the generated text only, not across the end of the prompt.

    Args:
        job ([`Job`]): What is answered.
        decode (`Callable`): Turns token ids into text.
        ends (`set[int]`): Ids of the tokens that end an answer.
        on_token (`Callable`, *optional*): Called with the index of the answer and each new [`Token`].
        cancelled ([`Cancelled`], *optional*): What ends all of them.
    """

    def __init__(
        self,
        job: Job,
        decode: Callable,
        ends: set[int],
        on_token: Callable | None = None,
        cancelled: Cancelled | None = None,
    ):
        self.cancelled = Cancelled() if cancelled is None else cancelled
        self.job, self.decode, self.ends, self.on_token = job, decode, ends, on_token
        self.scores = Scores(job)
        self.num_seen, self.rows, self.is_done = job.num_prompt_tokens, [], []
        # Every token but a special one has at least one byte.
        self.reach = max((len(word.encode()) for word in job.stop), default=0) + 8

    def __call__(self, input_ids: torch.Tensor, scores, **kwargs) -> torch.Tensor:
        """Which rows of `input_ids`, of shape (rows, tokens), have ended."""
        num_rows, length = input_ids.shape
        if self.cancelled.is_set:
            return self.cancelled(input_ids, scores)
        if self.job.has_beams:  # rows change places
            start = max(self.job.num_prompt_tokens, length - self.reach)
            done = [self._has_stopped(row) for row in input_ids[:, start:].tolist()]
        else:
            if not self.rows:
                self.rows, self.is_done = [[] for _ in range(num_rows)], [False] * num_rows
            for index, new in enumerate(input_ids[:, self.num_seen :].tolist()):
                for token in new:
                    self._take(index, token)
            self.num_seen, done = length, self.is_done
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)

    def _take(self, index: int, token: int) -> None:
        if self.is_done[index]:
            return  # padding
        logprob, top = None, []
        if self.scores.logprobs is not None:
            row = self.scores.logprobs[index].clamp(min=LEAST_LOGPROB)
            logprob, best = row[token].item(), row.topk(self.job.num_top)
            top = list(zip(best.indices.tolist(), best.values.tolist()))
        tokens = self.rows[index]
        tokens.append(Token(token, logprob, top))
        self.is_done[index] = token in self.ends or self._has_stopped([one.index for one in tokens[-self.reach :]])
        if self.on_token is not None:
            self.on_token(index, tokens[-1])

    def _has_stopped(self, ids: list[int]) -> bool:
        """Whether the text of the last tokens contains a stop sequence."""
        return bool(self.job.stop) and self.job.is_ended_by(self.decode(ids))
