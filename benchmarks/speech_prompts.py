"""
Questions as speech, by their form, position and noise: how often the model answers them rightly (appendix D.4).

Clips of the synthetic world are asked about, each behind two others in the same message. A question is a text, a sound
as it is (native), a transcript of that sound, or that transcript spoken anew.

Nano was never trained on speech, so that its figures for sounds show what a model makes of questions that it cannot
understand; those for texts, and for transcripts, are the ones to compare. `--model` measures another one.

Run in the environment `speech`: `python engines/run.py speech -- python -m benchmarks.speech_prompts`.
"""

import argparse
import itertools
import math
import tempfile
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor

from transformers_omnivinci import NANO
from transformers_omnivinci.evaluation import exact_match, wilson_interval
from transformers_omnivinci.inference.speech import SPEECH_RATE, make_voice, speak_all
from transformers_omnivinci.inference.speech.prompts import (
    POSITIONS,
    REGIMES,
    add_noise,
    place_question,
    spoken_question,
)
from transformers_omnivinci.inference.speech.recognisers import HEARING_RATE, make_recogniser
from transformers_omnivinci.media import resample
from transformers_omnivinci.synthetic import SyntheticDataset, write_clip

from ._harness import Report, to_markdown

NOTE = "Right answers in percent, with 95% intervals; each clip stands in a message with two others in front of it."
TEXT = "text"


def answer(model, processor, content: list[dict]) -> str:
    """What the model says to a message."""
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return processor.decode(ids, skip_special_tokens=True).strip()


def make_samples(folder: Path, number: int) -> list[tuple[str, str, str]]:
    """Paths of clips with a question and its answer."""
    dataset, made = SyntheticDataset("test", number, 0, questions_per_clip=1), []
    for place in range(number):
        sample = dataset[place]
        if sample.questions:
            path = folder / f"{place}.mp4"
            write_clip(path, dataset.render(sample))
            asked = sample.questions[0]
            made.append((str(path), asked.text, asked.answer))
    return made


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speech_prompts", description=__doc__)
    parser.add_argument("--model", default=NANO)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--voice", default="auto", help="who asks, as of `omnivinci ask --voice`")
    parser.add_argument("--renderer", default="auto", help="who speaks transcripts anew")
    parser.add_argument("--recogniser", help="as of `omnivinci transcribe --external`; default: Whisper tiny.en")
    parser.add_argument("--noise", type=float, nargs="+", default=[math.inf, 10.0, 0.0], help="dB below the speech")
    options = parser.parse_args(arguments)
    if options.recogniser is None:
        from .voices import whisper_folder

        options.recogniser = f"whisper:{whisper_folder()}"
    asker, renderer = make_voice(options.voice), make_voice(options.renderer)
    recogniser = make_recogniser(options.recogniser)
    model, processor = AutoModel.from_pretrained(options.model).eval(), AutoProcessor.from_pretrained(options.model)
    right: dict[tuple, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        samples = make_samples(Path(folder), options.clips)
        for place, (path, question, reference) in enumerate(samples):
            around = [samples[(place + step) % len(samples)][0] for step in (1, 2)]
            media = [{"type": "video", "path": one} for one in (*around, path)]
            asked = resample(speak_all(asker, question), SPEECH_RATE, HEARING_RATE)
            items = {(TEXT, math.inf): {"type": "text", "text": question}}
            for regime, noise in itertools.product(REGIMES, options.noise):
                try:
                    heard = spoken_question(add_noise(asked, noise, place), regime, recogniser, renderer)
                except ValueError:  # nothing was heard
                    heard = {"type": "text", "text": ""}
                items[regime, noise] = heard
            for ((regime, noise), item), position in itertools.product(items.items(), POSITIONS):
                said = answer(model, processor, place_question(media, item, position))
                right.setdefault((regime, position, noise), []).append(exact_match(said, [reference]))
    rows = []
    for (regime, position, noise), scores in right.items():
        low, high = wilson_interval(sum(scores), len(scores))
        rows.append(
            {
                "form": regime,
                "position": position,
                "noise": "none" if math.isinf(noise) else f"{noise:g} dB below",
                "right": f"{100 * sum(scores) / len(scores):.0f} ({100 * low:.0f} to {100 * high:.0f})",
                "questions": len(scores),
            }
        )
    report = Report("speech_prompts", vars(options), NOTE)
    report.add("Questions as speech", rows)
    print(to_markdown(rows))
    report.save()


if __name__ == "__main__":
    main()
