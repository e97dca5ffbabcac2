"""What is generated and what is spoken of it, as both come."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

from ..inference.speech import Spoken


def speak_along(
    items: Iterable[dict],
    text_of: Callable[[dict], str],
    synthesize: Callable[[Iterable[str]], Iterable[Spoken]],
) -> Iterator[dict | Spoken]:
    """
    Yields items as they come, and the sentences of their text as soon as they are spoken, which does not hold up
    the items. The error of either is raised.

    Args:
        items (`Iterable[dict]`): What is generated.
        text_of (`Callable[[dict], str]`): The text that an item adds.
        synthesize (`Callable`): Speaks a text whose pieces come one after another.
    """
    arrived: queue.SimpleQueue = queue.SimpleQueue()
    said: queue.SimpleQueue = queue.SimpleQueue()
    stopped = threading.Event()

    def read() -> None:
        try:
            for item in items:
                arrived.put(item)
                if text := text_of(item):
                    said.put(text)
                if stopped.is_set():
                    break
        except BaseException as error:
            arrived.put(error)
        finally:
            said.put(None)

    def speak() -> None:
        try:
            for one in synthesize(iter(said.get, None)):
                arrived.put(one)
                if stopped.is_set():
                    break
        except BaseException as error:
            arrived.put(error)
        arrived.put(None)

    for run in (read, speak):
        threading.Thread(target=run, daemon=True).start()
    try:
        while (item := arrived.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
