"""
What of a scene a sample gives: picture and sound, one picture, or the sound. These are what the stages of the paper
learn from, before and in joint training.

What is not given is not in the scene of the sample either. Held-out combinations relate picture and sound, so that
neither alone can show one: pictures of all splits have all pairs of colour and form, and sounds all kinds. The scenes
that they are taken from are those of their split.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from .config import WorldConfig
from .questions import PICTURE_FORMS, QUESTION_FORMS, SOUND_FORMS, QuestionForm
from .scenes import Scene, freeze


class Modality(NamedTuple):
    """
    A modality of samples.

    Attributes:
        forms (`tuple[QuestionForm, ...]`): What may be asked.
        take (`Callable`): Of a scene, what is given: a scene again. Given the world's config and a generator too.
    """

    forms: tuple[QuestionForm, ...]
    take: Callable[[Scene, WorldConfig, random.Random], Scene]


def _take_all(scene: Scene, config: WorldConfig, rng: random.Random) -> Scene:
    return scene


def _take_picture(scene: Scene, config: WorldConfig, rng: random.Random) -> Scene:
    """A frame of the clip that shows a shape; no two are on screen at once."""
    shape = rng.choice(scene.shapes)
    frames = (frame / config.fps for frame in range(round(scene.seconds * config.fps)))
    second = rng.choice([second for second in frames if shape.start <= second < shape.end])
    return freeze(scene, second, 1 / config.fps)


def _take_sound(scene: Scene, config: WorldConfig, rng: random.Random) -> Scene:
    return replace(scene, shapes=())


MODALITIES = {
    "video": Modality(QUESTION_FORMS, _take_all),
    "image": Modality(PICTURE_FORMS, _take_picture),
    "audio": Modality(SOUND_FORMS, _take_sound),
}
