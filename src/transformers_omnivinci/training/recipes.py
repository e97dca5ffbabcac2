"""The stages in which the paper trains OmniVinci (section 3, appendix C.2 and C.3)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from ..inference.speech.decisions import DECISIONS
from ..modeling.parts import PARTS

VISION = ("vision_encoder", "vision_projector", "language_model")
AUDIO = ("audio_encoder", "audio_projector", "language_model")
IMAGES = {"image": 1.0}


@dataclass(frozen=True)
class Recipe:
    """
    A stage of training.

    Attributes:
        name (`str`): How the command calls it.
        source (`str`): Where the paper describes it.
        trained (`tuple[str, ...]`): Which of [`PARTS`] learn; the others are frozen.
        data (`dict[str, float]`):
            The share of each kind of sample, see [`Measure.kind`]. Kinds that are not named, and all of them where it
            is empty, keep the share that they have in the data.
        learning_rate (`float`):
            The peak. The paper gives 2e-5 for the joint training alone; defaults of the other stages are
            conventional ones: 1e-3 where only a projector learns, 2e-5 elsewhere.
        warmup (`float`):
            The share of steps with a linear warm-up, after which the rate falls as a cosine. 3% in the paper for the
            joint training; the other stages have no numbers there and do the same.
        from_scratch (`bool`): Whether weights are drawn anew.
        tokens (`tuple[str, ...]`): What is added to the vocabulary, as far as it lacks it.
    """

    name: str
    source: str
    trained: tuple[str, ...]
    data: dict[str, float] = field(default_factory=dict)
    learning_rate: float = 2e-5
    warmup: float = 0.03
    from_scratch: bool = False
    tokens: tuple[str, ...] = ()

    def without(self, parts: Sequence[str]) -> "Recipe":
        """
        The recipe that leaves further parts as they are.

        Args:
            parts (`Sequence[str]`): Names of [`PARTS`].

        Raises:
            ValueError: a part has another name, or nothing is left to train.
        """
        unknown = [part for part in parts if part not in PARTS]
        if unknown:
            raise ValueError(f"There is no part {unknown[0]!r} to freeze: {', '.join(PARTS)} are accepted.")
        left = tuple(part for part in self.trained if part not in parts)
        if not left:
            raise ValueError(f"Nothing is left to train: the recipe {self.name} trains {', '.join(self.trained)}.")
        return replace(self, trained=left)

    def freeze(self, model: nn.Module) -> None:
        """Leaves a gradient to the parts of an [`OmniVinciForConditionalGeneration`] that are trained."""
        model.requires_grad_(False)
        for module in self.trained_modules(model).values():
            module.requires_grad_(True)

    def trained_modules(self, model: nn.Module) -> dict[str, nn.Module]:
        """The modules of the parts that are trained, by name, as far as the model has them."""
        names = [name for part in self.trained for name in PARTS[part]]
        modules = dict(model.named_modules())
        return {name: modules[name] for name in names if name in modules}

    @property
    def training_arguments(self) -> dict:
        """Its numbers as [`~transformers.TrainingArguments`]."""
        return {"learning_rate": self.learning_rate, "lr_scheduler_type": "cosine", "warmup_steps": self.warmup}


_STAGES = (
    Recipe(
        "vision-1", "C.2.1, stage 1: projector alignment, on image-text pairs", ("vision_projector",), IMAGES, 1e-3
    ),
    Recipe("vision-2", "C.2.1, stage 2: vision encoder alignment", ("vision_encoder", "vision_projector"), IMAGES),
    Recipe("vision-3", "C.2.1, stage 3: pre-training; encoder frozen", ("vision_projector", "language_model"), IMAGES),
    Recipe("vision-4", "C.2.1, stage 4: image instruction tuning, all parameters of the vision model", VISION, IMAGES),
    Recipe("vision-5", "C.2.1, stage 5: video instruction tuning, the whole vision model", VISION, {"video": 1.0}),
    Recipe(
        "audio-1",
        "C.2.2, stage 1: audio projector and encoder alignment, with its compression layer",
        ("audio_encoder", "audio_projector"),
        {"audio": 1.0},
    ),
    Recipe("audio-2", "C.2.2, stage 2: audio instruction tuning", AUDIO, {"audio": 1.0}),
    Recipe(
        "omni",
        "3.2 and C.3: joint training, with frozen encoders. Shares of figure 5: image 36%, sound 21% and speech 17% "
        "(both audio here), omni 15%, video 11%",
        ("vision_projector", "audio_projector", "omni_align_net", "language_model"),
        {"image": 0.36, "audio": 0.38, "omni": 0.15, "video": 0.11},
    ),
    Recipe(
        "asr-decision",
        "D.3.2: decision-aware fine-tuning, on data of `omnivinci asr-data`. The paper does not say what is trained: "
        "here what hears and writes, but for the encoder",
        ("audio_projector", "language_model"),
        {"audio": 1.0},
        tokens=DECISIONS,
    ),
    Recipe(
        "scratch",
        "not in the paper: everything at once and from random weights, for small models",
        tuple(PARTS),
        learning_rate=1e-3,
        from_scratch=True,
    ),
    Recipe("full", "not in the paper: everything at once, from the weights of the checkpoint", tuple(PARTS)),
)
RECIPES = {recipe.name: recipe for recipe in _STAGES}


def get_recipe(name: str) -> Recipe:
    """
    The recipe of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in RECIPES:
        raise ValueError(f"There is no recipe {name!r}: {', '.join(RECIPES)} are accepted.")
    return RECIPES[name]
