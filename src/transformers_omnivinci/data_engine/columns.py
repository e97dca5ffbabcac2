"""
The columns of a row, which is one segment of a video on its way through the engine.

Each stage reads the columns of some of these classes and adds those of others; [`Stage`] checks both at its borders.
All seconds are those of the source; captions count from the start of what their model was shown.
"""

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal

Sense = Literal["visual", "audio"]
CATEGORIES = ("perception", "order", "synchrony", "counting", "cause", "anti-shortcut")
Mark = Literal["text only", "deaf", "blind", "unsupported", "duplicate"]
Category = Literal["perception", "order", "synchrony", "counting", "cause", "anti-shortcut"]


@dataclass(frozen=True)
class Source:
    """
    A video to be split.

    Attributes:
        source (`str`): Its path or URL.
    """

    source: str


@dataclass(frozen=True)
class Span:
    """From `start` to `end`, in seconds."""

    start: float
    end: float


@dataclass(frozen=True)
class Segment:
    """
    A stretch of a video, about two minutes of it, in clips of about twenty seconds.

    Attributes:
        id (`str`): Unique among all segments of all sources; the same in each run.
        source (`str`): The path or URL of the video.
        start (`float`), end (`float`): In seconds of the video.
        clips (`list[Span]`): Which follow each other from `start` to `end`, in seconds of the video.
    """

    id: str
    source: str
    start: float
    end: float
    clips: list[Span]

    @property
    def label(self) -> str:
        """Which segment of which file, wherever that lies: seeds depend on it."""
        return f"{PurePath(self.source).name}/{self.start:g}"

    def within(self, clip: Span) -> Span:
        """A clip in seconds from the start of the segment."""
        return Span(round(clip.start - self.start, 3), round(clip.end - self.start, 3))


@dataclass(frozen=True)
class VisualCaptions:
    """What a model that saw each clip, but did not hear it, wrote about it."""

    visual_captions: list[str]


@dataclass(frozen=True)
class AudioCaptions:
    """
    What a model that heard each clip, but did not see it, wrote about it.

    Attributes:
        audio_captions (`list[str]`): One for each clip.
        speech (`list[str]`): What is spoken in each clip, by a model of its own; empty texts without one.
    """

    audio_captions: list[str]
    speech: list[str]


@dataclass(frozen=True)
class RejectedStatement:
    """
    A statement of a caption that the other sense, or reason, speaks against.

    Attributes:
        sense (`"visual"` or `"audio"`): In which captions it stood.
        clip (`int`): In the caption of which clip, counted from 0.
        statement (`str`): What it claimed.
        reason (`str`): Why it was rejected.
    """

    sense: Sense
    clip: int
    statement: str
    reason: str


@dataclass(frozen=True)
class OmniCaption:
    """The one caption of a segment, and what of the captions of its clips did not enter it."""

    omni_caption: str
    rejected_statements: list[RejectedStatement]


@dataclass(frozen=True)
class QuestionAnswer:
    """
    A question about a segment.

    Attributes:
        category (`str`): One of `CATEGORIES`.
        question (`str`): Without its options.
        options (`list[str]`): Those of a multiple choice, without letters; none for an open question.
        answer (`str`): Of a multiple choice, one of the options.
        reasoning (`str`): The steps from what is seen and heard to the answer.
        marks (`list[str]`): What the filter found, see `MARKS` of `answerability`.
        speech (`str`): The path of the spoken question, relative to the output; empty if it is written.
    """

    category: Category
    question: str
    options: list[str]
    answer: str
    reasoning: str
    marks: list[str] = field(default_factory=list)
    speech: str = ""


@dataclass(frozen=True)
class Questions:
    """The questions about a segment."""

    questions: list[QuestionAnswer]


@dataclass(frozen=True)
class UnusableQuestion:
    """
    A question that a model wrote, and nobody is asked.

    Attributes:
        question (`str`): As it was written.
        reason (`str`): What is wrong with it.
    """

    question: str
    reason: str


@dataclass(frozen=True)
class UnusableQuestions:
    """Those about the segment."""

    unusable_questions: list[UnusableQuestion]


@dataclass(frozen=True)
class Sounds:
    """
    Sounds on their way to the output folder, in whose file of rows they do not stand.

    Attributes:
        sounds (`dict[str, str]`): WAV files in base64, by their paths relative to the output.
    """

    sounds: dict[str, str]


@dataclass(frozen=True)
class Provenance:
    """
    How a stage came to its columns.

    Attributes:
        stage (`str`): Its name.
        backend (`str`), model (`str`): The back end that it asked, by its name in the config, and the model there.
        prompt (`str`): The prompt, by its name and the first digits of its SHA-256.
        calls (`int`), prompt_tokens (`int`), completion_tokens (`int`): What it took.
        cost (`float`): By the prices in the config, in their currency.
        repairs (`int`): Answers that were asked again because they were not of the structure that was wanted.
        seconds (`float`): Which the back end took.
    """

    stage: str
    backend: str
    model: str
    prompt: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    repairs: int
    seconds: float


@dataclass(frozen=True)
class Rejected:
    """
    Why a source or a segment goes no further.

    Attributes:
        stage (`str`): Where that was found.
        reason (`str`): One sentence.
    """

    stage: str
    reason: str
