"""
Writes the model that the training begins with: `python -m recipes.navigation.base OUT`.

It is the shipped nano, but for its processor: sound is padded to whole windows of the audio encoder (3 s) instead of
30 s, so that a spoken instruction takes 15 positions of a prompt instead of 150.
"""

import argparse
from pathlib import Path

from transformers import AutoModel, AutoProcessor

from transformers_omnivinci import NANO

WINDOW = 3.0
"""Seconds of a window of nano's audio encoder."""


def write_base(out: Path, model: str = NANO, window: float = WINDOW) -> None:
    """Writes a checkpoint with `window` seconds as the unit of sound."""
    AutoProcessor.from_pretrained(model, audio_pad_to_multiple_of=window).save_pretrained(out)
    AutoModel.from_pretrained(model, dtype="auto").save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder that is written")
    parser.add_argument("--model", default=NANO)
    parser.add_argument("--window", type=float, default=WINDOW, help="seconds; 30 for the released model")
    options = parser.parse_args()
    write_base(options.out, options.model, options.window)


if __name__ == "__main__":
    main()
