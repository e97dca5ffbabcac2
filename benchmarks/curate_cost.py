"""
What the data engine would take for the paper's 3.6 million omni-modal conversations: video, tokens, GPUs and money.

    python -m benchmarks.curate_cost                      # by the tokens that are stated here
    python -m benchmarks.curate_cost --measured curated   # by those of a run, from its segments.jsonl

Tokens follow from the config that `docs/data-engine.md` shows and from what models publish about theirs; GPU hours
from the operations of a token, 2 for each active parameter, and a stated share of what a GPU can do; encoders of media
are not counted. No price and no share is measured here: replace these constants by your own.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers_omnivinci.data_engine.segment_ledger import FILE
from transformers_omnivinci.data_engine.stage import PROVENANCE, REJECTED

from ._harness import to_markdown

CONVERSATIONS = 3_600_000
"""The paper, figure 5."""
SEGMENT_SECONDS, CLIPS = 120, 6
FRAMES_A_SECOND, TOKENS_A_FRAME = 2, 128
"""Qwen2.5-VL at 448 x 448: 256 tokens for two frames."""
TOKENS_A_SECOND = 25
"""Of sound, Qwen2.5-Omni."""
PREFILL_SHARE, DECODE_SHARE = 0.4, 0.1
"""Of a GPU's operations, which reading and writing of tokens come to with full batches."""
GPUS = {"A100 80 GB": (312e12, 1.5), "H100": (989e12, 2.5), "H200": (989e12, 3.0), "B200": (2250e12, 5.0)}
"""Dense operations a second in bfloat16, by data sheets, and a price of an hour in dollars, to be replaced."""
SIZES = {
    "small": {"visual_caption": 7e9, "cross_modal_correction": 3e9, "questions": 3e9},
    "large": {"visual_caption": 72e9, "cross_modal_correction": 22e9, "questions": 22e9},
}
BOTH = {"audio_caption": 7e9, "filter": 7e9}
"""
Active parameters: 7B captioners and a mixture of 30B-A3B; a captioner of 72B and a mixture of 235B-A22B; what is 7B in
both.
"""


@dataclass(frozen=True)
class Tokens:
    """What a stage reads and writes for a segment."""

    prompt: float
    completion: float


def stated_tokens(
    multiple_choice: int = 4, open_ended: int = 4, rounds: int = 2, cached: bool = True
) -> dict[str, Tokens]:
    """
    Tokens of a segment of two minutes, by stage.

    Args:
        multiple_choice (`int`), open_ended (`int`), rounds (`int`): As in the config.
        cached (`bool`): Whether the server of the filter keeps what requests begin with (prefix caching): then it
            reads the picture and the sound of a segment once for all questions.
    """
    seconds = SEGMENT_SECONDS / CLIPS
    picture, sound = FRAMES_A_SECOND * TOKENS_A_FRAME * seconds, TOKENS_A_SECOND * seconds
    questions = multiple_choice + open_ended
    asked = multiple_choice * rounds + open_ended  # each deaf, blind, and with the text alone
    caption, trace, seen, heard = 400, 150, 200, 100
    return {
        "visual_caption": Tokens(CLIPS * (picture + 100), CLIPS * seen),
        "audio_caption": Tokens(CLIPS * (sound + 120), CLIPS * heard),
        "cross_modal_correction": Tokens(300 + CLIPS * (seen + heard), caption + 150),
        "questions": Tokens(350 + caption, questions * trace),
        "filter": Tokens(
            (1 if cached else asked) * CLIPS * (picture + sound) + asked * 3 * 150 + questions * (caption + 120),
            asked * 3 * 4 + questions * 30,
        ),
    }


