"""Answers that are told while they are generated, in chunks as of OpenAI's chat completions."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..publishing.handler import (
    EndpointHandler,
    Job,
    RequestError,
    Token,
    cut_at,
    given_entries,
    refuse_unknown,
    write_envelope,
    write_usage,
)


def stream_chat(handler: EndpointHandler, request: Mapping) -> "ChatStream":
    """
    The objects `chat.completion.chunk` for a request of OpenAI's chat completions.

    Raises:
        RequestError: the request is refused, before anything is generated.
    """
    request = dict(request)
    options = request.pop("stream_options", None) or {}
    if not isinstance(options, Mapping):
        raise RequestError(422, f"`stream_options` is an object, got {options!r:.80}.")
    refuse_unknown("`stream_options`", given_entries(options), ["include_usage", "include_obfuscation"])
    job = handler.read_chat(request)
    if job.has_beams:
        raise RequestError(422, "`num_beams` does not go with `stream`: beams are compared at their end.")
    return ChatStream(handler, job, bool(options.get("include_usage")))


class ChatStream:
    """
    The chunks of an answer while it is generated, in another thread; for one iteration.

    Args:
        handler ([`EndpointHandler`]), job: Who answers what.
        tells_usage (`bool`): Whether a chunk of its own ends it with the `usage`, which else stands in the last one.
    """

    def __init__(self, handler: EndpointHandler, job: Job, tells_usage: bool):
        self.handler, self.job, self.tells_usage = handler, job, tells_usage
        self._envelope = write_envelope("chat.completion.chunk", job)
        self._arrived: queue.SimpleQueue = queue.SimpleQueue()
        self._watch = handler.watch(job, lambda index, token: self._arrived.put((index, token)))

    def cancel(self) -> None:
        """Ends the generation with the next token."""
        self._watch.cancelled.set()

    def __iter__(self) -> Iterator[dict]:
        """
        Raises:
            RequestError: the model cannot be asked so.
        """
        job, num_answers = self.job, self.job.generation.get("num_return_sequences", 1)
        texts = [GrowingText(self.handler.decode, job.stop) for _ in range(num_answers)]
        untold: list[list[Token]] = [[] for _ in texts]
        threading.Thread(target=self._generate, daemon=True).start()
        try:
            for index in range(num_answers):
                yield self._chunk(index, {"role": "assistant", "content": ""}, [])
            while (arrived := self._arrived.get()) is not None:
                if isinstance(arrived, BaseException):
                    raise arrived
                index, token = arrived
                if token.index not in self.handler.ends and not texts[index].has_ended:
                    untold[index].append(token)
                text = texts[index].add(token.index)
                if text:
                    yield self._chunk(index, {"content": text}, untold[index])
                    untold[index] = []
            num_tokens = sum(len(text.ids) for text in texts)
            usage = write_usage(job.num_prompt_tokens, num_tokens)
            for index, text in enumerate(texts):
                rest, decoded = text.rest(), self.handler.decode(text.ids)
                if rest:
                    yield self._chunk(index, {"content": rest}, untold[index])
                    untold[index] = []
                last = self._chunk(index, {}, untold[index], self.handler.finish_reason(text.ids, decoded, job))
                is_end = index == num_answers - 1 and not self.tells_usage
                yield {**last, "usage": usage} if is_end else last
            if self.tells_usage:
                yield {**self._envelope, "choices": [], "usage": usage}
        finally:
            self.cancel()

    def _generate(self) -> None:
        try:
            self.handler.generate(self.job, self._watch)
        except BaseException as error:
            self._arrived.put(error)
        else:
            self._arrived.put(None)

    def _chunk(self, index: int, delta: dict, tokens: Sequence[Token], finish_reason: str | None = None) -> dict:
        told = self.handler.write_logprobs(tokens) if tokens and self.job.num_top is not None else None
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": told}
        return {**self._envelope, "choices": [choice]}


class GrowingText:
    """
    The text of an answer as its tokens come: bytes that are no character yet, and what may become a stop sequence, are
    held back.
    """

    def __init__(self, decode: Callable, stop: Sequence[str]):
        self.decode, self.stop = decode, stop
        self.ids, self.start, self.end = [], 0, 0
        self.pending, self.has_ended = "", False

    def add(self, token: int) -> str:
        """What can be told of the answer after one more token."""
        self.ids.append(token)
        text = self.decode(self.ids[self.start :])
        if not text.endswith("\ufffd"):
            self.pending += text[len(self.decode(self.ids[self.start : self.end])) :]
            self.start, self.end = self.end, len(self.ids)
        if self.has_ended:
            return ""
        self.has_ended = any(word in self.pending for word in self.stop)
        if self.has_ended:
            return cut_at(self.pending, self.stop)
        held = max(
            (size for word in self.stop for size in range(1, len(word)) if self._ends_with(word[:size])), default=0
        )
        told, self.pending = self.pending[: len(self.pending) - held], self.pending[len(self.pending) - held :]
        return told

    def rest(self) -> str:
        """What was held back, when no more tokens come."""
        if self.has_ended:
            return ""
        known = self.decode(self.ids[self.start : self.end])
        return cut_at(self.pending + self.decode(self.ids[self.start :])[len(known) :].rstrip("\ufffd"), self.stop)

    def _ends_with(self, text: str) -> bool:
        return self.pending.endswith(text)
