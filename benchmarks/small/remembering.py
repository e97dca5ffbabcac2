"""Chats without sound that the language model has before it learns to hear, so that it does not forget how."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from transformers_omnivinci.evaluation.asking import answer
from transformers_omnivinci.tasks import write_rows

from .evaluation import batched
from .loading import load
from .texts import FORMS, QUESTIONS

ASKED, ANSWERED = 40, 60
"""The most tokens of a question and of an answer."""
TOGETHER = 32
"""Chats at a time."""


def remember(path: Path, checkpoint: Path, texts: Sequence[str], count: int, seed: int) -> Path:
    """
    Writes chats, unless they are there: half ask about words in one of the forms of [`FORMS`], half are questions of
    the model itself.

    Args:
        path: The file of rows.
        checkpoint: Answers.
        texts: Sentences whose words are asked about.
        count: How many questions there are.
        seed: Of what is drawn.
    """
    if path.is_file():
        return path
    model, processor = load(checkpoint)
    about_words = count // 2
    asked = [*ask_about_words(texts, about_words, seed), *ask_itself(model, processor, count - about_words, seed)]
    rows = []
    for questions in batched(asked, TOGETHER):
        chats = [[{"role": "user", "content": [{"type": "text", "text": question}]}] for question in questions]
        for chat, said in zip(chats, answer(model, processor, chats, ANSWERED), strict=True):
            if said := keep_sentences(said):
                rows.append({"messages": [*chat, {"role": "assistant", "content": said}]})
    write_rows(path, rows)
    return path


def ask_about_words(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """Questions in each of the forms in turn, about words of texts."""
    words = sorted({word.strip(",.?!'").lower() for text in texts for word in text.split()})
    words = [word for word in words if len(word) > 4 and word.isalpha()]
    rng = np.random.default_rng([seed, 3])
    return [FORMS[index % len(FORMS)].format(words[rng.integers(len(words))]) for index in range(count)]


def ask_itself(model, processor, count: int, seed: int) -> list[str]:
    """
    Different questions like those that the model was trained on: it is given where a user's words begin, and goes on
    (Magpie, arXiv 2406.08464). None is one of [`QUESTIONS`].

    Args:
        model, processor: Of a checkpoint.
        count: How many.
        seed: Of the sampling.
    """
    found = {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for question in _ask(model, processor):
            if question not in QUESTIONS:
                found.setdefault(question.lower(), question)
            if len(found) == count:
                return list(found.values())


def _ask(model, processor) -> Iterator[str]:
    """Questions without end, of one line and complete."""
    mark = "QUESTION"
    chat = [{"role": "user", "content": [{"type": "text", "text": mark}]}]
    before = processor.apply_chat_template(chat, tokenize=False).partition(mark)[0]
    tokenizer = processor.tokenizer
    prompt = tokenizer([before] * TOGETHER, add_special_tokens=False, return_tensors="pt").to(model.device)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    while True:
        ids = model.generate(**prompt, do_sample=True, temperature=1.0, top_p=0.95, top_k=0, max_new_tokens=ASKED)
        for one in ids[:, prompt["input_ids"].shape[1] :].tolist():
            question = tokenizer.decode(one[: one.index(end)]).strip() if end in one else ""
            if question and "\n" not in question:
                yield question


def keep_sentences(text: str) -> str:
    """A text without the sentence, or the number of a list, that is cut off at its end; empty if that is all of it."""
    return re.match(r"(.*[^\W\d][\"')*]*[.!?][\"')*]*(?=\s|$))?", text.strip(), re.DOTALL)[0]
