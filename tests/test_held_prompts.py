"""Prompts that stand in batches as single tokens, and what is sampled for them."""

import pytest
import torch
from transformers import AutoModel, AutoProcessor, GenerationConfig

from transformers_omnivinci import NANO
from transformers_omnivinci.processing.batch import select_media
from transformers_omnivinci.reinforcement.held_prompts import HeldPrompt, PromptReader, PromptShelf
from transformers_omnivinci.reinforcement.rollouts import sample_completions

from .conftest import CLIP

QUESTION = {"type": "text", "text": "Which shape is shown first?"}
CONTENTS = {
    "video with sound": [{"type": "video", "path": CLIP}, QUESTION],
    "video and sound": [{"type": "video", "path": CLIP}, {"type": "audio", "path": CLIP}, QUESTION],
    "text": [{"type": "text", "text": "Which shape is red? Say it."}],
    "sound": [{"type": "audio", "path": CLIP}, QUESTION],
}
OPTIONS = {"load_audio_from_video": True, "num_frames": 6}


@pytest.fixture(scope="module")
def nano():
    return AutoModel.from_pretrained(NANO, dtype=torch.float32).eval(), AutoProcessor.from_pretrained(NANO)


@pytest.fixture(scope="module")
def read(nano):
    return [HeldPrompt.of(nano[1], [{"role": "user", "content": one}], **OPTIONS) for one in CONTENTS.values()]


@pytest.fixture
def prompts(read):
    return [HeldPrompt(prompt.input_ids, prompt.media) for prompt in read]


@pytest.fixture
def shelf():
    return PromptShelf()


@pytest.fixture
def make_reader(nano, shelf):
    readers = []

    def make(**options):
        readers.append(PromptReader(nano[0].model, shelf, **options))
        return readers[-1]

    yield make
    for reader in readers:
        reader.remove()


def batch_of(handles, completions, left=0, right=0):
    """Rows as a trainer has them: padding, the number of the prompt, the completion, padding."""
    width = max(map(len, completions))
    ids = [[0] * left + [h, *c] + [0] * (width - len(c) + right) for h, c in zip(handles, completions, strict=True)]
    mask = [[0] * left + [1] * (1 + len(c)) + [0] * (width - len(c) + right) for c in completions]
    return torch.tensor(ids), torch.tensor(mask)


def log_probabilities(logits, completion):
    return logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]


def plain_log_probabilities(model, prompt, completion):
    """Those of the completion's tokens, of the prompt alone and by the ordinary forward pass."""
    ids = torch.cat([prompt.input_ids, torch.tensor(completion)])[None]
    logits = model(ids, **prompt.media).logits[0]
    return log_probabilities(logits[len(prompt.input_ids) - 1 : -1], completion)


COMPLETIONS = [[20, 30, 40], [50], [60, 70], [25, 35, 45, 55], [80, 90]]


@pytest.mark.parametrize(("encodes", "left", "right"), [(False, 3, 0), (False, 0, 2), (True, 0, 0)])
@torch.no_grad()
def test_log_probabilities_are_those_of_the_plain_forward_of_unlike_samples(
    nano, prompts, shelf, make_reader, encodes, left, right
):
    model = nano[0]
    rows = [*prompts, prompts[0]]
    expected = [plain_log_probabilities(model, prompt, one) for prompt, one in zip(rows, COMPLETIONS, strict=True)]
    if not encodes:
        sample_completions(model, prompts, GenerationConfig(max_new_tokens=1, pad_token_id=0, eos_token_id=1))
    make_reader(embeds=lambda: not encodes)
    handles = shelf.hold("train", prompts)
    ids, mask = batch_of([*handles, handles[0]], COMPLETIONS, left, right)
    hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert hidden.shape[:2] == ids.shape
    logits = model.lm_head(hidden)
    for row, (alone, completion) in enumerate(zip(expected, COMPLETIONS, strict=True)):
        found = log_probabilities(logits[row, left : left + len(completion)], completion)
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)


