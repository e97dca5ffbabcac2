"""
A small file in CoVoST 2's format, to try the recipe: `python -m recipes.speech_translation.toy OUT`.

Sentences such as "I see three red stars." are spoken by a voice of this machine and translated by a table. A quarter
of the combinations is the test split.
"""

import argparse
import itertools
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from transformers_omnivinci.inference.speech import AUTO, Voice, make_voice, write_spoken

NUMBERS = {"two": "zwei", "three": "drei", "five": "fünf", "nine": "neun"}
COLOURS = {"red": "rote", "white": "weiße", "green": "grüne", "yellow": "gelbe"}
THINGS = {"houses": "Häuser", "stars": "Sterne", "cats": "Katzen", "books": "Bücher"}
COVOST, VALIDATED, CLIPS = "covost_v2.en_de.tsv", "validated.tsv", "clips"


def sentences(seed: int = 0) -> list[tuple[str, str, str]]:
    """All sentences with their translation and split, in a random order."""
    found = []
    for number, colour, thing in itertools.product(NUMBERS, COLOURS, THINGS):
        translation = f"Ich sehe {NUMBERS[number]} {COLOURS[colour]} {THINGS[thing]}."
        place = list(NUMBERS).index(number) + list(COLOURS).index(colour) + list(THINGS).index(thing)
        found.append((f"I see {number} {colour} {thing}.", translation, "test" if place % 4 == 0 else "train"))
    random.Random(seed).shuffle(found)
    return found


def write_toy(out: Path, voice: str | Voice = AUTO, limit: int | None = None) -> None:
    """
    Writes `covost_v2.en_de.tsv`, `validated.tsv` and `clips/`.

    Args:
        out (`Path`): The folder, which is made.
        voice (`str` or [`Voice`]): What speaks; a name is one of [`make_voice`].
        limit (`int`, *optional*): How many sentences. Default: all 64.

    Raises:
        ValueError: the voice is unknown.
        OSError: the voice is not installed, or fails.
    """
    speaker = make_voice(voice) if isinstance(voice, str) else voice
    (out / CLIPS).mkdir(parents=True, exist_ok=True)
    translated, validated = ["path\ttranslation\tsplit"], ["client_id\tpath\tsentence"]
    for number, (sentence, translation, split) in enumerate(sentences()[:limit]):
        name = f"common_voice_en_{number}.mp3"
        write_spoken(speaker.synthesize([sentence]), out / CLIPS / name, sentence)
        translated.append(f"{name}\t{translation}\t{split}")
        validated.append(f"toy\t{name}\t{sentence}")
    for name, lines in ((COVOST, translated), (VALIDATED, validated)):
        (out / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.speech_translation.toy", description="A small file in CoVoST 2's format."
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--voice", default=AUTO, metavar="NAME")
    given = parser.parse_args(arguments)
    try:
        write_toy(given.out, given.voice)
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    print(f"{given.out} has {len(sentences())} sentences.")


if __name__ == "__main__":
    main()
