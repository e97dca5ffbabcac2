"""How well the model transcribes, beside Whisper tiny.en, and what it answers to text, beside SmolLM2 itself."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

from transformers_omnivinci.evaluation import english_normalizer, word_errors
from transformers_omnivinci.evaluation.asking import Asker, answer
from transformers_omnivinci.media import load_audio

from .._harness import take_turns
from .loading import load
from .rooms import RATE
from .texts import QUESTIONS

MOST_TOKENS = 64
"""Of a transcript: the longest sentence has about 30."""
COUNTS = (0, 1, 4, 16, 64)
"""Words are told apart by how often they were trained on: never, one to three times, and so on."""


def batched(items: Sequence, size: int | None = None) -> Iterator[Sequence]:
    """What is asked together: by default 128 on a GPU, and 8 on a CPU."""
    size = size or (128 if torch.cuda.is_available() else 8)
    return (items[start : start + size] for start in range(0, len(items), size))


def transcribe(model, processor, rows: Sequence[dict]) -> list[str]:
    """What the model writes of each row's sound, by greedy decoding."""
    questions = [row["messages"][:1] for row in rows]
    return [text for batch in batched(questions) for text in answer(model, processor, batch, MOST_TOKENS)]


def transcribe_by_whisper(folder: Path, rows: Sequence[dict]) -> list[str]:
    """What a Whisper for English alone writes, by greedy decoding and without timestamps."""
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    extractor, tokenizer = WhisperFeatureExtractor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = torch.tensor([tokenizer.convert_tokens_to_ids(["<|startoftranscript|>", "<|notimestamps|>"])])
    texts = []
    for row in rows:
        samples = load_audio(_sound_of(row), sampling_rate=RATE)
        features = extractor(samples, sampling_rate=RATE, return_tensors="pt")["input_features"]
        ids = prompt
        with torch.no_grad():
            encoded = model.model.encoder(features)
            while ids.shape[1] < MOST_TOKENS and ids[0, -1] != model.config.eos_token_id:
                logits = model(encoder_outputs=encoded, decoder_input_ids=ids).logits
                ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
        texts.append(tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True).strip())
    return texts


def word_error_rate(rows: Sequence[dict], texts: Sequence[str]) -> float:
    """
    Errors for each word that is said, after Whisper's normalizer for English.

    Args:
        rows: With what is said as the last message.
        texts: What was written of each.
    """
    normalize = english_normalizer()
    said = [row["messages"][-1]["content"] for row in rows]
    errors, words = zip(
        *(word_errors(text, one, normalize) for one, text in zip(said, texts, strict=True)), strict=True
    )
    return sum(errors) / sum(words)


def misses_by_count(rows: Sequence[dict], texts: Sequence[str], trained: Sequence[str]) -> list[dict]:
    """
    Which words of transcripts are missed, by how often the training had them.

    Args:
        rows: With what is said as the last message.
        texts: What was written of each.
        trained: What was said in the training.

    Returns:
        `list[dict]`: For each span of [`COUNTS`] the `words` that are said, and the `missed`: without those that are
        written and not said.
    """
    normalize = english_normalizer()
    known = Counter(word for text in trained for word in normalize(text).split())
    said, missed = Counter(), Counter()
    for row, text in zip(rows, texts, strict=True):
        words = normalize(row["messages"][-1]["content"]).split()
        missing = set(range(len(words)))
        for start, _, size in SequenceMatcher(None, words, normalize(text).split(), False).get_matching_blocks():
            missing -= set(range(start, start + size))
        for place, word in enumerate(words):
            span = max(least for least in COUNTS if known[word] >= least)
            said[span] += 1
            missed[span] += place in missing
    names = [f"{least} to {most - 1}" if most - 1 > least else f"{least}" for least, most in pairwise(COUNTS)]
    return [
        {"times": name, "words": said[least], "missed": missed[least]}
        for least, name in zip(COUNTS, [*names, f"{COUNTS[-1]} or more"], strict=True)
    ]


def evaluate(checkpoint: Path, sets: dict[str, list[dict]], whisper: Path | None = None) -> dict:
    """
    Word error rates of a checkpoint, what it wrote, and how long it took.

    Args:
        checkpoint: Of the model.
        sets: Rows by the name of the set, with whole paths.
        whisper: The Whisper to compare with.

    Returns:
        `dict`: By set `wer`, `seconds` for each second of speech, `whisper_wer`, and `said` beside `written`.
    """
    model, processor = load(checkpoint)
    results = {}
    for name, rows in sets.items():
        texts, took = _timed(lambda rows=rows: transcribe(model, processor, rows))
        sound = sum(len(load_audio(_sound_of(row), sampling_rate=RATE)) for row in rows) / RATE
        results[name] = {"wer": word_error_rate(rows, texts), "seconds": took / sound}
        if whisper is not None:
            heard = transcribe_by_whisper(whisper, rows)
            results[name]["whisper_wer"] = word_error_rate(rows, heard)
        results[name]["transcripts"] = [
            {"said": row["messages"][-1]["content"], "written": text} for row, text in zip(rows, texts, strict=True)
        ]
    return results


def measure_latencies(checkpoints: dict[str, Path], row: dict, tokens: int = 16, repeats: int = 9) -> dict[str, float]:
    """
    Seconds from a file to the last of some tokens about it. What the weights have learned does not matter.

    Args:
        checkpoints: By name.
        row: Whose sound is heard.
        tokens: How many are decoded, whatever they say.
        repeats: Of each, in turns; the median counts.
    """
    models = {name: load(checkpoint) for name, checkpoint in checkpoints.items()}

    def run(name: str) -> None:
        asker = Asker(*models[name])  # a new one, which has not encoded the sound yet
        asker.generate(
            asker.prepare([row["messages"][:1]]), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False
        )

    timings = take_turns({name: partial(run, name) for name in models}, repeats)
    return {name: timings.median(name) for name in models}


def answer_questions(checkpoint: Path) -> list[str]:
    """What a checkpoint answers to [`QUESTIONS`], by greedy decoding."""
    model, processor = load(checkpoint)
    chats = [[{"role": "user", "content": [{"type": "text", "text": question}]}] for question in QUESTIONS]
    return [text for batch in batched(chats) for text in answer(model, processor, batch, 40)]


def _sound_of(row: dict) -> str:
    return row["messages"][0]["content"][0]["path"]


def _timed(run: Callable[[], list[str]]) -> tuple[list[str], float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start
