"""Sessions: media are encoded once and read once, and many questions are asked about them."""

from .answers import Answer, AnswerStream
from .policy import Policy, Watched
from .session import Session

__all__ = ["Answer", "AnswerStream", "Policy", "Session", "Watched"]
