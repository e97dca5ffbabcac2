"""Answers that are spoken while they are generated."""

import queue
import threading
from collections.abc import Callable, Iterable


class SpokenAnswer:
    """
    A context in which a text is spoken while its pieces come. Leaving it waits until all is said, and raises what the
    voice met with; if the text itself failed, what was not said yet stays unsaid.

    Args:
        voice ([`~transformers_omnivinci.inference.speech.Voice`]): Who speaks.
        take (`Callable`): Called in a thread of its own with an iterator over the sentences with their sound.
    """

    def __init__(self, voice, take: Callable[[Iterable], None]):
        self.voice, self.take = voice, take
        self._pieces: queue.SimpleQueue = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def say(self, text: str) -> None:
        """Adds a piece of the text."""
        self._pieces.put(text)

    def __enter__(self) -> "SpokenAnswer":
        self._thread.start()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._is_stopped = kind is not None
        self._pieces.put(None)
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def _run(self) -> None:
        try:
            self.take(self._until_stopped(self.voice.synthesize(iter(self._pieces.get, None))))
        except BaseException as error:
            self._error = error

    def _until_stopped(self, spoken: Iterable):
        for one in spoken:
            if self._is_stopped:
                raise InterruptedError("What was being said was stopped.")
            yield one
        if self._is_stopped:
            raise InterruptedError("What was being said was stopped.")
