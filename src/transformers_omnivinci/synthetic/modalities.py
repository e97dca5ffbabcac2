"""
The modalities of samples: video with sound, a single picture, or sound alone. They match the training stages of the
paper, which learn from single modalities before they learn from both.

What a sample does not show is not in its scene either. Held-out combinations relate shapes and sounds, so a single
modality cannot show one: pictures of every split have all pairs of colour and form, and sounds all kinds. They are
taken from scenes of their own split.
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
        forms (`tuple[QuestionForm, ...]`): What can be asked.
        take (`Callable`):
            From a scene, the world's config and a `random.Random` to a scene with only what the modality shows.
    """

    forms: tuple[QuestionForm, ...]
    take: Callable[[Scene, WorldConfig, random.Random], Scene]


def _take_all(scene: Scene, config: WorldConfig, rng: random.Random) -> Scene:
    return scene


def _take_picture(scene: Scene, config: WorldConfig, rng: random.Random) -> Scene:
    """A frame that shows a shape; there is never more than one on screen."""
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