def measured_tokens(folder: Path) -> tuple[dict[str, Tokens], float]:
    """
    Tokens of a segment by stage, and its chats, on average over the segments of a run.

    Raises:
        ValueError: no segment is finished there.
    """
    with (folder / FILE).open(encoding="utf-8") as file:
        rows = [json.loads(line) for number, line in enumerate(file) if number]
    rows = [row for row in rows if not row.get(REJECTED)]
    if not rows:
        raise ValueError(f"{folder} has no finished segment.")
    found: dict[str, Tokens] = {}
    for row in rows:
        for one in row.get(PROVENANCE, []):
            before = found.get(one["stage"], Tokens(0, 0))
            share = (one["prompt_tokens"] / len(rows), one["completion_tokens"] / len(rows))
            found[one["stage"]] = Tokens(before.prompt + share[0], before.completion + share[1])
    chats = json.loads((folder / "run.json").read_text(encoding="utf-8"))["chats"]
    return found, sum(chats.values()) / len(rows)


def gpu_hours(tokens: Mapping[str, Tokens], sizes: Mapping[str, float], operations: float) -> dict[str, float]:
    """Hours of a GPU for a segment, by stage: 2 operations a token and parameter, at the stated shares."""
    sizes = {**sizes, **BOTH}
    return {
        stage: 2 * sizes[stage] * (one.prompt / PREFILL_SHARE + one.completion / DECODE_SHARE) / operations / 3600
        for stage, one in tokens.items()
        if stage in sizes
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curate_cost", description=__doc__)
    parser.add_argument("--measured", type=Path, metavar="DIR", help="a folder that `omnivinci curate` wrote")
    parser.add_argument("--conversations", type=int, default=CONVERSATIONS, help="default: %(default)s")
    parser.add_argument("--kept", type=float, default=7.0, help="conversations of a segment (default: %(default)s)")
    parser.add_argument("--gpus", type=int, default=64, help="of which days are told (default: %(default)s)")
    parser.add_argument("--prices", type=float, nargs=2, default=(0.5, 2.0), help="dollars a million tokens of an API")
    arguments = parser.parse_args()
    tokens, kept = stated_tokens(), arguments.kept
    if arguments.measured is not None:
        tokens, kept = measured_tokens(arguments.measured)
    segments = arguments.conversations / kept
    hours = segments * SEGMENT_SECONDS / 3600
    print(
        f"{arguments.conversations:,} conversations, {kept:.1f} a segment: {segments:,.0f} segments, {hours:,.0f} h.\n"
    )
    told = dict(tokens)
    if arguments.measured is None:
        told["filter, nothing cached"] = stated_tokens(cached=False)["filter"]
    rows = []
    for name, one in told.items():
        stage = name.partition(",")[0]
        rows.append(
            {
                "stage": name,
                "read, a segment": round(one.prompt),
                "written, a segment": round(one.completion),
                "read, all (billions)": one.prompt * segments / 1e9,
                "written, all (billions)": one.completion * segments / 1e9,
                **{
                    f"H100 hours, {size}": round(
                        sum(gpu_hours({stage: one}, sizes, GPUS["H100"][0]).values()) * segments
                    )
                    for size, sizes in SIZES.items()
                },
            }
        )
    print(to_markdown(rows) + "\n")
    rows = []
    for name, (operations, price) in GPUS.items():
        for size, sizes in SIZES.items():
            all_hours = sum(gpu_hours(tokens, sizes, operations).values()) * segments
            rows.append(
                {
                    "GPU": name,
                    "models": size,
                    "GPU hours": round(all_hours),
                    f"days on {arguments.gpus}": all_hours / arguments.gpus / 24,
                    "dollars": f"{all_hours * price:,.0f}",
                    "hours of video a GPU hour": hours / all_hours,
                }
            )
    print(to_markdown(rows) + "\n")
    read, written = (sum(getattr(one, name) for one in tokens.values()) for name in ("prompt", "completion"))
    prices = arguments.prices
    cost = segments * (read * prices[0] + written * prices[1]) / 1e6
    print(f"By an API at {prices[0]:g} and {prices[1]:g} dollars a million tokens: {cost:,.0f} dollars.")


if __name__ == "__main__":
    main()
