"""
The memory that GRPO needs on each of several GPUs, computed from the config: no weights are made, nothing is measured.

Weights, gradients and moments of AdamW are split over all GPUs (FSDP2), and so are those of the reference. A GPU
samples one prompt's completions at a time. Where it has several prompts in an update, TRL shuffles their completions:
those of a pass may all belong to different prompts, which is what is counted. Run as
`python -m benchmarks.grpo_memory`; it prints the table of docs/reasoning.md. It needs no TRL.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from transformers_omnivinci import OmniVinciConfig

from ._harness import to_markdown
from .memory import FRAGMENTS, GIB, RESERVE, Prompt, count_activations, count_cache, count_weights, plan_prompt

LEARNED = 16
"""Bytes of a weight that learns: itself, its gradient and two moments of AdamW, in float32."""
COMPLETIONS, LENGTH, TEXT = 8, 2048, 1024
"""Of a prompt, in tokens, and tokens of the prompt beside its media (section 4.3)."""
CARD = 80
"""GiB."""


@dataclass(frozen=True)
class GRPONeed:
    """
    Bytes on each GPU.

    Attributes:
        policy (`int`): Its share of weights, gradients and moments.
        reference (`int`): Its share of the reference. With adapters there is none: they are switched off.
        scoring (`int`): The reference as a whole, as TRL gathers it while it reads, and what a layer needs.
        gathered (`int`): What every GPU holds whole for a while: embeddings and head, and two layers.
        media (`int`): Embeddings of the media of one round's prompts, which are kept until the next one.
        rollouts (`int`): The cache of all completions of a prompt, or what is held while the prompt is read.
        update (`int`): What the backward pass needs, with gradient checkpointing, and the mask of completions.
    """

    policy: int
    reference: int
    scoring: int
    gathered: int
    media: int
    rollouts: int
    update: int

    @property
    def total(self) -> int:
        largest = max(self.rollouts, self.scoring, self.update)
        return self.policy + self.reference + self.gathered + self.media + largest

    def fits(self, gib: int) -> bool:
        """Whether a card of so many GiB holds it, as [`Need.fits`]."""
        return self.total * (1 + FRAGMENTS) + RESERVE <= gib * GIB


def count_layer(config: OmniVinciConfig, positions: int, masked: bool, itemsize: int = 2) -> int:
    """
    Bytes of the widest layer over so many positions, and where completions share a prompt, who attends to whom, as a
    mask and as what is added to scores.
    """
    text = config.text_config
    # Residual, norm, query, key, value, output; gate, up and product.
    layer = positions * (6 * text.hidden_size + 3 * text.intermediate_size) * itemsize
    return layer + (positions**2 * (1 + itemsize) if masked else 0)


def count_update(config: OmniVinciConfig, positions: int, masked: bool, itemsize: int = 2) -> int:
    """
    Bytes of a backward pass over so many positions, with gradient checkpointing: the input of each layer, and the
    widest layer once more with its gradients.
    """
    text = config.text_config
    kept = text.num_hidden_layers * positions * text.hidden_size * itemsize
    gradients = count_layer(config, positions, masked=False, itemsize=itemsize)
    return kept + gradients + count_layer(config, positions, masked, itemsize)


def compute_grpo_need(
    config: OmniVinciConfig, prompt: Prompt, gpus: int, in_a_pass: int, adapters: bool = False, batch: int = 64
) -> GRPONeed:
    """
    What a GPU needs.

    Args:
        config ([`OmniVinciConfig`]): The model.
        prompt ([`Prompt`]): One with its media.
        gpus (`int`): Over how many of them weights are split.
        in_a_pass (`int`): Completions of a forward and backward pass, TRL's `per_device_train_batch_size`.
        adapters (`bool`, *optional*, defaults to `False`):
            Whether adapters learn, which are counted as nothing beside what is still, instead of the language model.
        batch (`int`, *optional*, defaults to 64): Prompts of an update on all GPUs.
    """
    prompts = max(1, batch // gpus)
    share = prompts == 1 and in_a_pass > 1
    positions = prompt.positions + in_a_pass * LENGTH if share else in_a_pass * (prompt.positions + LENGTH)
    weights = count_weights(config)
    learned = weights["layers"] + weights["embeddings"]
    whole = sum(weights.values())
    policy = whole if adapters else whole - learned + learned // 2 * LEARNED
    layer = weights["layers"] // config.text_config.num_hidden_layers
    # Embeddings and head; TRL gathers the head once more, in the dtype in which it is held.
    head = weights["embeddings"] // 2 * (1 if adapters else 2)
    width = config.text_config.hidden_size
    cache = COMPLETIONS * count_cache(config, prompt.positions + LENGTH)
    return GRPONeed(
        policy=policy // gpus,
        reference=0 if adapters else whole // gpus,
        scoring=0 if adapters else whole + count_layer(config, positions, share),
        gathered=weights["embeddings"] + 2 * layer + head,
        media=prompts * (prompt.video + prompt.audio) * width * 2,
        # The prompt is read once, before its cache is repeated.
        rollouts=max(cache, count_cache(config, prompt.positions) + max(count_activations(config, prompt).values())),
        update=count_update(config, positions, share),
    )


def table(config: OmniVinciConfig, frames: int, seconds: float) -> Iterator[dict[str, str]]:
    """A row for each number of GPUs and of completions in a pass, with the language model and with adapters."""
    prompt = plan_prompt(config, frames, seconds, TEXT)
    for adapters in (False, True):
        for gpus, in_a_pass in ((8, 1), (8, 8), (64, 8)):
            need = compute_grpo_need(config, prompt, gpus, in_a_pass, adapters)
            yield {
                "GiB on each GPU": f"{gpus} GPUs, {'LoRA' if adapters else 'the language model learns'}",
                "in a pass": str(in_a_pass),
                "policy": _gib(need.policy),
                "reference": _gib(need.reference),
                "scoring": _gib(need.scoring),
                "gathered": _gib(need.gathered),
                "media": _gib(need.media),
                "rollouts": _gib(need.rollouts),
                "update": _gib(need.update),
                "at most": _gib(need.total),
                f"{CARD} GB": "yes" if need.fits(CARD) else "no",
            }


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpo_memory", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", help="checkpoint whose config is read; default: the 9B model")
    parser.add_argument("--clip", default="64:60", metavar="FRAMES:SECONDS", help="default: 64:60")
    arguments = parser.parse_args()
    config = OmniVinciConfig.from_pretrained(arguments.model) if arguments.model else OmniVinciConfig()
    frames, seconds = map(float, arguments.clip.split(":"))
    prompt = plan_prompt(config, int(frames), seconds, TEXT)
    print(
        f"{int(frames)} frames and {seconds:g} s of sound: {prompt.positions:,} positions of a prompt, "
        f"{COMPLETIONS} completions of {LENGTH:,} tokens, 64 prompts an update\n"
    )
    print(to_markdown(list(table(config, int(frames), seconds))))


if __name__ == "__main__":
    main()
