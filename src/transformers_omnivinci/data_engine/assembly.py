"""Puts the stages of a config together, and says what of it decides about results."""

from dataclasses import fields

from .answerability import Answerability
from .asking_stage import Bench
from .audio_caption import AudioCaption
from .backends.protocol import Backend
from .backends.registry import make_backend
from .config import EngineConfig, backend_options
from .cross_modal_correction import CrossModalCorrection
from .prompt_files import find_prompt
from .question_answering import QuestionAnswering
from .split import Split
from .spoken import SpeechPrompts
from .stage import Stage, check_chain
from .typed import plain
from .visual_caption import VisualCaption

STAGES: dict[str, type[Stage]] = {
    stage.name: stage
    for stage in (
        VisualCaption,
        AudioCaption,
        CrossModalCorrection,
        QuestionAnswering,
        Answerability,
        SpeechPrompts,
    )
}
"""The stages after [`Split`], by the names that configs give them."""
WHERE_AND_HOW_MANY = {"batch_size", "workers", "num_cpus", "num_gpus"}
"""Entries of stages that change no result."""
HOW_A_BACKEND_IS_REACHED = (
    "url",
    "api_key_env",
    "concurrency",
    "requests_per_minute",
    "timeout",
    "retries",
    "device",
    "delay",
)
"""Options of back ends that change none either."""


def build_stage(name: str, config: EngineConfig, bench: Bench) -> Stage:
    """A stage of a config, by its name; its back ends are those of `bench`."""
    return STAGES[name](getattr(config.stages, name), bench)


def build_stages(config: EngineConfig, made: dict[str, Backend] | None = None) -> list[Stage]:
    """All stages of a config, in order. `made`: back ends by name that are there already."""
    bench = Bench(config, made)
    return [build_stage(name, config, bench) for name, _ in config.named_stages()]


def check_backends(config: EngineConfig) -> None:
    """Raises an error of one sentence if there is no hope in a back end; see [`Backend.check`]. None is loaded."""
    for name, options in config.backends.items():
        make_backend(backend_options(name, options)).check()


def check_config(config: EngineConfig) -> None:
    """A ValueError unless each stage finds its columns. No back end is made."""
    names = [name for name, _ in config.named_stages()]
    if not names:
        raise ValueError(f"`stages` names none: {', '.join(STAGES)} are accepted.")
    check_chain([STAGES[name] for name in names], [*Split.gives])


def settings_of(config: EngineConfig) -> dict:
    """What decides about the results of a run, flat, with the content of prompts by its SHA-256."""
    settings = {"seed": config.seed}
    settings |= {f"split.{name}": value for name, value in plain(config.split).items()}
    for stage, options in config.named_stages():
        for field in fields(options):
            value = plain(getattr(options, field.name))
            if field.name.endswith("prompt") and value:
                value = find_prompt(value, config.prompts).label
            if field.name not in WHERE_AND_HOW_MANY:
                settings[f"{stage}.{field.name}"] = value
    for name, options in config.backends.items():
        for option, value in options.items():
            if option not in HOW_A_BACKEND_IS_REACHED:
                settings[f"backends.{name}.{option}"] = value
    return settings
