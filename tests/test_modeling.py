"""The model as transformers users use it."""

import copy
import threading

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    DynamicCache,
    Qwen2ForCausalLM,
    TextIteratorStreamer,
)

from transformers_omnivinci import OmniVinciConfig, OmniVinciForConditionalGeneration, OmniVinciModel
from transformers_omnivinci.compat import CACHE
from transformers_omnivinci.modeling.outputs import OmniVinciCausalLMOutputWithPast, OmniVinciModelOutputWithPast

from .conftest import CLIP, PARITY
from .media_samples import audio_item, image_item, user, video_item

pytestmark = pytest.mark.compat

MEDIA_KEYS = ("pixel_values", "pixel_values_videos", "input_features")


def prepare(processor, conversations, **kwargs):
    return processor.apply_chat_template(
        conversations, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt", **kwargs
    )


@pytest.fixture(scope="module")
def conversations():
    """Unlike samples: text alone, each kind of medium, several of them in any order."""
    return [
        user("Who was first?"),
        user(image_item(), "What does the sign say?"),
        user("Between ", image_item(seed=1), " and ", image_item(seed=2), " what changed?"),
        user(video_item(num_frames=5), "Describe the video."),
        user(audio_item(), "Transcribe.", audio_item(seconds=1, pitch=880)),
        user(audio_item(), image_item(), video_item(num_frames=3, seed=3), "Compare."),
    ]


@pytest.fixture
def inputs(processor, conversations):
    return prepare(processor, conversations[5])


def answer(model, inputs, **kwargs):
    kwargs = {"max_new_tokens": 6, "do_sample": False} | kwargs
    return model.generate(**inputs, **kwargs)[:, inputs["input_ids"].shape[1] :]


