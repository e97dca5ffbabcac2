"""
The encoder of a trained model, some of the way back to what it was: training makes it know its own voices better, and
others worse (weight-space ensembles, [Wortsman et al., 2022](https://arxiv.org/abs/2109.01903), equation 1).
"""

import json
from collections.abc import Sequence
from pathlib import Path

from transformers_omnivinci.new_folder import new_folder

from .evaluation import transcribe, word_error_rate
from .loading import load

SHARES = (1.0, 0.85, 0.7)
"""Of what was learned; the first wins where errors are as many."""
ERRORS = "encoder-averages.json"


def average_encoder(checkpoint: Path, before: Path, rows: Sequence[dict], output: Path) -> Path:
    """
    Takes the average of two encoders that transcribes some speech best, unless that is done.

    Args:
        checkpoint: The trained model, whose other weights stay.
        before: The checkpoint that its training began with.
        rows: The speech, of voices that were never trained on. It is no fair test of the model from then on.
        output: The folder of the result, with the word error rate of each of [`SHARES`] in [`ERRORS`].
    """
    if (output / "config.json").is_file():
        return output
    model, processor = load(checkpoint)
    encoder = model.model.audio_tower
    old = load(before)[0].model.audio_tower.state_dict()
    learned = {name: weight.clone() for name, weight in encoder.state_dict().items()}

    def set_share(share: float) -> None:
        encoder.load_state_dict({name: old[name].lerp(weight, share) for name, weight in learned.items()})

    errors = {}
    for share in SHARES:
        set_share(share)
        errors[share] = word_error_rate(rows, transcribe(model, processor, rows))
    set_share(min(errors, key=errors.get))
    with new_folder(output) as new:
        model.save_pretrained(new)
        processor.save_pretrained(new)
        (new / ERRORS).write_text(json.dumps(errors, indent=1) + "\n")
    return output
