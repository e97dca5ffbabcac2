"""What the package does alike on every version of transformers, whatever that calls it."""

import types

import pytest
import torch

from transformers_omnivinci.compat import CACHE, require

from .media_samples import audio_item, image_item, user

pytestmark = pytest.mark.compat

NAMES = ("past_key_values", "cache")


@pytest.fixture(scope="module")
def inputs(load_checkpoint):
    chat = user(image_item(), audio_item(), "What is it?")
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}
    return load_checkpoint()[1].apply_chat_template(chat, **options)


@pytest.mark.parametrize("asked", NAMES)
@pytest.mark.parametrize("given", NAMES)
def test_the_cache_goes_by_both_names(load_checkpoint, inputs, given, asked):
    model = load_checkpoint()[0]
    with torch.no_grad():
        first = model(**inputs)
        cache = getattr(first, asked)
        assert cache is first[asked] and cache.get_seq_length() == inputs["input_ids"].shape[1]
        token = first.logits[:, -1:].argmax(-1)
        mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 1), value=1)
        second = model(input_ids=token, attention_mask=mask, **{given: cache})
        whole = model(**{**inputs, "input_ids": torch.cat([inputs["input_ids"], token], 1), "attention_mask": mask})
    torch.testing.assert_close(second.logits[:, -1], whole.logits[:, -1], atol=1e-4, rtol=1e-4)


def test_two_caches_are_refused(load_checkpoint, inputs):
    model = load_checkpoint()[0]
    with torch.no_grad():
        first, other = model(**inputs)[CACHE], model(**inputs)[CACHE]
    for call in (model, model.model):
        with pytest.raises(ValueError, match="both `cache` and `past_key_values`"):
            call(input_ids=torch.tensor([[1]]), past_key_values=first, cache=other)


@pytest.mark.parametrize("name", NAMES)
def test_generate_takes_a_cache_by_both_names(load_checkpoint, inputs, name):
    model = load_checkpoint()[0]
    options = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True}
    first = model.generate(**inputs, **options)
    length = first.sequences.shape[1]
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, length - inputs["attention_mask"].shape[1]), value=1)
    more = {**inputs, "input_ids": first.sequences, "attention_mask": mask}
    wanted = model.generate(**more, **options).sequences
    assert torch.equal(model.generate(**more, **options, **{name: first[CACHE]}).sequences, wanted)


def test_what_is_gone_from_transformers_is_told_at_import():
    module = types.ModuleType("transformers.somewhere")
    module.hook = None
    require(module, "hook")
    with pytest.raises(ImportError, match=r"has no other in transformers\.somewhere.*5\.8 to 5\.24 are tested"):
        require(module, "hook", "other")
