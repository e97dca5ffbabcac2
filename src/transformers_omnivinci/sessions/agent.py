"""An agent: a model that sees, says what to do, and sees what came of it, until it stops (paper, appendix B.1)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .answers import Answer
from .session import Session

UNREADABLE = ("refuse", "stop")
"""What an agent does about an answer that is no action."""


class NoAction(ValueError):
    """An answer of the model is no action. It has the `answer` and its `step`, from 0 on."""

    def __init__(self, answer: str, step: int, reason: str):
        super().__init__(f"The answer {str(answer)!r:.80} in step {step} is no action: {reason}")
        self.answer, self.step = answer, step


@dataclass(frozen=True)
class Step:
    """
    One step of an agent.

    Attributes:
        answer ([`Answer`]): What the model said.
        action (`Any`): What that means.
        is_action (`bool`): `False` of an answer that is no action and counts as a stop.
        num_frames (`int`): How many frames it was chosen by.
    """

    answer: Answer
    action: Any
    is_action: bool
    num_frames: int


@dataclass(frozen=True)
class Run:
    """
    What an agent did.

    Attributes:
        steps (`tuple[Step, ...]`): In their order; the last one is the stop, if there was one.
        ended_by (`str`): `"stop"`; `"unreadable"`, an answer that is no action and counts as a stop; `"world"`, which
            gave no further frame; or `"bound"`, the most steps.
    """

    steps: tuple[Step, ...]
    ended_by: str

    @property
    def actions(self) -> list:
        """The actions of all steps."""
        return [step.action for step in self.steps]


class Agent:
    """
    Acts in a world: it is shown a frame, answers, and the action that the answer names brings the next frame.

    Each answer is that of the session, as it was given, to a video of the last frames and the question behind it. What
    the session has watched and said before is read once, such as a spoken instruction; the session itself stays as it
    was, so that it can serve further runs.

    ```python
    session.watch("instruction.wav")
    agent = Agent(session, parse, stop="stop", question="Which way?", history=8)
    run = agent.run(first_frame, lambda action: robot.perform(action), max_steps=30)
    ```

    Args:
        session ([`Session`]): What answers.
        parse (`Callable[[str], Any]`):
            The action that an answer names. A ValueError says that it is none; its text is a sentence about what is
            accepted.
        stop (`Any`): The action that ends a run; it is not performed.
        question (`str`): What is asked behind the frames.
        history (`int`, *optional*, defaults to 8): How many frames are kept: the last ones, the present one among
            them. 8 is the paper's.
        fps (`float`, *optional*, defaults to 1.0): Frames per second of the video that they form, whose first frame
            is at 0 s. Give that of the clips that the model was trained on.
        unreadable (`str`, *optional*, defaults to `"refuse"`): What an answer that is no action means: `"refuse"`
            raises [`NoAction`], `"stop"` counts it as a stop.
        generation: Options of `generate`, such as `max_new_tokens`.

    Raises:
        TypeError: `session` is no session, or `parse` cannot be called.
        ValueError: `history`, `fps` or `unreadable` is out of range.
    """

    def __init__(
        self,
        session: Session,
        parse: Callable[[str], Any],
        stop: Any,
        question: str,
        history: int = 8,
        fps: float = 1.0,
        unreadable: str = "refuse",
        **generation,
    ):
        if not isinstance(session, Session):
            raise TypeError(f"An agent acts by a Session, got {type(session).__name__} {session!r:.40}.")
        if not callable(parse):
            raise TypeError(
                f"`parse` is called with an answer, but {type(parse).__name__} {parse!r:.40} is no function."
            )
        if isinstance(history, bool) or not isinstance(history, int) or history < 1:
            raise ValueError(f"`history={history!r:.40}` is not accepted: a number of frames from 1 on is.")
        if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < float("inf"):
            raise ValueError(f"`fps={fps!r:.40}` is not accepted: a positive number of frames per second is.")
        if unreadable not in UNREADABLE:
            raise ValueError(f"`unreadable={unreadable!r:.40}` is not accepted: {' and '.join(UNREADABLE)} are.")
        self.session, self.parse, self.stop, self.question = session, parse, stop, question
        self.history, self.fps, self.unreadable, self.generation = history, float(fps), unreadable, generation

    def choose(self, frames: Sequence[np.ndarray], step: int = 0) -> Step:
        """
        The next action.

        Args:
            frames (`Sequence[np.ndarray]`):
                What was seen, the present frame last: uint8 of shape (height, width, 3), all of one size. Those before
                the last `history` are left out.
            step (`int`, *optional*, defaults to 0): Which step of a run it is, for the error.

        Raises:
            NoAction: the answer is none, and `unreadable="refuse"`.
            ValueError: there is no frame, or frames are not accepted.
        """
        if not len(frames):
            raise ValueError("An action is chosen by what is seen, but no frame was given.")
        kept = [np.asarray(frame) for frame in frames[-self.history :]]
        if other := next((frame.shape for frame in kept if frame.shape != kept[0].shape), None):
            raise ValueError(f"Frames of one size are accepted, got {kept[0].shape} and {other}.")
        known = {"fps": self.fps, "total_num_frames": len(kept), "duration": len(kept) / self.fps}
        known["frames_indices"] = list(range(len(kept)))
        with self.session.fork() as branch:
            branch.watch((np.stack(kept), known), kind="video")
            answer = branch.ask(self.question, **self.generation)
        try:
            return Step(answer, self.parse(str(answer)), True, len(kept))
        except ValueError as error:
            if self.unreadable == "stop":
                return Step(answer, self.stop, False, len(kept))
            raise NoAction(answer, step, str(error)) from error

    def run(self, frame: np.ndarray, act: Callable[[Any], np.ndarray | None], max_steps: int) -> Run:
        """
        Acts until the model stops, the world ends, or the bound is reached.

        Args:
            frame (`np.ndarray`): What is seen at first: uint8 of shape (height, width, 3).
            act (`Callable`): Performs an action and returns what is seen then; `None`: the world has ended.
            max_steps (`int`): The most steps.

        Returns:
            [`Run`]: all steps, and why it ended.

        Raises:
            NoAction: an answer is none, and `unreadable="refuse"`. Actions before it were performed.
            ValueError: `max_steps` is less than 1, or frames are not accepted.
        """
        if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
            raise ValueError(f"`max_steps={max_steps!r:.40}` is not accepted: a number from 1 on is.")
        frames, steps = [frame], []
        while len(steps) < max_steps:
            step = self.choose(frames, len(steps))
            steps.append(step)
            if not step.is_action or step.action == self.stop:
                return Run(tuple(steps), "stop" if step.is_action else "unreadable")
            seen = act(step.action)
            if seen is None:
                return Run(tuple(steps), "world")
            frames = [*frames, seen][-self.history :]
        return Run(tuple(steps), "bound")
