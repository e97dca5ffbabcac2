"""
The config of a run, `engine.yaml`, as dataclasses. A stage that the file does not name is left out, if no other one
needs its columns; an entry that is not known is an error with the nearest name.
"""

import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from .backends.registry import BACKENDS
from .columns import CATEGORIES, Mark
from .prompt_files import find_prompt
from .typed import nearest, plain, read


@dataclass(frozen=True)
class SplitConfig:
    """
    How videos are cut.

    Attributes:
        segment_seconds (`float`), clip_seconds (`float`): The paper's two minutes and twenty seconds.
        shortest_clip (`float`): A remainder shorter than this becomes part of the clip before it, in seconds.
        shortest_source (`float`), longest_source (`float`, *optional*): Other videos are rejected, in seconds.
        by (`"time"` or `"scene"`): Whether clips end at the cuts of a film, by PySceneDetect (extra `scenes`).
        scene_threshold (`float`): Of PySceneDetect's `ContentDetector`.
        silence (`float`, *optional*):
            A segment whose sound nowhere exceeds this level, in dB of full scale, is rejected. `None`: sound is not
            decoded, and segments are only known to have a track.
    """

    segment_seconds: float = 120.0
    clip_seconds: float = 20.0
    shortest_clip: float = 2.0
    shortest_source: float = 2.0
    longest_source: float | None = None
    by: Literal["time", "scene"] = "time"
    scene_threshold: float = 27.0
    silence: float | None = -60.0

    def __post_init__(self):
        for name in ("segment_seconds", "clip_seconds", "shortest_clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`split.{name}` is {getattr(self, name)}: a positive number of seconds is accepted.")
        if not self.shortest_clip <= self.clip_seconds <= self.segment_seconds:
            raise ValueError(
                f"Clips of {self.clip_seconds:g} s are shorter than `shortest_clip` ({self.shortest_clip:g} s) or "
                f"longer than segments ({self.segment_seconds:g} s)."
            )


@dataclass(frozen=True)
class AskingConfig:
    """
    What stages that ask a model share.

    Attributes:
        backend (`str`): A name of `backends`.
        prompt (`str`): The file of the prompt, in the folder `prompts` or among those of the package.
        max_tokens (`int`), temperature (`float`): As servers take them.
        batch_size (`int`): Segments that are given to the back end at a time.
        workers (`int`): Processes that have the back end, on Ray.
        num_cpus (`float`), num_gpus (`float`): Of each of these.
    """

    backend: str
    prompt: str = ""
    max_tokens: int = 1024
    temperature: float = 0.0
    batch_size: int = 4
    workers: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0


@dataclass(frozen=True)
class VisualCaptionConfig(AskingConfig):
    """Captions of clips that are seen and not heard."""

    prompt: str = "visual_caption.txt"


@dataclass(frozen=True)
class AudioCaptionConfig(AskingConfig):
    """
    Captions of clips that are heard and not seen.

    Attributes:
        speech (`str`, *optional*): The back end that writes down what is spoken, which the captioner then is told.
    """

    prompt: str = "audio_caption.txt"
    speech: str | None = None


@dataclass(frozen=True)
class CorrectionConfig(AskingConfig):
    """
    The captions of both senses corrected by each other and merged.

    Attributes:
        most_rejected (`int`, *optional*):
            How many statements a server may reject of a segment, for models that find no end.
    """

    prompt: str = "cross_modal_correction.txt"
    max_tokens: int = 2048
    most_rejected: int | None = None


@dataclass(frozen=True)
class QuestionsConfig(AskingConfig):
    """
    Questions with reasoning traces.

    Attributes:
        categories (`list[str]`): Which are asked for, of `CATEGORIES`.
        multiple_choice (`int`), open (`int`): How many of each kind are asked for about a segment.
        num_options (`int`): Of a multiple choice.
    """

    prompt: str = "questions.txt"
    max_tokens: int = 4096
    categories: list[str] = field(default_factory=lambda: list(CATEGORIES))
    multiple_choice: int = 3
    open: int = 3
    num_options: int = 4

    def __post_init__(self):
        for name in self.categories:
            if name not in CATEGORIES:
                raise ValueError(f"Unknown category {name!r} of questions: {nearest(name, CATEGORIES)}")
        if min(self.multiple_choice, self.open) < 0 or not 2 <= self.num_options <= 10:
            raise ValueError("`questions` asks for numbers of questions from 0 on, and for 2 to 10 options.")


@dataclass(frozen=True)
class FilterConfig(AskingConfig):
    """
    Which questions are marked.

    Attributes:
        prompt (`str`): With which the questions are asked without a sense.
        support (`str`, *optional*): The back end that says whether the caption supports an answer. `None`: not asked.
        support_prompt (`str`): With which it is asked.
        senses (`list[str]`): With which senses alone questions are asked: `"text only"`, `"deaf"`, `"blind"`.
        rounds (`int`): In how many orders of its options a multiple choice is asked.
        duplicates (`float`): The share of common word triples from which questions count as the same.
    """

    prompt: str = "answer.txt"
    max_tokens: int = 64
    support: str | None = None
    support_prompt: str = "support.txt"
    senses: list[Literal["text only", "deaf", "blind"]] = field(default_factory=lambda: ["text only", "deaf", "blind"])
    rounds: int = 2
    duplicates: float = 0.8

    def __post_init__(self):
        if self.rounds < 1 or not 0 < self.duplicates <= 1:
            raise ValueError("`filter` asks for `rounds` from 1 on and for `duplicates` above 0, up to 1.")