def test_gradients_reach_what_encodes(nano, prompts, shelf, make_reader):
    model = nano[0]
    make_reader()
    ids, mask = batch_of(shelf.hold("train", prompts), COMPLETIONS[:4])
    hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
    weight = next(model.model.vision_tower.parameters())
    (found,) = torch.autograd.grad(hidden[0, 0].sum() + hidden[1, 0].sum(), weight)
    media = [model.model(prompt.input_ids[None], **prompt.media).last_hidden_state[0, -1] for prompt in prompts[:2]]
    (expected,) = torch.autograd.grad(sum(media).sum(), weight)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def greedy(**options):
    return GenerationConfig(max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=[1, 2], **options)


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [None, 2])
def test_completions_are_those_of_generate(nano, prompts, batch_size):
    model = nano[0]
    expected = []
    for prompt in prompts:
        out = model.generate(prompt.input_ids[None], **prompt.media, generation_config=greedy())
        expected.append(out[0, len(prompt.input_ids) :].tolist())
    twice = [prompt for prompt in prompts for _ in range(2)]
    found = sample_completions(model, twice, greedy(), batch_size)
    assert found[::2] == found[1::2]
    for one, full in zip(found[::2], expected, strict=True):
        assert one == full[: len(one)] and (one[-1] in (1, 2) or len(one) == 6)


def test_media_are_encoded_once_for_all_completions_and_policies(nano, prompts, shelf, make_reader, monkeypatch):
    model, calls = nano[0], []
    encode = model.model.encode_media
    monkeypatch.setattr(model.model, "encode_media", lambda **media: calls.append(media) or encode(**media))
    sample_completions(model, [prompts[0]] * 4 + [prompts[3]] * 4, greedy())
    assert len(calls) == 1
    assert len(calls[0]["pixel_values_videos"]) == len(prompts[0].media["pixel_values_videos"])
    make_reader(embeds=lambda: True)
    handles = shelf.hold("train", [prompts[0], prompts[3]])
    ids, mask = batch_of([handles[0]] * 4 + [handles[1]] * 4, [[20, 30]] * 8)
    for _ in range(3):
        model.model(input_ids=ids, attention_mask=mask)
    assert len(calls) == 1


@torch.no_grad()
def test_a_prompt_stands_once_in_a_batch(nano, prompts, shelf, make_reader, monkeypatch):
    model, shapes = nano[0], []
    read = model.model.language_model.forward
    monkeypatch.setattr(
        model.model.language_model,
        "forward",
        lambda **inputs: shapes.append(tuple(inputs["inputs_embeds"].shape[:2])) or read(**inputs),
    )
    reader = make_reader()
    handles = shelf.hold("train", [prompts[0], prompts[2]])
    completions = [[20, 30], [40], [50], [60, 70]]
    ids, mask = batch_of([handles[0], handles[1], handles[0], handles[0]], completions)
    together = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert shapes == [(2, len(prompts[0].input_ids) + 5)]
    monkeypatch.setattr(reader, "_group", lambda prompts: [[row] for row in range(len(prompts))])
    apart = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert shapes[1] == (4, len(prompts[0].input_ids) + 2)
    torch.testing.assert_close(together[mask.bool()], apart[mask.bool()], atol=2e-5, rtol=1e-4)


def test_other_batches_are_read_as_ever(nano, prompts, make_reader):
    model = nano[0]
    inputs = {"input_ids": prompts[0].input_ids[None], **select_media(prompts[0].media)}
    with torch.no_grad():
        before = model(**inputs).logits
        make_reader()
        assert torch.equal(model(**inputs).logits, before)


def test_prompts_are_held_until_others_take_their_place(prompts, shelf):
    first, second = shelf.hold("train", prompts[:2])
    (other,) = shelf.hold("eval", prompts[2:3])
    assert (shelf[first], shelf[second], shelf[other]) == tuple(prompts[:3])
    (third,) = shelf.hold("train", prompts[3:])
    assert (shelf[third], shelf[other]) == (prompts[3], prompts[2])
    with pytest.raises(KeyError, match="an earlier rollout"):
        shelf[first]
