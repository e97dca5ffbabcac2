"""Other recognisers beside the model of `/v1/audio/transcriptions` (paper, appendix D.3, figure 16)."""

import threading
from collections.abc import Callable, Sequence

import numpy as np

from ..endpoint import EndpointHandler
from ..inference.speech.deciding import DecidingRecogniser
from ..inference.speech.decisions import check_number
from ..inference.speech.model_hearing import ModelHearing
from ..inference.speech.recognisers import ModelRecogniser, Recogniser, make_listeners

DEFAULT_NEW_TOKENS = 256


class RecogniserError(OSError):
    """Another recogniser of the server fails, which is no fault of the request."""


class SecondOpinion:
    """
    What the server has beside its models to write down speech.

    Args:
        names (`Sequence[str]`): As [`make_listeners`] takes them. None: models alone listen.
        decides (`bool`, defaults to `False`):
            Whether a model decides about what up to five others heard; else the text of one enters its prompt.

    Raises:
        ValueError, OSError: there is no such recogniser, or their number is not accepted.
    """

    def __init__(self, names: Sequence[str] = (), decides: bool = False):
        if decides:
            check_number(len(names))
        elif len(names) > 1:
            raise ValueError(f"Without decisions, one other recogniser is accepted, got {len(names)}.")
        self.decides = decides
        self.externals = [_Guarded(one) for one in make_listeners(names).values()]

    def recogniser(self, ask: Callable[[np.ndarray, str], str], handler: EndpointHandler) -> Recogniser:
        """What writes down the windows of a request: `ask` has the model of `handler` answer about samples."""
        if self.decides:
            return DecidingRecogniser(_ServedHearing(ask, handler), self.externals)
        return ModelRecogniser(ask, self.externals[0] if self.externals else None)


class _Guarded:
    """A recogniser that one request uses at a time, and whose errors are told as such."""

    def __init__(self, recogniser: Recogniser):
        self.recogniser, self.name, self.lock = recogniser, recogniser.name, threading.Lock()

    def transcribe(self, samples: np.ndarray, start: float = 0.0) -> str:
        """As in [`Recogniser`]."""
        try:
            with self.lock:
                return self.recogniser.transcribe(samples, start)
        except (ImportError, OSError, ValueError) as error:
            raise RecogniserError(f"The recogniser {self.name} of this server fails: {error}") from error


class _ServedHearing:
    """
    The model of a handler. It hears by requests, but is asked for decisions past them: in the texts of requests no
    control token is read as such.
    """

    def __init__(self, ask: Callable[[np.ndarray, str], str], handler: EndpointHandler):
        self.ask, self.handler = ask, handler

    def __call__(self, samples: np.ndarray, prompt: str) -> str:
        """As in [`Hearing`]."""
        return self.ask(samples, prompt)

    def decide(self, samples: np.ndarray, internal: str, candidates: Sequence[str]) -> str:
        """As in [`Hearing`]."""
        pipeline, most = self.handler.pipeline, self.handler.limits.max_new_tokens
        with self.handler.lock:
            hearing = ModelHearing(pipeline.processor, pipeline.model, min(DEFAULT_NEW_TOKENS, most))
            return hearing.decide(samples, internal, candidates)