@dataclass(frozen=True)
class SpeechConfig:
    """
    Questions that are spoken (figure 14).

    Attributes:
        voice (`str`): The back end that speaks.
        share (`float`): Of the questions, from 0 to 1.
    """

    voice: str
    share: float = 0.5
    batch_size: int = 16
    workers: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise ValueError(f"`speech_prompts.share` is {self.share}: a number from 0 to 1 is accepted.")


@dataclass(frozen=True)
class StagesConfig:
    """The stages, in the order of figure 4. `None`: left out."""

    visual_caption: VisualCaptionConfig | None = None
    audio_caption: AudioCaptionConfig | None = None
    cross_modal_correction: CorrectionConfig | None = None
    questions: QuestionsConfig | None = None
    filter: FilterConfig | None = None
    speech_prompts: SpeechConfig | None = None


@dataclass(frozen=True)
class WriteConfig:
    """
    What is written.

    Attributes:
        captions (`bool`): Whether the omni caption of each segment is a chat, too.
        reasoning (`bool`): Whether answers begin with their reasoning.
        drop (`list[str]`): With which marks of the filter questions are left out of the chats.
        repeated (`float`, *optional*):
            The share of common word triples from which the caption of a segment counts as that of an earlier one: it
            is then left out, and so are questions that are as much like those about that one. `None`: all are written.
        formats (`list[str]`):
            What is written beside JSON lines: `"parquet"`, `"datasets"` (a folder for Hugging Face `datasets`, with
            media) and `"webdataset"` (shards with media).
        shard_megabytes (`float`): The most that a WebDataset shard has, unless a single sample has more.
        name (`str`), license (`str`, *optional*):
            What the data card calls the data, and the identifier of their license. `None`: it says that there is none.
    """

    captions: bool = True
    reasoning: bool = True
    drop: list[Mark] = field(default_factory=lambda: ["text only", "unsupported", "duplicate"])
    repeated: float | None = 0.8
    formats: list[Literal["parquet", "datasets", "webdataset"]] = field(default_factory=list)
    shard_megabytes: float = 1000.0
    name: str = "Omni-modal captions and questions"
    license: str | None = None

    def __post_init__(self):
        if self.repeated is not None and not 0 < self.repeated <= 1:
            raise ValueError(f"`write.repeated` is {self.repeated}: a share above 0, up to 1, or null is accepted.")
        if self.shard_megabytes <= 0:
            raise ValueError(f"`write.shard_megabytes` is {self.shard_megabytes}: a positive number is accepted.")
        if self.license is not None and not re.fullmatch(r"[A-Za-z0-9.-]+", self.license):
            raise ValueError(f"`write.license` is {self.license!r}: an identifier such as 'cc-by-4.0' is accepted.")


@dataclass(frozen=True)
class EngineConfig:
    """
    Everything that a run depends on, beside its sources.

    Attributes:
        backends (`dict[str, dict]`): By name: `type`, one of `BACKENDS`, and the options of that type.
        split, stages, write: See there.
        prompts (`str`, *optional*): A folder with prompts that take the place of those of the package.
        seed (`int`): Of whatever is random.
    """

    backends: dict[str, dict]
    stages: StagesConfig
    split: SplitConfig = field(default_factory=SplitConfig)
    write: WriteConfig = field(default_factory=WriteConfig)
    prompts: str | None = None
    seed: int = 0

    def __post_init__(self):
        for name, options in self.backends.items():
            backend_options(name, options)
        for stage, config in self.named_stages():
            for role in ("backend", "speech", "support", "voice"):
                name = getattr(config, role, None)
                if name is not None and name not in self.backends:
                    raise ValueError(
                        f"The stage {stage} names the back end {name!r}, which `backends` has not: "
                        f"{nearest(name, self.backends)}"
                    )
            for role in ("prompt", "support_prompt"):
                if getattr(config, role, None):
                    find_prompt(getattr(config, role), self.prompts)

    def named_stages(self) -> list[tuple[str, object]]:
        """The stages that are not left out, in order, with their names."""
        pairs = ((one.name, getattr(self.stages, one.name)) for one in fields(self.stages))
        return [(name, config) for name, config in pairs if config is not None]


def backend_options(name: str, options: dict):
    """The options of a back end as the dataclass of its type."""
    kind = options.get("type")
    if kind not in BACKENDS:
        raise ValueError(f"The back end {name!r} has the type {kind!r:.40}: {nearest(kind or '', BACKENDS)}")
    given = {key: value for key, value in options.items() if key != "type"}
    return read(BACKENDS[kind], given, f"The back end {name!r}")


def read_config(path: str | Path) -> EngineConfig:
    """
    Reads the config of a run. A folder of prompts is relative to the file.

    Args:
        path (`str` or `Path`): A YAML file.

    Raises:
        ValueError: the file is not YAML, or holds what is not accepted.
        ImportError: there is no YAML parser.
        OSError: a file cannot be read.
    """
    import yaml

    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OSError(f"The config {path} cannot be read: {error.strerror or error}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if isinstance(content, dict) and isinstance(content.get("prompts"), str):
        content["prompts"] = str(path.parent / content["prompts"])
    return read(EngineConfig, content, str(path))


def with_formats(config: EngineConfig, formats: list[str]) -> EngineConfig:
    """A config that writes other formats. A `ValueError` names one that is not known."""
    return replace(config, write=read(WriteConfig, plain(config.write) | {"formats": formats}, "The config's write"))
