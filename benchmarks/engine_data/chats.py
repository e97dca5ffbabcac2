"""What there is to learn: clips, questions about them, and what the data engine tells of them."""

import gzip
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from itertools import chain
from pathlib import Path

from transformers_omnivinci.data_engine.assembly import settings_of
from transformers_omnivinci.data_engine.backends.protocol import Reply, Request
from transformers_omnivinci.data_engine.backends.rule_reasoner import RuleReasoner, RuleReasonerOptions
from transformers_omnivinci.data_engine.config import EngineConfig
from transformers_omnivinci.data_engine.engine import HereRunner, curate
from transformers_omnivinci.data_engine.truth_audit import audit_folder
from transformers_omnivinci.data_engine.typed import read
from transformers_omnivinci.data_engine.world_claims import shift, tell
from transformers_omnivinci.new_file import new_file
from transformers_omnivinci.synthetic import (
    CLOSED_TYPES,
    QUESTION_FORMS,
    SyntheticDataset,
    WorldConfig,
    events_of,
    write_reel,
)
from transformers_omnivinci.synthetic.claims import claims_of

WORLD = WorldConfig(clip_seconds=(4.0, 8.0), max_slots=4)
"""Of all clips: short enough for a small budget, and long enough for an order."""

OMITTED = ("count_of_one_sound",)  # no clip of four slots has a sound four times
ASKED = tuple(form.name for form in QUESTION_FORMS if form.type in CLOSED_TYPES and form.name not in OMITTED)
OF_PICTURES = tuple(form.name for form in QUESTION_FORMS if form.name in ASKED and form.type == "visual") + (
    "shape_start",
    "count_of_shapes",
)
PICTURE_CAPTIONS = ("What is shown, and when?", "Describe the picture of the clip with times.")
QUESTIONS_PER_CLIP = 6
WINDOW_SECONDS = 3.0

PRACTISED = {
    "deaf": ("first_colour", "last_form", "colour_of_form", "form_of_colour", "form_of_colour_each"),
    "blind": ("first_sound", "last_sound", "sound_after_sound", "sound_before_sound", "sound_after_sound_each"),
}
ONSETS = {"deaf": ("shape_start", "shape_start_each"), "blind": ("sound_start", "sound_start_each")}
"""What the first model has learned of each sense alone, see [`chats_about`]."""

ENGINE = {
    "split": {"segment_seconds": 12, "clip_seconds": 12, "silence": None},
    "backends": {
        "captioner": {
            "type": "test-captioner", "drop": 0.1, "mistime": 0.1, "invent": 0.15, "imagine": 0.25, "seconds_off": 2
        },
        "reasoner": {"type": "test-reasoner"},
        "answerer": {"type": "test-answerer"},
    },
    "stages": {
        "visual_caption": {"backend": "captioner", "batch_size": 64},
        "audio_caption": {"backend": "captioner", "batch_size": 64},
        "cross_modal_correction": {"backend": "reasoner", "batch_size": 64},
        "questions": {"backend": "reasoner", "multiple_choice": 2, "open": 3, "batch_size": 64},
        "filter": {"backend": "answerer", "support": "reasoner", "batch_size": 64},
    },
}  # fmt: skip
"""The config of the engine: captions of one clip each, with mistakes at stated rates."""

ANSWER = "Answer:"
"""Behind which the answer stands, after a trace."""
CORRECTION = "cross_modal_correction"
Chats = dict[str, list[tuple[str, str]]]
"""Questions and answers about a clip, by group."""


class Merger(RuleReasoner):
    """A test-reasoner that believes everything: it merges the captions of both senses and corrects nothing."""

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        replies = iter(super().complete([one for one in requests if one.task != CORRECTION]))
        return [self._merge(one) if one.task == CORRECTION else next(replies) for one in requests]

    @staticmethod
    def _merge(request: Request) -> Reply:
        captions = [(clip, clip[sense]) for clip in request.fields["clips"] for sense in ("visual", "audio")]
        told = [shift(event, clip["start"]) for clip, caption in captions for event in claims_of(caption)]
        return Reply(json.dumps({"omni_caption": tell(told) or "Nothing is heard.", "rejected_statements": []}))


@cache
def dataset(name: str, size: int) -> SyntheticDataset:
    """The clips that are called `"train"`, `"base"` (of single senses) or `"test"`, with their questions."""
    if name == "test":
        return SyntheticDataset("test", size, config=WORLD, types=CLOSED_TYPES, forms=ASKED)
    forms = ASKED if name == "train" else tuple(chain(*PRACTISED.values(), *ONSETS.values()))
    seed = ("train", "base").index(name)
    return SyntheticDataset("train", size, seed, WORLD, forms=forms, questions_per_clip=len(forms))


def chats_about(
    name: str, size: int, index: int, engine: dict[str, dict[str, list]], most: int | None
) -> dict[str, Chats]:
    """What is said about a clip, by senses."""
    sample = dataset(name, size)[index]
    if name == "test":
        pairs = [(question.text, question.answer) for question in sample.questions]
        return {"both": {"asked": pairs}, "deaf": {"asked": pairs}}
    if name == "base":
        return {
            senses: {
                "alone": [
                    (question.text, question.answer)
                    for question in sample.questions
                    if question.form in (*PRACTISED[senses], *ONSETS[senses])
                ]
            }
            for senses in ("deaf", "blind")
        }
    caption = tell(event for event in events_of(sample.scene) if event.sense == "visual")
    captions = [(PICTURE_CAPTIONS[index % len(PICTURE_CAPTIONS)], caption)] if caption else []
    pairs = [(question.text, question.answer) for question in sample.questions]
    seen = [(one.text, one.answer) for one in sample.questions if one.form in OF_PICTURES]
    found = {"asked": captions + pairs[:QUESTIONS_PER_CLIP], "more": pairs[QUESTIONS_PER_CLIP:][:QUESTIONS_PER_CLIP]}
    found |= {group: [tuple(pair) for pair in chats.get(sample.id, [])[:most]] for group, chats in engine.items()}
    told = found.get("engine", [])
    found["untraced"] = [(question, answer.rpartition(ANSWER)[2].strip()) for question, answer in told]
    return {"both": found, "deaf": {"picture": captions + seen[:QUESTIONS_PER_CLIP]}}


def write_film(name: str, size: int, folder: Path, index: int) -> None:
    """Renders a clip, unless it is there."""
    sample = dataset(name, size)[index]
    path = folder / f"{sample.id}.mp4"
    if not path.exists():
        write_reel(path, [sample.scene], WORLD)


def run_engine(films: Sequence[Path], folder: Path) -> None:
    """Lets the engine write about films, with and without correction; keeps questions and answers, and the audit."""
    config = read(EngineConfig, ENGINE, "the config")
    runners = {"engine": HereRunner(), "uncorrected": HereRunner({"reasoner": Merger(RuleReasonerOptions())})}
    found: dict[str, dict] = {}
    audits = {}
    for group, runner in runners.items():
        output, chats = folder / group, defaultdict(list)
        report = curate(config, [str(film) for film in films], output, runner)
        for line in (output / "chats.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            (medium, question), (answer,) = (message["content"] for message in row["messages"])
            chats[Path(medium["path"]).stem].append((question["text"], answer["text"]))
        found[group] = chats
        audits[group] = asdict(audit_folder(output, settings_of(config), config.write.drop)) | {"chats": report.chats}
    (folder / "audit.json").write_text(json.dumps(audits, indent=1) + "\n", encoding="utf-8")
    with new_file(folder / "engine.json.gz") as part:
        part.write_bytes(gzip.compress(json.dumps(found).encode(), mtime=0))
