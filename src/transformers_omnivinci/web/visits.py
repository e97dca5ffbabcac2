"""A session for each page that is open, and one model that answers one of them at a time."""

import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..media import kind_of
from ..sessions import Answer, Session
from .overview import Overview, look_over

MOST_REMEMBERED = 1000
"""So many visits are known to have been let go."""


@dataclass(frozen=True)
class Reply:
    """
    An answer as far as it has come.

    Attributes:
        text (`str`): What has been said.
        first (`float`, *optional*), seconds (`float`): After how many seconds the first words came, and these.
        answer ([`Answer`], *optional*): The whole; `None` while it is going on.
        is_stopped (`bool`): Whether it was stopped before its end.
        clip ([`Overview`], *optional*), recorded (`float`):
            What the whole rests on: the clip, and the seconds of a recorded question; 0 of a written one.
        read_before (`int`): Positions of the prompt that had been read before the question was asked.
    """

    text: str = ""
    first: float | None = None
    seconds: float = 0.0
    answer: Answer | None = None
    is_stopped: bool = False
    clip: Overview | None = None
    recorded: float = 0.0
    read_before: int = 0


@dataclass(eq=False)
class Visit:
    """
    What a page has watched.

    Attributes:
        media ([`Session`]): The clip alone, from which each question branches that stands by itself.
        talk ([`Session`]): The clip and the turns that are remembered.
        path (`str`): The file of the clip.
        overview ([`Overview`]): What is shown of it.
        stopped (`threading.Event`): Set when the answer that is going on is not wanted any more.
    """

    media: Session
    talk: Session
    path: str
    overview: Overview
    stopped: threading.Event = field(default_factory=threading.Event)


