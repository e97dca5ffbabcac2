"""The types of back ends, by the names that a config gives them, and how each is made of its options."""

from .espeak import EspeakOptions, EspeakVoice
from .local_model import LocalModel, LocalModelOptions
from .openai_server import OpenAIServer, ServerOptions
from .protocol import Backend
from .rule_reasoner import RuleReasoner, RuleReasonerOptions
from .voices import Voices, VoicesOptions
from .whisper import Whisper, WhisperOptions
from .world_answerer import WorldAnswerer, WorldAnswererOptions
from .world_captioner import WorldCaptioner, WorldCaptionerOptions

_MADE_BY = {
    ServerOptions: OpenAIServer,
    LocalModelOptions: LocalModel,
    WhisperOptions: Whisper,
    EspeakOptions: EspeakVoice,
    VoicesOptions: Voices,
    WorldCaptionerOptions: WorldCaptioner,
    RuleReasonerOptions: RuleReasoner,
    WorldAnswererOptions: WorldAnswerer,
}

BACKENDS = {
    "server": ServerOptions,
    "transformers": LocalModelOptions,
    "whisper": WhisperOptions,
    "espeak": EspeakOptions,
    "voice": VoicesOptions,
    "test-captioner": WorldCaptionerOptions,
    "test-reasoner": RuleReasonerOptions,
    "test-answerer": WorldAnswererOptions,
}
"""The dataclass of the options of each type. Those that begin with `test-` know the synthetic world alone."""


def make_backend(options) -> Backend:
    """A back end of its options, an instance of one of the classes in `BACKENDS`."""
    return _MADE_BY[type(options)](options)
