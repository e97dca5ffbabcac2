"""
Looking for captions that were written before, among more and more of them: seconds, memory and disk.

    python -m benchmarks.near_duplicates --captions 200000
"""

import argparse
import random
import resource
import sqlite3
import tempfile
import time
from pathlib import Path

from transformers_omnivinci.data_engine.writing.near_duplicates import NearDuplicates
from transformers_omnivinci.data_engine.writing.segment_index import CACHE_KIB

WORDS, LENGTH, QUESTIONS = 20_000, 200, 6
EVERY = 10
"""One caption of so many repeats an earlier one, with some words changed."""


def captions(count: int, seed: int):
    """Captions of random words, and for each whether it repeats one before it."""
    rng = random.Random(seed)
    words = [f"w{number}" for number in range(WORDS)]
    for number in range(count):
        repeats = number % EVERY == EVERY - 1
        earlier = rng.randrange(number // EVERY + 1) * EVERY + rng.randrange(EVERY - 1)  # one that repeats none
        source = random.Random(f"{seed}/{earlier if repeats else number}")
        text = [source.choice(words) for _ in range(LENGTH)]
        for _ in range(3 if repeats else 0):
            text[rng.randrange(LENGTH)] = rng.choice(words)
        yield repeats, " ".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index.sqlite")
        database = sqlite3.connect(path, isolation_level=None)
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
            database.execute(f"PRAGMA {setting}")
        database.execute("BEGIN")
        duplicates, start = NearDuplicates(database, 0.8), time.process_time()
        wrong = 0
        step = max(1, options.captions // 8)
        print("captions   CPU seconds   peak memory (MB)   disk (MB)   wrong")
        for number, (repeats, text) in enumerate(captions(options.captions, options.seed), start=1):
            questions = [f"{text[place * 8 : place * 8 + 60]} {number}" for place in range(QUESTIONS)]
            found = duplicates.repeats(str(number), text, questions)[0] is not None
            wrong += found != repeats
            if number % step == 0:
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                size = path.stat().st_size / 1e6
                print(f"{number:8,}   {time.process_time() - start:11.1f}   {memory:16.0f}   {size:9.0f}   {wrong:5}")


if __name__ == "__main__":
    main()