class Visits:
    """
    The visits of all pages that are open, each by a key that no other page knows. None of them sees what another one
    has watched, and the model works for one of them at a time.

    Args:
        model ([`OmniVinciForConditionalGeneration`]), processor ([`OmniVinciProcessor`]): What answers.
        folder (`str` or `os.PathLike`): Where uploads are. Those of a visit are deleted with it.
        most (`int`): So many clips are kept. One more, and the clip is let go that was not used for the longest time.
        max_new_tokens (`int`): The longest answer.
        options: Of the processor, for videos: `num_frames`, `fps`, `load_audio_from_video`.
    """

    def __init__(self, model, processor, folder, most: int = 16, max_new_tokens: int = 512, **options):
        self.model, self.processor, self.folder = model, processor, Path(folder).resolve()
        self.most, self.max_new_tokens, self.options = most, max_new_tokens, options
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self._let_go: OrderedDict[str, None] = OrderedDict()
        self._lock, self._model = threading.RLock(), threading.Lock()

    def __len__(self) -> int:
        return len(self._visits)

    def watch(self, key: str, path: str | os.PathLike, name: str | None = None) -> Overview:
        """
        Watches a file in a new session of a visit, in the place of what it watched before.

        Args:
            key (`str`): Of the visit.
            path (`str` or `os.PathLike`): The file; one among the uploads is deleted when the visit ends.
            name (`str`, *optional*): What it is called. `None`: as the file.

        Raises:
            ValueError, TypeError, OSError: it cannot be watched. What was watched before stays.
        """
        path = os.fspath(path)
        name = name or os.path.basename(path)
        session = Session(self.model, self.processor)
        try:
            kind = kind_of(path)
            overview = look_over(self.processor, path, kind, name, **self.options)
            with self._model:
                session.watch({"type": kind, kind: path}, **(self.options if kind == "video" else {}))
        except BaseException as error:
            session.close()
            self._delete(path)
            if isinstance(error, (OSError, ValueError)) and path in str(error):
                # Where uploads are is nothing that a visitor knows.
                raise ValueError(str(error).replace(path, name)) from error
            raise
        visit = Visit(session, session.fork(), path, overview)
        with self._lock:
            before = self._visits.pop(key, None)
            self._visits[key] = visit
            self._let_go.pop(key, None)
            self._close(before)
            for other in [*self._visits][: max(0, len(self._visits) - self.most)]:
                self._close(self._visits.pop(other))
                self._let_go[other] = None
            while len(self._let_go) > MOST_REMEMBERED:
                self._let_go.popitem(last=False)
        return overview

    def ask(
        self, key: str, question: str, sound: str | os.PathLike | None = None, remember: bool = False
    ) -> Iterator[Reply]:
        """
        Answers a question of a visit, piece by piece.

        Args:
            key (`str`): Of the visit.
            question (`str`): Its text, which may be empty beside a sound.
            sound (`str` or `os.PathLike`, *optional*):
                A file with a spoken question. It stands in the message of the user, behind the clip and in front of
                the text. One among the uploads is deleted.
            remember (`bool`, *optional*, defaults to `False`):
                Whether the question is asked behind those that were remembered, and becomes one of them.

        Raises:
            ValueError, TypeError, OSError: nothing was watched, there is no question, or the sound cannot be read. The
                visit is then as before.
        """
        pieces: queue.SimpleQueue = queue.SimpleQueue()
        visit = None
        try:
            if sound is None and not question.strip():
                raise ValueError("There is no question yet: type one, or record it with the microphone.")
            visit = self._find(key)
            visit.stopped.clear()
            # The model is freed by this thread, whether or not anybody reads the answer to its end.
            arguments = (visit, question, sound, remember, pieces.put)
            threading.Thread(target=self._answer, args=arguments, daemon=True).start()
            while True:
                piece = pieces.get()
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
                if piece.answer is not None:
                    return
        finally:
            if visit is not None:
                visit.stopped.set()
            elif sound is not None:
                self._delete(os.fspath(sound))

    def _answer(self, visit: Visit, question: str, sound, remember: bool, put) -> None:
        """Puts replies, and last a whole one or an error."""
        name = None if sound is None else os.fspath(sound)
        try:
            last = self._generate(visit, question, name, remember, put)
        except BaseException as error:
            last = error
            if name is not None and isinstance(error, (OSError, ValueError)) and name in str(error):
                last = ValueError(str(error).replace(name, "the recorded question"))
        if name is not None:
            self._delete(name)
        put(last)

    def _generate(self, visit: Visit, question: str, sound: str | None, remember: bool, put) -> Reply:
        """Puts replies as they come, and returns the whole one."""
        began, reply = time.perf_counter(), Reply()
        with self._model, (visit.talk if remember else visit.media).fork() as branch:
            if sound is not None:
                branch.watch({"type": "audio", "audio": sound})
            with branch.ask(question, stream=True, keep=remember, max_new_tokens=self.max_new_tokens) as stream:
                for text in stream:
                    now = time.perf_counter() - began
                    reply = replace(reply, text=reply.text + text, first=reply.first or now)
                    put(reply)
                    if visit.stopped.is_set():
                        break
            is_stopped, seconds = visit.stopped.is_set(), time.perf_counter() - began
            if remember and not is_stopped:
                visit.talk = branch.fork()
            # An answer that was stopped may have ended in the middle of a word, which is not shown.
            answer = Answer(reply.text, [], 0, 0) if stream.answer is None else stream.answer
            read_before, recorded = answer.cached_tokens, 0.0
            if sound is not None:
                # It was read for this question alone.
                watched = branch.timeline()[-1]
                read_before, recorded = max(0, read_before - watched.num_tokens), watched.duration
        return Reply(reply.text, reply.first, seconds, answer, is_stopped, visit.overview, recorded, read_before)

    def stop(self, key: str) -> None:
        """Ends the answer of a visit that is going on, if there is one. It is not remembered."""
        with self._lock:
            visit = self._visits.get(key)
        if visit is not None:
            visit.stopped.set()

    def leave(self, key: str) -> None:
        """Ends a visit: its session is freed, and its file is deleted."""
        with self._lock:
            self._close(self._visits.pop(key, None))
            self._let_go.pop(key, None)

    def close(self) -> None:
        """Ends all visits."""
        for key in [*self._visits]:
            self.leave(key)

    def _find(self, key: str) -> Visit:
        with self._lock:
            if key in self._visits:
                self._visits.move_to_end(key)
                return self._visits[key]
            if key in self._let_go:
                raise ValueError(
                    f"The clip of this page was let go, as {self.most} others have been opened since: open it again."
                )
        raise ValueError("Nothing was watched yet: open a clip, record one, or take an example.")

    def _close(self, visit: Visit | None) -> None:
        """Frees a visit; an answer that is going on has a branch of its own, and ends with its next token."""
        if visit is None:
            return
        visit.stopped.set()
        self._delete(visit.path)

    def _delete(self, path: str) -> None:
        """Deletes an upload that no visit has; browsers upload equal files to one place."""
        with self._lock:
            is_used = any(visit.path == path for visit in self._visits.values())
            if not is_used and Path(path).resolve().is_relative_to(self.folder):
                Path(path).unlink(missing_ok=True)