@pytest.mark.parametrize("side", ["left", "right"])
def test_batch_gives_each_sample_what_it_gives_alone(model, processor, conversations, side):
    batch = prepare(processor, conversations, padding_side=side)
    with torch.no_grad():
        together = model.get_inputs_embeds(**batch)
        logits = model(**batch).logits
        for index, conversation in enumerate(conversations):
            alone = prepare(processor, conversation)
            real = batch["attention_mask"][index].bool()
            torch.testing.assert_close(together[index][real], model.get_inputs_embeds(**alone)[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(logits[index][real], model(**alone).logits[0], atol=1e-5, rtol=0)


def test_batch_with_sound_in_videos_gives_each_sample_what_it_gives_alone(model, processor):
    clip = {"type": "video", "path": CLIP}
    chats = [user(clip, "Hm?"), user("What?", clip, clip), user(audio_item(), clip, "Longer question, please.")]
    batch = prepare(processor, chats, load_audio_from_video=True, num_frames=4)
    with torch.no_grad():
        logits = model(**batch).logits
        for index, chat in enumerate(chats):
            alone = prepare(processor, chat, load_audio_from_video=True, num_frames=4)
            real = batch["attention_mask"][index].bool()
            torch.testing.assert_close(logits[index][real], model(**alone).logits[0], atol=1e-5, rtol=0)


def test_generates_in_batches_as_alone(model, processor, conversations):
    batch = answer(model, prepare(processor, conversations), eos_token_id=None)
    for row, conversation in zip(batch, conversations, strict=True):
        assert row.tolist() == answer(model, prepare(processor, conversation), eos_token_id=None)[0].tolist()


def test_sampling_and_several_answers(model, processor, conversations):
    batch = prepare(processor, conversations[1:4])
    greedy = answer(model, batch)
    # With one candidate left to sample from, each of several answers is the greedy one.
    sampled = answer(model, batch, do_sample=True, top_k=1, num_return_sequences=3)
    assert sampled.tolist() == [row.tolist() for row in greedy for _ in range(3)]


def test_beams_of_a_batch_are_those_of_each_sample(model, processor, conversations):
    beams = answer(model, prepare(processor, conversations[3:]), num_beams=3, num_return_sequences=2)
    for index, conversation in enumerate(conversations[3:]):
        alone = answer(model, prepare(processor, conversation), num_beams=3, num_return_sequences=2)
        assert beams[2 * index : 2 * index + 2, : alone.shape[1]].tolist() == alone.tolist()


def test_streaming(model, processor, inputs):
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True)
    thread = threading.Thread(target=model.generate, kwargs={**inputs, "max_new_tokens": 6, "streamer": streamer})
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text == processor.decode(answer(model, inputs)[0])


@pytest.mark.parametrize(
    "options",
    [
        {"cache_implementation": "static", "disable_compile": True},
        {"use_cache": False},
        {"prompt_lookup_num_tokens": 2},
        {"prefill_chunk_size": 64},
    ],
    ids=lambda options: next(iter(options)),
)
def test_ways_of_generating_agree(model, inputs, options):
    assert answer(model, inputs, **options).tolist() == answer(model, inputs).tolist()


def test_assisted_decoding(model, inputs):
    assistant = copy.deepcopy(model)
    assert answer(model, inputs, assistant_model=assistant).tolist() == answer(model, inputs).tolist()


def test_media_are_encoded_once_for_many_questions(model, processor, conversations):
    media = {"num_frames": 3}
    first = prepare(processor, user(video_item(), "What is it?"), **media)
    second = prepare(processor, user(video_item(), "Where, and since when?"), **media)
    tensors = {name: first[name] for name in ("pixel_values_videos", "video_timestamps")}
    with torch.no_grad():
        encoded = model.encode_media(**tensors)
    for question in (first, second):
        text = {name: question[name] for name in ("input_ids", "attention_mask")}
        assert answer(model, {**text, "mm_encoder_outputs": encoded}).tolist() == answer(model, question).tolist()
    with pytest.raises(ValueError, match="both media and `mm_encoder_outputs`"):
        model(**first, mm_encoder_outputs=encoded)


def test_inputs_embeds(model, inputs):
    with torch.no_grad():
        embeds = model.get_inputs_embeds(**inputs)
        logits = model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"]).logits
        torch.testing.assert_close(logits, model(**inputs).logits)
    generated = model.generate(inputs_embeds=embeds, attention_mask=inputs["attention_mask"], max_new_tokens=6)
    assert generated.tolist() == answer(model, inputs).tolist()


def test_placeholders_are_found_by_their_embeddings(model, inputs):
    media = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
    with torch.no_grad():
        plain = model.get_input_embeddings()(inputs["input_ids"])
        torch.testing.assert_close(
            model.get_inputs_embeds(inputs_embeds=plain, **media), model.get_inputs_embeds(**inputs)
        )


def test_labels_count_text_alone(model, inputs):
    with torch.no_grad():
        output = model(**inputs, labels=inputs["input_ids"])
    config = model.config
    labels = inputs["input_ids"].clone()
    for token in (config.image_token_id, config.video_token_id, config.audio_token_id):
        assert (labels == token).any()
        labels[labels == token] = -100
    expected = torch.nn.functional.cross_entropy(output.logits[0, :-1], labels[0, 1:], ignore_index=-100)
    torch.testing.assert_close(output.loss, expected)


def test_logits_to_keep(model, inputs):
    with torch.no_grad():
        everything = model(**inputs).logits
        torch.testing.assert_close(model(**inputs, logits_to_keep=3).logits, everything[:, -3:])


def test_labels_of_the_logits_that_are_kept(model, inputs):
    labels = inputs["input_ids"].clone()
    labels[:, :-5] = -100
    kept = torch.zeros_like(labels[0], dtype=torch.bool)
    kept[-6:] = True
    with torch.no_grad():
        expected = model(**inputs, labels=labels).loss
        for logits_to_keep in (6, kept):
            output = model(**inputs, labels=labels[:, -6:], logits_to_keep=logits_to_keep)
            torch.testing.assert_close(output.loss, expected)


def test_outputs(model, inputs):
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
        plain = model(**inputs, return_dict=False)
    assert len(output.hidden_states) == model.config.text_config.num_hidden_layers + 1
    for modality in ("image", "video", "audio"):
        count = (inputs["input_ids"] == getattr(model.config, f"{modality}_token_id")).sum()
        assert output[f"{modality}_hidden_states"].shape == (count, model.config.text_config.hidden_size)
    assert isinstance(plain, tuple)
    torch.testing.assert_close(plain[0], output.logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(model, inputs, dtype):
    half = AutoModel.from_pretrained(PARITY / "published-tiny", dtype=dtype)
    assert {weight.dtype for weight in half.parameters()} == {dtype}
    cast = copy.deepcopy(inputs).to(dtype)
    assert cast["video_timestamps"].dtype == torch.float32
    with torch.no_grad():
        difference = (half(**cast).logits.float() - model(**inputs).logits).abs()
    assert difference.mean() < 0.02
    assert answer(half, cast).shape == (1, 6)


def test_gradients_reach_every_part(make_fresh, inputs):
    model = make_fresh().train()
    model.gradient_checkpointing_enable()
    model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
    without = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not without
    plain = make_fresh().train()
    plain(**inputs, labels=inputs["input_ids"]).loss.backward()
    for (name, weight), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        if weight.grad is not None:
            torch.testing.assert_close(weight.grad, other.grad, msg=name, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "auto_class", [AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM]
)
def test_auto_classes_give_the_model_that_generates(auto_class, model, tmp_path):
    assert type(auto_class.from_pretrained(PARITY / "published-tiny")) is OmniVinciForConditionalGeneration
    model.save_pretrained(tmp_path)
    assert type(auto_class.from_pretrained(tmp_path)) is OmniVinciForConditionalGeneration
    assert type(auto_class.from_config(model.config)) is OmniVinciForConditionalGeneration


def test_base_model_without_head(model, inputs, tmp_path):
    model.save_pretrained(tmp_path)
    for folder in (PARITY / "published-tiny", tmp_path):
        base = OmniVinciModel.from_pretrained(folder)
        with torch.no_grad():
            torch.testing.assert_close(model.lm_head(base(**inputs).last_hidden_state), model(**inputs).logits)


def test_the_default_config_is_the_9b_model():
    with torch.device("meta"):
        model = OmniVinciForConditionalGeneration(OmniVinciConfig())
    assert 8.6e9 < sum(weight.numel() for weight in model.parameters()) < 9.0e9


def test_tensor_parallel_plan_of_the_language_model_is_kept(model):
    language_model = Qwen2ForCausalLM(model.config.text_config)
    assert model.tp_plan.get("lm_head") == language_model.tp_plan.get("lm_head")  # transformers 5.8 has none
    planned = [name for name in model.tp_plan if name.startswith("model.language_model.layers")]
    assert any("q_proj" in name for name in planned) and any("down_proj" in name for name in planned)


def test_the_config_is_not_changed_by_use(model, inputs):
    before = model.config.to_dict()
    answer(model, inputs, num_beams=2)
    assert model.config.to_dict() == before


@pytest.mark.parametrize("chunk_size", [1, 2, 100])
def test_chunks_of_the_encoders_do_not_change_features(model, inputs, chunk_size):
    chunked = copy.deepcopy(model)
    for config in (chunked.config, chunked.model.config):
        config.vision_chunk_size = config.audio_chunk_size = chunk_size
    with torch.no_grad():
        torch.testing.assert_close(chunked.get_inputs_embeds(**inputs), model.get_inputs_embeds(**inputs))


def test_unlike_numbers_of_features_and_placeholders(model, inputs):
    fewer = {**inputs, "input_ids": inputs["input_ids"].clone()}
    first = (fewer["input_ids"][0] == model.config.video_token_id).nonzero()[0]
    fewer["input_ids"][0, first] = 0
    with pytest.raises(ValueError, match="video"):
        model(**fewer)
    with pytest.raises(ValueError, match="tiles"):
        model(**{**inputs, "pixel_values": inputs["pixel_values"][1:]})
    with pytest.raises(ValueError, match="frames"):
        model(**{**inputs, "pixel_values_videos": inputs["pixel_values_videos"][1:]})
    with pytest.raises(ValueError, match="windows"):
        model(**{**inputs, "audio_num_windows": inputs["audio_num_windows"] + 1})


@pytest.mark.parametrize("output_class", (OmniVinciModelOutputWithPast, OmniVinciCausalLMOutputWithPast))
def test_outputs_hold_what_is_set_and_leave_out_what_is_not(output_class):
    cache, hidden = DynamicCache(), torch.ones(2, 3)
    output = output_class(**{CACHE: cache}, image_hidden_states=hidden)
    assert list(output.keys()) == [CACHE, "image_hidden_states"] and output.align_loss is None
    assert output.past_key_values is cache and output["cache"] is output["past_key_values"] is cache
    assert len(output.to_tuple()) == 2
    output.align_loss, output.video_outputs = hidden, None
    assert output["align_loss"] is hidden and "video_outputs" not in output
    with pytest.raises(TypeError, match="no_field"):
        output_class(no_field=1)
