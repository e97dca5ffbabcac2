"""Media that are lost on the way, and further turns with the cache of those before."""

import copy

import pytest
import torch
from transformers import DynamicCache, StaticCache

from .media_samples import audio_item, image_item, sound, user, video_item

OPTIONS = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
GREEDY = {"max_new_tokens": 4, "do_sample": False}
LOST = {
    "image": ("pixel_values", "image_grid_hw"),
    "video": ("pixel_values_videos", "video_timestamps"),
    "audio": ("input_features", "audio_timestamps", "audio_num_windows"),
}


def prepare(processor, conversation, **options):
    return processor.apply_chat_template(conversation, add_generation_prompt=True, **OPTIONS, **options)


def without(inputs, *names):
    return {name: value for name, value in inputs.items() if name not in names}


@pytest.fixture
def inputs(processor):
    return prepare(processor, user(audio_item(), image_item(), video_item(num_frames=3), "Compare."))


# ------------------------------------------------------------------------------------------------------- lost media


@pytest.mark.parametrize("modality", LOST)
@pytest.mark.parametrize("method", ["forward", "base", "generate", "get_inputs_embeds"])
def test_placeholders_without_media_are_refused(model, inputs, modality, method):
    call = {
        "forward": model,
        "base": model.model,
        "generate": lambda **kwargs: model.generate(**kwargs, **GREEDY),
        "get_inputs_embeds": model.get_inputs_embeds,
    }[method]
    count = int((inputs["input_ids"] == getattr(model.config, f"{modality}_token_id")).sum())
    with pytest.raises(ValueError, match=f"{count} {modality} placeholders, but there are 0 {modality} embeddings"):
        call(**without(inputs, *LOST[modality]))


def test_placeholders_without_media_are_refused_as_embeddings_and_when_encoded(model, inputs):
    text = {"attention_mask": inputs["attention_mask"]}
    embedded = {**text, "inputs_embeds": model.get_input_embeddings()(inputs["input_ids"])}
    media = {name: inputs[name] for name in sum(LOST.values(), ())}
    with torch.no_grad():
        encoded = model.encode_media(**media)
        for begin in ({**text, "input_ids": inputs["input_ids"]}, embedded):
            assert model(**begin, mm_encoder_outputs=encoded).logits.isfinite().all()
            for partly in (without(encoded, "video"), {**encoded, "audio": None}, {}):
                for call in (model, lambda **kwargs: model.generate(**kwargs, **GREEDY)):
                    with pytest.raises(ValueError, match=r"placeholders, but there are 0 (video|audio|image)"):
                        call(**begin, mm_encoder_outputs=partly)
        whole = model.get_inputs_embeds(input_ids=inputs["input_ids"], mm_encoder_outputs=encoded)
        assert model(inputs_embeds=whole).logits.isfinite().all()  # nothing is left to be replaced


def test_placeholders_that_are_generated_are_no_media(model, inputs):
    """A token is what the model likes; only a prompt can lack media."""
    biased = copy.deepcopy(model)
    biased.lm_head.bias = torch.nn.Parameter(torch.zeros(model.config.text_config.vocab_size))
    biased.lm_head.bias.data[model.config.image_token_id] = 1e4
    for options in ({}, {"num_beams": 2}, {"prompt_lookup_num_tokens": 2}):
        answer = biased.generate(**inputs, **GREEDY, **options)[0, inputs["input_ids"].shape[1] :]
        assert answer.tolist() == 4 * [model.config.image_token_id], options


def test_assistants_are_refused_a_cache_that_holds_something(model, processor):
    """Assisted generation of transformers reads the whole prompt behind what the cache holds."""
    first = prepare(processor, user("Hello."))
    cache = model.generate(**first, **GREEDY, return_dict_in_generate=True).past_key_values
    length = cache.get_seq_length()
    second = prepare(processor, [*user("Hello."), {"role": "assistant", "content": "Hi."}, *user("Who is it?")])
    config = copy.deepcopy(model.generation_config)
    config.prompt_lookup_num_tokens = 2
    for options in ({"prompt_lookup_num_tokens": 2}, {"assistant_model": model}, {"generation_config": config}):
        with pytest.raises(ValueError, match=f"does not go with a cache of {length} positions"):
            model.generate(**second, **GREEDY, **options, past_key_values=cache)
        assert cache.get_seq_length() == length
    expected = model.generate(**second, **GREEDY)
    for given in ({}, {"past_key_values": DynamicCache(config=model.config)}):
        assert torch.equal(model.generate(**second, **GREEDY, prompt_lookup_num_tokens=2, **given), expected)
    assert torch.equal(model.generate(**second, **GREEDY, past_key_values=cache), expected)


