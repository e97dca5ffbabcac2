"""Sessions: media are encoded once and read once, and many questions are asked about them."""

from .agent import Agent, NoAction, Run, Step
from .answers import Answer, AnswerStream
from .policy import Policy, Watched
from .session import Session

__all__ = ["Agent", "Answer", "AnswerStream", "NoAction", "Policy", "Run", "Session", "Step", "Watched"]
