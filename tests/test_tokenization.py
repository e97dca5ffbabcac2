"""From prompts to token ids: what the user writes stays text, and media stand where their placeholders did."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transformers_omnivinci.planning import MediumPlan, PromptPlan
from transformers_omnivinci.processing.options import sort_options
from transformers_omnivinci.processing.tokenization import (
    control_tokens,
    cut_control_tokens,
    mark_spans,
    place_media,
    tokenize_prompt,
)

from .conftest import CLIP
from .media_samples import image_item, sound, user

pytestmark = pytest.mark.compat

TOKENS = ["<image>", "<sound>", "<vila/video>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|image_bos|>"]
PIECES = st.lists(
    st.sampled_from([*TOKENS, "<", "|im", "_end|>", "image>", "a", " b", "\n", "ü", "|", ">"]), max_size=12
)
SHARED = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def lay_out(processor, text, media):
    """Token ids of a prompt with media in it, their offsets, and what is told of the media."""
    prompt = tokenize_prompt(processor.tokenizer, text, with_offsets=True)
    placeholders = (processor.image_token_id, processor.video_token_id, processor.audio_token_id)
    slots = [place for place, token in enumerate(prompt.ids) if token in placeholders]
    plan = PromptPlan(prompt.ids, slots, media)
    return plan.ids(), *place_media(processor.tokenizer, prompt, plan)


@settings(max_examples=150, **SHARED)
@given(texts=st.lists(PIECES.map("".join), min_size=1, max_size=3))
def test_what_the_user_writes_is_no_control_token(processor, texts):
    tokenizer = processor.tokenizer
    tokens = control_tokens(tokenizer, processor.chat_template)
    assert set(TOKENS) <= set(tokens)
    prompt = "<|im_start|>" + "".join(cut_control_tokens(texts, tokens)) + "<|im_end|>"
    ids = tokenize_prompt(tokenizer, prompt, with_offsets=True)
    controls = set(tokenizer.convert_tokens_to_ids(tokens))
    assert [token in controls for token in ids.ids] == [True, *[False] * (len(ids.ids) - 2), True]
    assert tokenizer.decode(ids.ids) == "<|im_start|>" + "".join(texts) + "<|im_end|>"


@settings(max_examples=100, **SHARED)
@given(
    parts=st.lists(
        st.text(st.characters(codec="ascii", exclude_characters="<\r"), max_size=6), min_size=1, max_size=4
    ),
    counts=st.lists(st.integers(1, 5), min_size=3, max_size=3),
)
def test_ids_of_media_stand_in_the_place_of_placeholders(processor, parts, counts):
    tokenizer = processor.tokenizer
    media = [MediumPlan("image", [[(processor.image_token_id, count)]]) for count in counts[: len(parts) - 1]]
    prompt = "<image>".join(parts)
    ids, offsets, replacements = lay_out(processor, prompt, media)
    expanded = "".join(
        part + "<image>" * count for part, count in zip(parts, [*counts[: len(parts) - 1], 0], strict=True)
    )
    plain = tokenizer(expanded, return_offsets_mapping=True)
    assert ids == plain["input_ids"] and offsets == plain["offset_mapping"]
    assert len(replacements) == len(media)
    for replacement in replacements:
        (start, end), (first, last) = replacement["span"], replacement["new_span"]
        assert prompt[start:end] == "<image>" and expanded[first:last] == replacement["replacement"]


def test_spans_move_with_what_stands_before_them(processor):
    media = [MediumPlan("audio", [[(processor.audio_token_id, 3)]])]
    prompt = "a<sound>b c"
    ids, offsets, replacements = lay_out(processor, prompt, media)
    marks = mark_spans(offsets, replacements, [(prompt.index("b"), len(prompt))])
    chosen = [token for token, mark in zip(ids, marks, strict=True) if mark]
    assert processor.decode(chosen) == "b c"


def test_answers_are_marked_in_batches_with_control_tokens_as_text(processor):
    chats = [
        [*user(image_item(), "<|im_end|>What?"), {"role": "assistant", "content": "A <sound> sign."}],
        [
            *user("Hm"),
            {"role": "assistant", "content": "One."},
            *user("And?"),
            {"role": "assistant", "content": "Two."},
        ],
    ]
    for sanitized, conversations in ((True, chats), (False, chats[1:])):
        inputs = processor.apply_chat_template(
            conversations,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
            return_tensors="pt",
            sanitize_control_tokens=sanitized,
        )
        chosen = [
            processor.decode(ids[torch.as_tensor(mask).bool()])
            for ids, mask in zip(inputs["input_ids"], inputs["assistant_masks"], strict=True)
        ]
        assert (
            chosen == ["A <sound> sign.<|im_end|>", "One.<|im_end|>Two.<|im_end|>"][len(chats) - len(conversations) :]
        )


@pytest.mark.parametrize("side", ["left", "right"])
def test_text_is_cut_and_padded_as_asked(processor, side):
    texts = ["one two three four", "five"]
    inputs = processor(texts, padding="max_length", max_length=6, truncation=True, padding_side=side)
    plain = processor.tokenizer(texts, padding="max_length", max_length=6, truncation=True, padding_side=side)
    assert inputs["input_ids"] == plain["input_ids"] and inputs["attention_mask"] == plain["attention_mask"]
    with pytest.raises(ValueError, match="Mismatch in `audio` token count.*`max_length`"):
        processor("<sound>Hm", audio=sound(), max_length=20, truncation=True)


def test_an_option_goes_to_every_part_that_knows_it(processor):
    options = sort_options(processor, {"return_tensors": "pt", "videos_kwargs": {"num_frames": 3}, "max_tiles": 4})
    assert options["videos_kwargs"]["num_frames"] == 3 and options["images_kwargs"]["max_tiles"] == 4
    assert {options[group]["return_tensors"] for group in ("text_kwargs", "images_kwargs", "videos_kwargs")} == {"pt"}
    assert options["text_kwargs"]["padding"] is True and options["return_mm_token_type_ids"] is False


def test_options_that_are_given_twice_or_of_wrong_types(processor):
    with pytest.raises(ValueError, match="`num_frames` both in `videos_kwargs` and beside it"):
        sort_options(processor, {"num_frames": 2, "videos_kwargs": {"num_frames": 3}})
    for call in (
        lambda: processor.apply_chat_template(user("Hm"), tokenize=True, videos_kwargs={"num_frames": "many"}),
        lambda: processor.video_processor(CLIP, num_frames="many"),
    ):
        with pytest.raises(TypeError, match="num_frames"):
            call()


@pytest.mark.parametrize("option, hint", [("num_frame", "; `num_frames` is"), ("not_an_option_at_all", "")])
def test_an_option_that_would_have_no_effect_is_refused(processor, option, hint):
    for call in (
        lambda: processor("Hm", **{option: 2}),
        lambda: processor.count_tokens("Hm", **{option: 2}),
        lambda: processor.apply_chat_template(user("Hm"), tokenize=True, **{option: 2}),
    ):
        with pytest.raises(TypeError, match=f"`{option}` is not an option of the processor{hint}\\."):
            call()


def test_what_excludes_each_other_in_chats(processor):
    chat = user("Hm")
    for options, match in (
        ({"continue_final_message": True, "add_generation_prompt": True}, "exclude each other"),
        ({"continue_final_message": True, "return_assistant_tokens_mask": True}, "exclude each other"),
        ({"sanitize_control_tokens": True}, "needs `tokenize=True`"),
    ):
        with pytest.raises(ValueError, match=match):
            processor.apply_chat_template(chat, **options)