# ----------------------------------------------------------------------------------------------------- further turns

FIRST = {
    "image": [image_item(), "What?"],
    "image, tiled otherwise beside another": [image_item(height=60, width=240), "What?"],
    "video": [video_item(num_frames=3), "What?"],
    "sound": [audio_item(), "What?"],
    "text": ["Hello."],
}
THEN = {
    "text": ["And then?"],
    "another image": [image_item(seed=3), "And?"],
    "everything": [audio_item(pitch=880), image_item(seed=5), video_item(num_frames=2, seed=2), "And?"],
}


def follow(processor, model, first, sequences, then):
    start = first["input_ids"].shape[1]
    return [{"role": "assistant", "content": processor.decode(sequences[0, start:], skip_special_tokens=True)}, *then]


@pytest.fixture
def encoded(monkeypatch, model):
    """What was encoded: the names of inputs and how many there were of each."""
    seen, encode = [], type(model.model).encode_media

    def encode_media(self, **media):
        seen.append({name: len(value) for name, value in media.items() if torch.is_tensor(value)})
        return encode(self, **media)

    monkeypatch.setattr(type(model.model), "encode_media", encode_media)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("then", THEN)
@pytest.mark.parametrize("first", FIRST)
def test_a_further_turn_gives_with_the_cache_what_it_gives_without(model, processor, encoded, first, then):
    conversation = user(*FIRST[first])
    prompt = prepare(processor, conversation)
    result = model.generate(**prompt, **GREEDY, return_dict_in_generate=True)
    cache = result.past_key_values
    conversation += follow(processor, model, prompt, result.sequences, user(*THEN[then]))
    second = prepare(processor, conversation)
    expected = model.generate(**second, **GREEDY)
    encoded.clear()
    again = model.generate(**second, past_key_values=cache, **GREEDY)
    assert again.tolist() == expected.tolist()
    # Media that the cache holds are not encoded again.
    videos = sum(media.get("video_timestamps", 0) for media in encoded)
    sounds = sum(media.get("audio_timestamps", 0) for media in encoded)
    assert (videos, sounds) == ((1, 1) if then == "everything" else (0, 0))
    # And a third turn.
    conversation += follow(processor, model, second, again, user("Sure?"))
    third = prepare(processor, conversation)
    expected = model.generate(**third, **GREEDY)
    assert model.generate(**third, past_key_values=cache, **GREEDY).tolist() == expected.tolist()


def swap_image(processor):
    return prepare(processor, user(image_item(seed=9), "What?", "x"))


def shorter_sound(processor):
    return prepare(processor, user({"type": "audio", "audio": sound(1.0)}, "What?", "x"))


@pytest.mark.parametrize(
    ("first", "change"), [([image_item(), "What?"], swap_image), ([audio_item(), "What?"], shorter_sound)]
)
@pytest.mark.parametrize("cache_class", [DynamicCache, StaticCache])
def test_a_cache_of_other_media_is_not_trusted(model, processor, first, change, cache_class):
    """Other pixels under the same tokens, and fewer placeholders."""
    options = {"max_cache_len": 2048} if cache_class is StaticCache else {}
    cache = cache_class(config=model.config, **options)
    model.generate(**prepare(processor, user(*first)), past_key_values=cache, **GREEDY)
    other = change(processor)
    expected = model.generate(**other, **GREEDY)
    assert model.generate(**other, past_key_values=cache, **GREEDY).tolist() == expected.tolist()


def test_a_prompt_that_was_read_before_serves_many_questions(model, processor, encoded):
    """A prefix is read by a forward pass, copied, and gone on from: in a batch and by beams, too."""
    media = [video_item(num_frames=3), audio_item(), image_item()]
    prefix = processor.apply_chat_template(user(*media), **OPTIONS)
    length = prefix["input_ids"].shape[1] - 2  # without what closes the turn
    cut = {
        **prefix,
        "input_ids": prefix["input_ids"][:, :length],
        "attention_mask": prefix["attention_mask"][:, :length],
    }
    with torch.no_grad():
        cache = model(**cut, use_cache=True).past_key_values
    for question in ("What is seen?", "What is heard? And when?"):
        inputs = prepare(processor, user(*media, question))
        expected = model.generate(**inputs, **GREEDY, num_beams=2)
        plain = model.generate(**inputs, **GREEDY)
        encoded.clear()
        assert model.generate(**inputs, past_key_values=copy.deepcopy(cache), **GREEDY).tolist() == plain.tolist()
        wide = copy.deepcopy(cache)
        wide.batch_repeat_interleave(2)
        beams = model.generate(**inputs, past_key_values=wide, num_beams=2, **GREEDY)
        assert beams.tolist() == expected.tolist()
        assert not any(encoded)


