"""Sessions whose prefix is kept in fewer bits, or off the accelerator."""

import pytest
import torch
from transformers import QuantizedCache

from transformers_omnivinci import Session

from .conftest import CLIP
from .media_samples import user
from .test_sessions import GREEDY, OPTIONS, nano
from .test_sessions_live import scene

__all__ = ["nano"]

FP8 = {"cache_implementation": "quantized", "cache_config": {"backend": "fp8"}}
QUESTION = "When does the blue star appear?"


def held(session) -> int:
    """Bytes of the prefix."""
    layers, found = session._prefix.cache.layers, 0
    for layer in layers:
        tensors = [layer.keys, layer.values]
        if isinstance(session._prefix.cache, QuantizedCache):
            tensors += [layer._quantized_keys[0], layer._quantized_values[0]]
        found += sum(tensor.nbytes for tensor in tensors)
    return found


def logits_behind(session, text: str) -> torch.Tensor:
    """Those of a text behind the prefix of a session, of shape (tokens, vocabulary)."""
    ids = session.processor.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return session.model(ids, past_key_values=session._prefix.branch().cache, mm_encoder_outputs={}).logits[0]


def test_a_quantized_prefix_takes_less_and_answers_as_the_whole_one(nano, tmp_path):
    model, processor = nano
    session, plain = Session(model, processor, **FP8), Session(model, processor)
    for one in (session, plain):
        one.watch(CLIP)
    assert held(session) * 3.9 < held(plain)
    for options in ({}, {"num_beams": 2}):
        answer = session.ask(QUESTION, **GREEDY, **options)
        assert answer == plain.ask(QUESTION, **GREEDY, **options)
        assert bool(answer.cached_tokens) == (not options)
    logits = [logits_behind(one, "Which shape is shown first?") for one in (session, plain)]
    assert torch.nn.functional.cosine_similarity(*logits, dim=-1).min() > 0.99 and not torch.equal(*logits)
    fork = session.fork()
    for one in (session, plain):
        one.ask(QUESTION, keep=True, **GREEDY)
    again = session.ask("Which shape is shown first?", **GREEDY)
    assert again == plain.ask("Which shape is shown first?", **GREEDY) and again.cached_tokens >= answer.prompt_tokens
    # A branch leaves what it shares as it was.
    assert fork.ask(QUESTION, **GREEDY) == answer and isinstance(fork._prefix.cache, QuantizedCache)
    session.save(tmp_path / "session")
    loaded = Session.load(tmp_path / "session", model, processor)
    assert loaded.cache_kind == session.cache_kind and loaded.ask("Which shape is shown first?", **GREEDY) == again


def test_a_live_clip_is_read_again_where_it_changes(nano):
    session, plain = Session(*nano, **FP8), Session(*nano)
    for start in range(0, 12, 2):
        frames, timestamps, samples = scene(2.0, seed=start, loud_at=1.0 if start == 8 else None)
        for one in (session, plain):
            one.feed(frames, [second + start for second in timestamps], samples, start=start)
        answer = session.ask("What?", **GREEDY)
        cached = plain.ask("What?", **GREEDY).cached_tokens
        assert answer.cached_tokens in (0, cached)  # where the whole one is cut back, this one is read again
    assert cached > 0
    logits = [logits_behind(one, "What?") for one in (session, plain)]
    assert torch.nn.functional.cosine_similarity(*logits, dim=-1).min() > 0.99
    session.forget(before=6.0)
    assert session.ask("What?", **GREEDY).cached_tokens > 0


def test_a_quantized_cache_that_would_have_to_be_cut_is_refused(nano):
    model, processor = nano
    first = processor.apply_chat_template(user("Who is it?"), **OPTIONS)
    cache = QuantizedCache("fp8", model.config)
    model.generate(**first, **GREEDY, past_key_values=cache)
    length = cache.get_seq_length()
    other = processor.apply_chat_template(user("When is it?"), **OPTIONS)
    with pytest.raises(ValueError, match="a QuantizedCache cannot be cut back to there"):
        model.generate(**other, **GREEDY, past_key_values=cache)
    assert cache.get_seq_length() == length


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "'static'", {"cache_implementation": "static"}),
        (ValueError, "on the CPU", {"cache_implementation": "offloaded"}),
        (ValueError, "options of a quantized cache", {"cache_config": {"nbits": 4}}),
        (TypeError, "is a dictionary", {"cache_implementation": "quantized", "cache_config": "hqq"}),
        (ValueError, "`no`", {"cache_implementation": "quantized", "cache_config": {"backend": "no"}}),
        (ValueError, "'bits'", {**FP8, "cache_config": {"backend": "fp8", "bits": 8}}),
        (ImportError, "quanto", {"cache_implementation": "quantized"}),
    ],
)
def test_caches_that_cannot_be_used_are_refused(nano, error, message, options):
    with pytest.raises(error, match=message):
        Session(*nano, **options)
