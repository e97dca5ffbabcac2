"""How well the model transcribes, beside Whisper tiny.en, and what it answers to text, beside SmolLM2 itself."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jiwer
import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from transformers_omnivinci.evaluation.asking import answer
from transformers_omnivinci.media import load_audio

from .loading import load
from .rooms import RATE
from .texts import QUESTIONS

MOST_TOKENS = 64
"""Of a transcript: the longest sentence has about 30."""


def transcribe(model, processor, rows: Sequence[dict], batch_size: int = 8) -> list[str]:
    """What the model writes of each row's sound, by greedy decoding."""
    return [text for batch in _batches(rows, batch_size) for text in answer(model, processor, batch, MOST_TOKENS)]


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
    normalize = EnglishTextNormalizer({})
    said = [normalize(row["messages"][-1]["content"]) for row in rows]
    return jiwer.wer(said, [normalize(text) for text in texts])


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


def answer_questions(checkpoint: Path, batch_size: int = 5) -> list[str]:
    """What a checkpoint answers to [`QUESTIONS`], by greedy decoding."""
    model, processor = load(checkpoint)
    chats = [[{"role": "user", "content": [{"type": "text", "text": question}]}] for question in QUESTIONS]
    starts = range(0, len(chats), batch_size)
    return [text for start in starts for text in answer(model, processor, chats[start : start + batch_size], 40)]


def _batches(rows: Sequence[dict], size: int) -> Iterator[list[list[dict]]]:
    """The questions of rows, without the answers."""
    for start in range(0, len(rows), size):
        yield [row["messages"][:1] for row in rows[start : start + size]]


def _sound_of(row: dict) -> str:
    return row["messages"][0]["content"][0]["path"]


def _timed(run: Callable[[], list[str]]) -> tuple[list[str], float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start
