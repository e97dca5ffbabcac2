"""The README of an output: what is in it, what was left out, how it was made, and under which license."""

import json

from ..answerability import MARKS
from ..chat_rows import LETTERS
from ..config import EngineConfig
from ..prompt_files import find_prompt
from .written_counts import NEEDS, WrittenCounts

PIE = "distribution.png"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
TASKS = ["video-text-to-text", "visual-question-answering"]
TAGS = ["video", "audio", "omni-modal", "synthetic", "omnivinci"]


def front_matter(config: EngineConfig, num_chats: int, more: dict) -> str:
    """
    What the Hub reads at the top of a card.

    Args:
        config ([`EngineConfig`]): Names the data and their license; without one, the entry is left out.
        num_chats (`int`): How many there are.
        more (`dict`): `configs` and `dataset_info`.
    """
    import yaml

    size = next((name for most, name in SIZES if num_chats < most), "n>1M")
    facts: dict = {"pretty_name": config.write.name}
    if config.write.license is not None:
        facts["license"] = config.write.license
    facts |= {"task_categories": TASKS, "size_categories": [size], "tags": TAGS, **more}
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---\n\n"


def data_card(counts: WrittenCounts, config: EngineConfig, settings: dict, use: str, has_pie: bool) -> str:
    """
    The card itself.

    Args:
        counts ([`WrittenCounts`]): What was written.
        config ([`EngineConfig`]), settings (`dict`): Of the run; see [`settings_of`].
        use (`str`): How the files beside the card are read.
        has_pie (`bool`): Whether the figure `PIE` is beside it.
    """
    sections = [
        f"# {config.write.name}",
        "Captions of videos and questions about them that rest on picture and sound, written by models with "
        "`omnivinci curate`: the data engine of the OmniVinci paper (arXiv 2510.15870, section 3.2), in which a "
        "language model corrects the captions of each sense by those of the other. No human has checked them.",
        use,
        "## What is in it",
        _contents(counts),
        f"![Shares of the chats]({PIE})" if has_pie else "",
        _needs(counts),
        "## Letters",
        _letters(counts),
        "## What was left out",
        _left_out(counts, config),
        "## How it was made",
        _stages(counts),
        "Each chat has its `provenance`: the source and its seconds, and the back end, model and prompt of each "
        "stage, the prompt by its name and the first digits of its SHA-256. Its `seed` is that of the run, from which "
        "the seed of a request follows with the name of the prompt, the name of the video's file and the second at "
        "which the segment or clip begins.",
        "What decides about the results:",
        "```json\n" + json.dumps(settings, indent=1, ensure_ascii=False) + "\n```",
        *_prompts(config),
        "## License",
        _license(counts, config),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _contents(counts: WrittenCounts) -> str:
    total, spoken = counts.chats.total(), counts.spoken.total()
    told = (
        f"{total:,} chats about {_plural(counts.segments, 'segment')} of {_plural(counts.sources, 'video')}, "
        f"{counts.seconds / 3600:,.2f} hours; in {spoken:,} of them the question is spoken."
    )
    rows = [
        [category, f"{number:,}", f"{number / total:.1%}", f"{counts.spoken[category]:,}"]
        for category, number in counts.chats.most_common()
    ]
    return told + "\n\n" + _table(["category", "chats", "share", "spoken"], rows)


def _needs(counts: WrittenCounts) -> str:
    if not counts.needs:
        return ""
    total = counts.needs.total()
    rows = [[name, f"{counts.needs[name]:,}", f"{counts.needs[name] / total:.1%}"] for name in NEEDS]
    told = (
        "A model was asked the questions with one sense alone. What an answer needs, as far as that tells, since it "
        "sometimes guesses right and sometimes misses what is there:"
    )
    return told + "\n\n" + _table(["needed", "questions", "share"], rows)


def _letters(counts: WrittenCounts) -> str:
    if not counts.choices:
        return "There are no multiple choices."
    rows = []
    for number, choices in sorted(counts.choices.items()):
        letters = LETTERS[:number]
        most = max(letters, key=lambda letter: choices.letters[letter])
        rows.append(
            [
                str(number),
                f"{choices.total:,}",
                ", ".join(f"{letter} {choices.letters[letter]:,}" for letter in letters),
                f"{1 / number:.1%}",
                f"{choices.letters[most] / choices.total:.1%} ({most})",
                f"{choices.longest / choices.total:.1%}",
            ]
        )
    told = "What one would score who knows nothing but always takes the same letter, or the longest option:"
    names = ["options", "questions", "right letters", "by chance", "best letter", "longest option"]
    return told + "\n\n" + _table(names, rows)


def _left_out(counts: WrittenCounts, config: EngineConfig) -> str:
    parts = []
    if counts.marks:
        rows = [
            [mark, told, f"{counts.marks[mark]:,}", f"{counts.dropped[mark]:,}"]
            for mark, told in MARKS.items()
            if counts.marks[mark]
        ]
        parts.append(
            "Questions that were marked, and those of them that were left out; with several marks, by the first:\n\n"
            + _table(["mark", "meaning", "marked", "left out"], rows)
        )
    if config.write.repeated is None:
        parts.append("Segments were not compared with each other.")
    else:
        parts.append(
            f"{_plural(counts.repeated_captions, 'caption')} and {_plural(counts.repeated_questions, 'question')} "
            f"were left out as they share {config.write.repeated:.0%} of their word triples, or more, with those of "
            "an earlier segment whose caption is as much alike."
        )
    if counts.rejected_statements:
        senses = ", ".join(f"{number:,} {sense}" for sense, number in sorted(counts.rejected_statements.items()))
        parts.append(f"Statements of single senses that the correction rejected: {senses}.")
    if counts.rejects:
        rows = [[stage, reason, f"{number:,}"] for (stage, reason), number in counts.rejects.most_common()]
        parts.append("Not used at all, or not everywhere:\n\n" + _table(["stage", "reason", "number"], rows))
    return "\n\n".join(parts)


def _stages(counts: WrittenCounts) -> str:
    rows = [
        [
            name,
            ", ".join(sorted(stage.models)),
            ", ".join(sorted(stage.prompts)),
            f"{stage.calls:,}",
            f"{stage.repairs:,}",
            f"{stage.prompt_tokens:,}",
            f"{stage.completion_tokens:,}",
            f"{stage.cost:,.2f}",
            f"{stage.seconds / 3600:,.2f}",
        ]
        for name, stage in counts.stages.items()
    ]
    names = ["stage", "back end: model", "prompt", "calls", "repairs", "tokens read", "written", "cost", "hours"]
    return _table(names, rows)


def _prompts(config: EngineConfig) -> list[str]:
    found = {}
    for _, options in config.named_stages():
        names = [getattr(options, role, "") for role in ("prompt", "support_prompt")]
        if getattr(options, "support", None) is None:
            names = names[:1]
        for name in filter(None, names):
            prompt = find_prompt(name, config.prompts)
            found[prompt.label] = prompt.text
    return [
        f"<details><summary>{label}</summary>\n\n````\n{text.strip()}\n````\n\n</details>"
        for label, text in sorted(found.items())
    ]


def _license(counts: WrittenCounts, config: EngineConfig) -> str:
    writers = [stage for name, stage in counts.stages.items() if name != "filter"]  # which only marks
    models = sorted({name.partition(": ")[2] for stage in writers for name in stage.models})
    stated = (
        f"Whoever wrote these data states the license `{config.write.license}` for their texts."
        if config.write.license is not None
        else "**No license is stated.** Whoever publishes these data has to choose one (`write: {license: ...}`)."
    )
    return (
        f"{stated} Videos, also those that were cut, remain under the licenses of their sources, which the engine "
        f"does not know. Texts and speech were made by {', '.join(models) or 'no model'}, whose terms of use may "
        "restrict what outputs are used for."
    )


def _table(names: list[str], rows: list[list[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