def test_new_media_alone_may_be_given_with_a_cache(model, processor):
    prompt = prepare(processor, user(video_item(num_frames=3), "What?"))
    cache = DynamicCache(config=model.config)
    sequences = model.generate(**prompt, past_key_values=cache, **GREEDY)
    asked = processor.apply_chat_template(user(image_item(), "And?"), add_generation_prompt=True, **OPTIONS)
    ids = torch.cat((sequences, asked["input_ids"]), 1)
    mask = torch.ones_like(ids)
    image = {name: asked[name] for name in LOST["image"]}
    video = {name: prompt[name] for name in LOST["video"]}
    expected = model.generate(input_ids=ids, attention_mask=mask, **image, **video, **GREEDY)
    held = cache.get_seq_length()
    for new_ids in (ids, ids[:, held:]):
        continued = model.generate(
            input_ids=new_ids, attention_mask=mask, **image, past_key_values=copy.deepcopy(cache), **GREEDY
        )
        assert continued[:, -4:].tolist() == expected[:, -4:].tolist()
    with torch.no_grad():  # as forward passes do
        logits = model(input_ids=ids[:, held:], attention_mask=mask, **image, past_key_values=cache).logits
        torch.testing.assert_close(
            logits, model(input_ids=ids, attention_mask=mask, **image, **video).logits[:, held:], atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("image",), r"48 image placeholders, 48 of them behind .* 0 image embeddings|video placeholders"),
        ((), "image placeholders, 48 of them behind the .* positions of the cache, but there are 0 image embeddings"),
    ],
    ids=["both kinds lost", "new media lost"],
)
def test_media_that_a_cache_does_not_hold_are_missed(model, processor, given, message):
    conversation = user(video_item(num_frames=3), "What?")
    prompt = prepare(processor, conversation)
    cache = DynamicCache(config=model.config)
    sequences = model.generate(**prompt, past_key_values=cache, **GREEDY)
    second = prepare(processor, conversation + follow(processor, model, prompt, sequences, user(image_item(), "And?")))
    lost = without(second, *LOST["image"]) if not given else without(second, *LOST["image"], *LOST["video"])
    with pytest.raises(ValueError, match=message):
        model.generate(**lost, past_key_values=cache, **GREEDY)


def test_a_prefix_that_has_changed_cannot_do_without_its_media(model, processor):
    conversation = user(image_item(), "What?")
    prompt = prepare(processor, conversation)
    cache = DynamicCache(config=model.config)
    sequences = model.generate(**prompt, past_key_values=cache, **GREEDY)
    more = [image_item(seed=3)] * 30  # many enough to stand behind the first turn's length
    second = prepare(processor, conversation + follow(processor, model, prompt, sequences, user(*more, "And?")))
    ids, held = second["input_ids"], cache.get_seq_length()
    behind = int((ids[:, held:] == model.config.image_token_id).sum()) // 4
    media = {name: second[name][-behind:] for name in LOST["image"]}
    with pytest.raises(ValueError, match="go on otherwise than the cache|behind the .* positions of the cache"):
        model.generate(
            input_ids=ids, attention_mask=second["attention_mask"], **media, past_key_values=cache, **GREEDY
        )


def test_a_batch_goes_on_together(model, processor):
    chats = [user(image_item(), "What is it?"), user(image_item(seed=1), "What is it?")]
    prompts = prepare(processor, chats)
    cache = DynamicCache(config=model.config)
    sequences = model.generate(**prompts, past_key_values=cache, **GREEDY)
    start = prompts["input_ids"].shape[1]
    answers = processor.batch_decode(sequences[:, start:], skip_special_tokens=True)
    for chat, answer in zip(chats, answers, strict=True):
        chat += [{"role": "assistant", "content": answer}, *user(audio_item(), "And?")]
    second = prepare(processor, chats)
    expected = model.generate(**second, **GREEDY)
    assert model.generate(**second, past_key_values=cache, **GREEDY).tolist() == expected.tolist()
