"""Sessions whose prefix is kept in fewer bits by packages for that."""

import pytest
import torch
from transformers import AutoModel, QuantizedCache

from transformers_omnivinci import NANO, Session

from .conftest import CLIP

BACKENDS = [
    {"backend": "hqq", "nbits": 8, "axis_key": 1, "axis_value": 1},
    {"backend": "hqq", "nbits": 4, "axis_key": 1, "axis_value": 1},
    {"backend": "quanto", "nbits": 4},
    {"backend": "quanto", "nbits": 4, "q_group_size": 32, "residual_length": 16},
]
GREEDY = {"max_new_tokens": 12, "do_sample": False}
QUESTIONS = ("Which sound is heard first?", "How many shapes are shown?")


@pytest.fixture(scope="module")
def model():
    return AutoModel.from_pretrained(NANO, dtype=torch.float32)


def logits_behind(session, text: str) -> torch.Tensor:
    """Those of a text behind the prefix of a session, of shape (tokens, vocabulary)."""
    ids = session.processor.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return session.model(ids, past_key_values=session._prefix.branch().cache, mm_encoder_outputs={}).logits[0]


@pytest.mark.parametrize("config", BACKENDS, ids=lambda config: "-".join(map(str, config.values())))
def test_questions_are_answered_from_a_quantized_prefix(model, processor, config, tmp_path):
    session = Session(model, processor, cache_implementation="quantized", cache_config=config)
    plain = Session(model, processor)
    for one in (session, plain):
        one.watch(CLIP)
    assert isinstance(session._prefix.cache, QuantizedCache)
    logits = [logits_behind(one, QUESTIONS[0]) for one in (session, plain)]
    assert torch.nn.functional.cosine_similarity(*logits, dim=-1).min() > 0.9 and not torch.equal(*logits)
    first = [session.ask(question, **GREEDY) for question in QUESTIONS]
    assert all(answer.cached_tokens > 80 for answer in first)
    # A branch leaves what it shares as it was, also where it is long enough to be quantized anew.
    fork = session.fork()
    fork.ask(QUESTIONS[1], keep=True, max_new_tokens=150, min_new_tokens=150, do_sample=False)
    assert fork.ask(QUESTIONS[0], **GREEDY).token_ids
    assert [session.ask(question, **GREEDY) for question in QUESTIONS] == first
    assert torch.equal(logits_behind(session, QUESTIONS[0]), logits[0])
    session.save(tmp_path / "session")
    loaded = Session.load(tmp_path / "session", model, processor)
    assert [loaded.ask(question, **GREEDY) for question in QUESTIONS] == first
