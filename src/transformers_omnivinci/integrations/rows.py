"""
Chats as ms-swift and LLaMA-Factory read them: texts with tags such as `<video>`, and columns of media.

    python -m transformers_omnivinci.integrations.rows train.jsonl rows.jsonl
"""

import argparse
import json
import sys
from pathlib import Path

from ..processing.conversation import item_options
from ..training.data import BadSample, Sample
from ..training.data_sources import DataSource
from .frameworks import COLUMNS, TAGS, tags_in


def framework_row(sample: Sample) -> dict:
    """
    A chat of [`read_sample`] as a row of the frameworks.

    Args:
        sample ([`Sample`]): Its media are named by paths or URLs.

    Returns:
        `dict`: its `id`, `messages` of a role and a text, and `images`, `videos` and `audios`, lists of `str`.

    Raises:
        BadSample: a text holds a tag, or a medium has options or is no path.
    """
    messages, columns = [], {column: [] for column in COLUMNS.values()}
    for message in sample.messages:
        content = message["content"]
        items = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts = []
        for item in items:
            kind = item["type"]
            if kind != "text":
                if not isinstance(item[kind], str) or item_options(item):
                    raise BadSample(
                        sample.id,
                        f"a medium of it is {item!r:.120}: the columns of the frameworks hold paths and URLs, without "
                        "options of their own.",
                    )
                columns[COLUMNS[kind]].append(item[kind])
                texts.append(TAGS[kind])
            elif tags_in([item["text"]]):
                raise BadSample(sample.id, f"a text of it, {item['text']!r:.80}, holds a tag that stands for media.")
            else:
                texts.append(item["text"])
        messages.append({"role": message["role"], "content": "".join(texts)})
    return {"id": sample.id, "messages": messages, **columns}


def write_rows(source: str | Path, target: str | Path) -> int:
    """
    Writes a file of chats in the form of the frameworks. It is written as a whole or not at all.

    Args:
        source (`str` or `Path`): JSON lines as [`DataSource`] takes them. Relative paths become absolute ones.
        target (`str` or `Path`): What is written.

    Returns:
        `int`: the number of rows.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a row is no chat, or cannot be written in that form; named by file and line.
    """
    rows = DataSource(source).open()
    lines = [json.dumps(framework_row(rows.sample(index)), ensure_ascii=False) for index in range(len(rows))]
    Path(target).write_text("\n".join([*lines, ""]), encoding="utf-8")
    return len(lines)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command of the module."""
    parser = argparse.ArgumentParser(prog="python -m transformers_omnivinci.integrations.rows")
    parser.add_argument("source", help="JSONL file of chats, as omnivinci train takes it")
    parser.add_argument("target", help="JSONL file to write")
    names = parser.parse_args(arguments)
    try:
        print(f"{names.target}: {write_rows(names.source, names.target)} rows.")
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
