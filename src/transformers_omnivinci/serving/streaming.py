"""Answers that are sent while they are generated, as the chunks of OpenAI's chat completions."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..endpoint import EndpointHandler, RequestError
from ..endpoint.generation import Job, Token
from ..endpoint.handler import cut_at, write_envelope, write_evidence, write_usage
from ..endpoint.parameters import read_object, refuse_unknown


def stream_chat(handler: EndpointHandler, request: Mapping) -> "ChatStream":
    """
    The objects `chat.completion.chunk` for a request of OpenAI's chat completions. Raises a `RequestError` if the
    request is refused, before anything is generated.
    """
    request = dict(request)
    options = read_object("stream_options", request.pop("stream_options", None))
    refuse_unknown("`stream_options`", options, ["include_usage", "include_obfuscation"])
    job = handler.read_chat(request)
    if job.has_beams:
        raise RequestError(422, "`num_beams` does not go with `stream`: beams are compared at their end.")
    return ChatStream(handler, job, bool(options.get("include_usage")))


class ChatStream:
    """
    The chunks of the answers to a job, which are generated in another thread. Can be iterated over once.

    Args:
        handler ([`EndpointHandler`]), job ([`Job`]): What generates, and what is answered.
        tells_usage (`bool`): Whether `usage` comes in an additional chunk at the end, instead of in the last one.
    """

    def __init__(self, handler: EndpointHandler, job: Job, tells_usage: bool):
        self.handler, self.job, self.tells_usage = handler, job, tells_usage
        self._envelope = write_envelope("chat.completion.chunk", job)
        self._arrived: queue.SimpleQueue = queue.SimpleQueue()
        self._unsent: list[list[Token]] = [[] for _ in range(job.generation.get("num_return_sequences", 1))]
        self._watch = handler.watch(job, lambda index, token: self._arrived.put((index, token)))

    def cancel(self) -> None:
        """Ends the generation with the next token."""
        self._watch.cancelled.cancel()

    def __iter__(self) -> Iterator[dict]:
        """Generates the answers and yields their chunks. Raises a `RequestError` if the model refuses an option."""
        job, texts = self.job, [GrowingText(self.handler.decode, self.job.stop) for _ in self._unsent]
        threading.Thread(target=self._generate, daemon=True).start()
        try:
            for index in range(len(texts)):
                yield self._chunk(index, {"role": "assistant", "content": ""})
            while (arrived := self._arrived.get()) is not None:
                if isinstance(arrived, BaseException):
                    raise arrived
                index, token = arrived
                if token.index not in self.handler.ends and not texts[index].has_ended:
                    self._unsent[index].append(token)
                if text := texts[index].add(token.index):
                    yield self._chunk(index, {"content": text})
            told = {"usage": write_usage(job, sum(len(text.ids) for text in texts))}
            told |= write_evidence(job)
            for index, text in enumerate(texts):
                if rest := text.rest():
                    yield self._chunk(index, {"content": rest})
                decoded = self.handler.decode(text.ids)
                last = self._chunk(index, {}, self.handler.finish_reason(text.ids, decoded, job))
                is_end = index == len(texts) - 1 and not self.tells_usage
                yield {**last, **told} if is_end else last
            if self.tells_usage:
                yield {**self._envelope, "choices": [], **told}
        finally:
            self.cancel()

    def _generate(self) -> None:
        """Generates in the thread. At the end `None` arrives, or the error."""
        end = None
        try:
            self.handler.generate(self.job, self._watch)
        except BaseException as error:
            end = error
        self._arrived.put(end)

    def _chunk(self, index: int, delta: dict, finish_reason: str | None = None) -> dict:
        """The chunk for an answer's next text, with the log probabilities of the tokens that were not sent yet."""
        tokens, self._unsent[index] = self._unsent[index], []
        told = self.handler.write_logprobs(tokens) if tokens and self.job.num_top is not None else None
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": told}
        return {**self._envelope, "choices": [choice]}


class GrowingText:
    """
    The text of an answer, token by token, which `decode` turns into text and texts of `stop` end. Incomplete
    characters and beginnings of stop sequences are held back.
    """

    def __init__(self, decode: Callable, stop: Sequence[str]):
        self.decode, self.stop = decode, stop
        self.ids, self.start, self.end = [], 0, 0
        self.pending, self.has_ended = "", False

    def add(self, token: int) -> str:
        """The text that one more token adds to what was returned before."""
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
        beginnings = [word[:size] for word in self.stop for size in range(1, len(word))]
        held = max((len(text) for text in beginnings if self.pending.endswith(text)), default=0)
        split = len(self.pending) - held
        shown, self.pending = self.pending[:split], self.pending[split:]
        return shown

    def rest(self) -> str:
        """The text that was held back, after the last token."""
        if self.has_ended:
            return ""
        known = self.decode(self.ids[self.start : self.end])
        return cut_at(self.pending + self.decode(self.ids[self.start :])[len(known) :].rstrip("\ufffd"), self.stop)
