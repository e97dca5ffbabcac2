"""Answers, whole or piece by piece."""

import threading
from collections.abc import Callable, Iterator, Sequence

from transformers import TextIteratorStreamer

from ..planning import Evidence


class Answer(str):
    """
    The text of an answer, with what is known of it.

    Attributes:
        token_ids (`list[int]`): What the model has said, with the token that ends it.
        prompt_tokens (`int`): Positions of the prompt.
        cached_tokens (`int`): Those of them that had been read before the question.
        evidence ([`~transformers_omnivinci.planning.Evidence`], *optional*): What it rests on, if that is asked for.
    """

    token_ids: Sequence[int]
    prompt_tokens: int
    cached_tokens: int
    evidence: Evidence | None

    def __new__(
        cls,
        text: str,
        token_ids: Sequence[int],
        prompt_tokens: int,
        cached_tokens: int,
        evidence: Evidence | None = None,
    ):
        answer = super().__new__(cls, text)
        answer.token_ids, answer.prompt_tokens, answer.cached_tokens = list(token_ids), prompt_tokens, cached_tokens
        answer.evidence = evidence
        return answer


class AnswerStream:
    """
    An answer that is generated in another thread while it is iterated over, which gives its text piece by piece.
    Whoever does not want the rest calls [`close`]; the session is free again afterwards.

    Attributes:
        answer ([`Answer`]): The whole, when the iteration has ended; `None` if it was closed before.
    """

    def __init__(self, tokenizer, answer: Callable[..., Answer], release: Callable[[], None]):
        # Here, as pipelines, which that module loads, are loaded with what of sessions they use.
        from ..endpoint.generation import Cancelled

        self.answer: Answer | None = None
        self._cancelled = Cancelled()
        self._streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._generate, self._release = answer, release
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.answer = self._generate(streamer=self._streamer, cancelled=self._cancelled)
        except BaseException as error:
            self._error = error
        finally:
            self._release()
            self._streamer.end()

    def __iter__(self) -> Iterator[str]:
        try:
            for text in self._streamer:
                if text:
                    yield text
            self._thread.join()
            if self._error is not None:
                raise self._error
        finally:
            self.close()

    def close(self) -> None:
        """Ends the generation, if it has not ended yet, and waits for that."""
        self._cancelled.cancel()
        self._thread.join()

    def __enter__(self) -> "AnswerStream":
        return self

    def __exit__(self, *_) -> None:
        self.close()
