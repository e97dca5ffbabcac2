"""Decoded pictures that are converted piece by piece, so that only what becomes of them is kept."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from .frames import FrameSink, empty_rows

MAX_THREADS = 8
"""The most threads that decode for a [`PieceSink`]: each of them may have begun a piece, whose pictures wait."""
_MAX_READY = 2  # pieces that wait to be converted
_MAX_BEGUN = 2 * MAX_THREADS  # pieces whose pictures may wait for others


class PieceSink(FrameSink):
    """
    Takes decoded pictures as a [`FrameSink`] does, and hands them on in pieces. Decoders wait where the pieces are not
    converted as fast. A piece whose pictures do not all come, because some are damaged, is handed on without them.

    Args:
        num_rows, transform, size, num_threads: As of [`FrameSink`].
        convert (`Callable`):
            Gets pictures (num_pictures, ...) of rows that follow each other, and returns what is kept of them, a
            tensor (num_pictures, ...).
        piece_size (`int`): Pictures of a piece.
    """

    def __init__(self, num_rows: int, transform, size: tuple[int, int], num_threads: int, convert, piece_size: int):
        super().__init__(num_rows, transform, size, num_threads)
        self.convert, self.piece_size = convert, piece_size
        self.changed = threading.Condition(self.lock)
        self.begun: dict[int, dict[int, torch.Tensor]] = {}  # of each piece, the pictures by their rows
        self.ready: deque[dict[int, torch.Tensor]] = deque()
        self.is_over = False

    def run(self, decode: Callable[[], None]) -> None:
        """Calls `decode`, which puts all pictures, in another thread, and converts them in this one."""
        with ThreadPoolExecutor(1, "decode") as executor:
            decoding = executor.submit(self._decode, decode)
            try:
                while (piece := self._next()) is not None:
                    self._convert(piece)
            except BaseException as error:
                with self.changed:
                    self.error = self.error or error
                    self.changed.notify_all()
                raise
        decoding.result()

    def _decode(self, decode: Callable[[], None]) -> None:
        try:
            decode()
            self.executor.shutdown()
        except BaseException as error:
            self.error = self.error or error
            raise
        finally:
            with self.changed:
                self.is_over = True
                self.changed.notify_all()

    def _keep(self, row: int, picture: torch.Tensor) -> None:
        number = row // self.piece_size
        with self.changed:
            piece = self.begun.setdefault(number, {})
            piece[row] = picture
            if len(piece) == min(self.piece_size, len(self.is_stored) - number * self.piece_size):
                self._hand_on(number)
            elif sum(map(len, self.begun.values())) > _MAX_BEGUN * self.piece_size:
                self._hand_on(next(iter(self.begun)))
            while len(self.ready) > _MAX_READY and self.error is None:
                self.changed.wait()

    def _hand_on(self, number: int) -> None:
        self.ready.append(self.begun.pop(number))
        self.changed.notify_all()

    def _next(self) -> dict[int, torch.Tensor] | None:
        """The piece that is converted next; at the end, those that are not complete."""
        with self.changed:
            while not (self.ready or self.is_over or self.error is not None):
                self.changed.wait()
            if self.error is not None:
                raise self.error
            if not self.ready and self.begun:
                self._hand_on(min(self.begun))
            self.changed.notify_all()
            return self.ready.popleft() if self.ready else None

    def _convert(self, piece: dict[int, torch.Tensor]) -> None:
        rows = sorted(piece)
        pictures = empty_rows(len(rows), piece[rows[0]])
        for picture, row in zip(pictures, rows, strict=True):
            picture.copy_(piece[row])
        converted = self.convert(pictures)
        if self.frames is None:
            self.frames = converted.new_empty((len(self.is_stored), *converted.shape[1:]))
        self.frames[rows] = converted
        self.is_stored[rows] = True
