"""Attempts at what may fail for a while, and how often something may be done."""

import random
import threading
import time
from collections.abc import Callable


class TryAgain(Exception):
    """
    What may work later.

    Args:
        reason (`str`): One sentence.
        after (`float`, *optional*): Seconds to wait, where that was told.
    """

    def __init__(self, reason: str, after: float | None = None):
        super().__init__(reason)
        self.after = after


class GiveUp(Exception):
    """What will not work later either, in one sentence."""


class Patience:
    """
    Repeats what may work later, after waits that double, with up to a quarter more by chance so that processes that
    failed together do not come back together.

    Args:
        retries (`int`): How often it is repeated.
        first (`float`), longest (`float`): The first wait and the longest, in seconds.
        sleep (`Callable`, *optional*): Takes seconds, for tests.
    """

    def __init__(
        self, retries: int, first: float = 1.0, longest: float = 60.0, sleep: Callable[[float], object] = time.sleep
    ):
        self.retries, self.first, self.longest, self._sleep = retries, first, longest, sleep

    def __call__(self, attempt: Callable[[], object]):
        """What an attempt returns. Raises [`GiveUp`] if none is left."""
        for number in range(self.retries + 1):
            try:
                return attempt()
            except TryAgain as error:
                if number == self.retries:
                    times = f" after {number + 1} attempts" if number else ""
                    raise GiveUp(f"{str(error).rstrip('.')}{times}.") from error
                wait = min(self.longest, self.first * 2**number) * random.uniform(1.0, 1.25)
                self._sleep(wait if error.after is None else min(self.longest, error.after))


class RateLimit:
    """
    Lets what calls it through at most so often, evenly spaced; those before their turn wait.

    Args:
        per_minute (`float`, *optional*): How often. `None`: without limit.
        clock (`Callable`), sleep (`Callable`): For tests.
    """

    def __init__(
        self,
        per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ):
        self._interval = 0.0 if per_minute is None else 60.0 / per_minute
        self._clock, self._sleep, self._next, self._lock = clock, sleep, 0.0, threading.Lock()

    def wait(self) -> None:
        """Returns when it is the caller's turn."""
        if not self._interval:
            return
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._interval
        if turn > now:
            self._sleep(turn - now)
