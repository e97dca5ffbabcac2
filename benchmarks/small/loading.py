"""A checkpoint that is asked, on a GPU where there is one."""

from pathlib import Path

import torch

from transformers_omnivinci import OmniVinciForConditionalGeneration, OmniVinciProcessor


def load(checkpoint: Path) -> tuple[OmniVinciForConditionalGeneration, OmniVinciProcessor]:
    """
    The model and the processor of a checkpoint.

    Args:
        checkpoint: Its folder.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = OmniVinciForConditionalGeneration.from_pretrained(checkpoint).eval()
    return model.to(device), OmniVinciProcessor.from_pretrained(checkpoint)
