"""Chats that share their media: one sequence, decoded once, and the loss of separate chats."""

import pytest
import torch

from transformers_omnivinci.labels import IGNORED
from transformers_omnivinci.training import BadSample, ChatDataset, DataSource, OmniVinciCollator, SampleEncoder
from transformers_omnivinci.training.encoding import Measure

from .chats import CLIP_ITEM, chat, damaged_image
from .conftest import CLIP
from .media_samples import audio_item, image_item, video_item
from .training_runs import loss_and_gradients, make_trainer

IMAGE_ITEM, SILENT_ITEM, TONE_ITEM = image_item(), video_item(num_frames=3), audio_item()
TWO_TURNS = chat("Red.", CLIP_ITEM, question="What is its colour?")
TWO_TURNS["messages"] += chat("Yes.", question="Sure?")["messages"]
WITH_SYSTEM = chat("No.", CLIP_ITEM)
WITH_SYSTEM["messages"].insert(0, {"role": "system", "content": "Be short."})
MEDIUM_LATER = chat("A dog.", question="Who?")
MEDIUM_LATER["messages"] += chat("A cat.", IMAGE_ITEM)["messages"]

GROUPS = {
    "a video with sound": [
        [chat("A square.", CLIP_ITEM, question="What is it?"), TWO_TURNS, chat("It sinks.", CLIP_ITEM)]
    ],
    "an image": [[chat("Yes.", IMAGE_ITEM, question="Is it red?"), chat("A lot of noise.", IMAGE_ITEM)]],
    "a sound": [[chat("Yes.", TONE_ITEM), chat("No.", TONE_ITEM, question="Why?")]],
    "several media": [
        [chat("Yes.", CLIP_ITEM, IMAGE_ITEM), chat("No.", CLIP_ITEM, IMAGE_ITEM, question="Who is it?")]
    ],
    "one question with several answers": [[chat("Yes.", IMAGE_ITEM), chat("Yes, yes.", IMAGE_ITEM)]],
    "the same row twice": [[chat("Yes.", IMAGE_ITEM), chat("Yes.", IMAGE_ITEM)]],
    "several clips and a text": [
        [chat("A square.", CLIP_ITEM), chat("Red.", CLIP_ITEM, question="Which colour?")],
        [chat("A dog.")],
        [chat("Silent.", IMAGE_ITEM), chat("Loud.", IMAGE_ITEM, question="Is it silent?")],
        [chat("Noise.", SILENT_ITEM), chat("No.", SILENT_ITEM, question="Is it loud?")],
    ],
    "nothing in common": [
        [chat("A dog.", question="Who?")],
        [chat("A dog.", question="What?")],
        [chat("An image.", IMAGE_ITEM)],
        [chat("Another.", image_item(seed=1))],
        [chat("No.", CLIP_ITEM)],
        [WITH_SYSTEM],
        [chat("No.", {"type": "text", "text": "Look: "}, CLIP_ITEM)],
        [chat("No.", CLIP_ITEM, IMAGE_ITEM)],
        [MEDIUM_LATER],
        [MEDIUM_LATER],
    ],
}


@pytest.fixture
def groups(request):
    return GROUPS[request.param]


@pytest.fixture
def shared(dataset):
    return lambda groups, **options: dataset([row for group in groups for row in group], share_media=True, **options)


@pytest.mark.parametrize("groups", GROUPS, indirect=True)
def test_rows_about_the_same_media_follow_one_prefix(groups, shared, dataset):
    data = shared(groups)
    assert [[sample.id for sample in data.samples(index)] for index in range(len(data))] == [
        [f"row:{sum(map(len, groups[:index])) + row}" for row in range(len(group))]
        for index, group in enumerate(groups)
    ]
    for index, group in enumerate(groups):
        item, alone = data[index], [dataset([row])[0] for row in group]
        assert data.measures[index] == Measure(len(item["input_ids"]), dataset(group[:1]).measures[0].modalities)
        segments = item.get("segment_ids", torch.ones(len(item["input_ids"])))
        for number, row in enumerate(alone, start=1):
            chosen = (segments == 0) | (segments == number)
            assert torch.equal(item["input_ids"][chosen], row["input_ids"])
            assert torch.equal(item["labels"][chosen], row["labels"])
            if len(group) > 1:
                assert torch.equal(item["position_ids"][chosen], torch.arange(len(row["input_ids"])))
                assert len(item["input_ids"]) < sum(len(row["input_ids"]) for row in alone)


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize(
    ("attention", "collate", "groups"),
    [
        *(("sdpa", {}, name) for name in GROUPS),
        ("eager", {"padding_side": "left"}, "several clips and a text"),
        ("eager", {"packing": True}, "several clips and a text"),
        ("sdpa", {"packing": True}, "several clips and a text"),
    ],
    indirect=["groups"],
)
def test_rows_that_share_their_media_are_learnt_as_apart(
    attention, collate, groups, shared, dataset, processor, fresh
):
    fresh.set_attn_implementation(attention)
    apart, together = dataset([row for group in groups for row in group]), shared(groups)
    apart, together = ([data[index] for index in range(len(data))] for data in (apart, together))
    num_items = sum(int((sample["labels"] != IGNORED).sum()) for sample in apart)
    pad_token_id = processor.tokenizer.pad_token_id
    loss, gradients = loss_and_gradients(fresh, OmniVinciCollator(pad_token_id)(apart), num_items)
    batch = OmniVinciCollator(pad_token_id, **collate)(together)
    assert batch["sample_ids"] == [f"row:{index}" for index in range(len(apart))]
    assert (batch["labels"][:, 1:] != IGNORED).sum() == num_items
    shared_loss, shared_gradients = loss_and_gradients(fresh, batch, num_items)
    assert shared_loss == pytest.approx(loss, abs=1e-5)
    assert shared_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(shared_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_shared_media_are_decoded_once(shared, processor, monkeypatch):
    rows = [chat(f"{number}.", CLIP_ITEM, question=f"How many? {number}") for number in range(5)]
    data = shared([rows])
    decoded, load = [], processor.video_processor.load_videos
    monkeypatch.setattr(
        type(processor.video_processor),
        "load_videos",
        lambda self, videos, **kwargs: decoded.extend(videos) or load(videos, **kwargs),
    )
    batch = OmniVinciCollator(0)([data[0]])
    assert decoded == [CLIP] and len(batch["video_timestamps"]) == 1 and len(batch["sample_ids"]) == 5


def test_what_is_asked_of_many_clips_is_tokenized_once(shared, processor, monkeypatch):
    read, template = [], processor.tokenizer.apply_chat_template
    monkeypatch.setattr(
        processor.tokenizer,
        "apply_chat_template",
        lambda messages, **options: read.append(messages) or template(messages, **options),
    )
    groups = [
        [chat(answer, item) for answer in ("Yes.", "No.")] for item in (IMAGE_ITEM, audio_item(), image_item(seed=1))
    ]
    data = shared(groups)
    assert len(read) == 4  # an image and a sound, with two answers each
    items = [data[index] for index in range(3)]
    assert len(read) == 4 and not torch.equal(items[0]["pixel_values"], items[2]["pixel_values"])


def test_a_group_is_as_long_as_a_sample_may_be(processor):
    rows = [chat("Yes. " * 4, IMAGE_ITEM, question=question) for question in ("Who is it?", "Where is it?", "Why?")]
    whole = ChatDataset([DataSource(rows)], SampleEncoder(processor), share_media=True)
    (measure,) = whole.measures
    fits = ChatDataset([DataSource(rows)], SampleEncoder(processor, measure.length), share_media=True)
    assert fits.measures == [measure] and fits.fingerprint == whole.fingerprint
    cut = ChatDataset([DataSource(rows)], SampleEncoder(processor, measure.length - 1), share_media=True)
    assert [len(cut.samples(index)) for index in range(len(cut))] == [2, 1]
    assert [measure.length for measure in cut.measures] == [len(cut[index]["input_ids"]) for index in range(2)]
    assert cut.fingerprint != whole.fingerprint


@pytest.mark.parametrize("other", [chat("A dog."), chat("A dog.", SILENT_ITEM), MEDIUM_LATER])
def test_samples_with_other_media_are_not_encoded_together(other, encoder, dataset):
    one, other = dataset([chat("Yes.", IMAGE_ITEM), other]), dataset([{**other, "id": "other"}])
    with pytest.raises(BadSample, match="Sample other: it does not begin with the media of sample row:0"):
        encoder.encode(*one.samples(0), *other.samples(0))


def test_groups_end_with_their_source(encoder):
    sources = [DataSource([chat("Yes.", IMAGE_ITEM)] * 2, name=name) for name in "ab"]
    assert ChatDataset(sources, encoder, share_media=True).source_of == [0, 1]


def test_a_bad_row_is_left_out_of_its_group(tmp_path, shared):
    rows = [chat("Yes.", CLIP_ITEM), {"id": "bad", **chat(" ", CLIP_ITEM)}, chat("No.", CLIP_ITEM, question="Who?")]
    with pytest.raises(BadSample, match="bad: its last message is no answer"):
        shared([rows])
    data = shared([rows], skip_bad=True)
    assert len(data) == 1 and data[0]["sample_ids"] == ["row:0", "row:2"]
    assert [bad.sample_id for bad in data.skipped] == ["bad"]


def test_all_rows_about_a_damaged_file_are_named(tmp_path, shared):
    rows = [chat("Yes.", damaged_image(tmp_path), id=name) for name in "ab"]
    with pytest.raises(BadSample, match="Sample a: "):
        shared([rows])[0]
    good = chat("No.", image_item(height=600, width=800), id="c")
    batch = OmniVinciCollator(0)([shared([rows, [good]], skip_bad=True)[0]])
    assert batch["sample_ids"] == ["c"] and [bad.sample_id for bad in batch["skipped"]] == ["a", "b"]


def test_attention_without_masks_is_refused_for_shared_media(fresh, processor, shared, tmp_path):
    data = shared([[chat("Yes.", IMAGE_ITEM), chat("No.", IMAGE_ITEM)]])
    batch = OmniVinciCollator(0)([data[0]])
    fresh.config.text_config._attn_implementation = "flash_attention_2"
    refusal = "'flash_attention_2' takes no mask .* use `attn_implementation='sdpa'` or 'eager'"
    with pytest.raises(ValueError, match=refusal):
        make_trainer(fresh, processor, data, tmp_path)
    with pytest.raises(ValueError, match=refusal):
        loss_and_gradients(fresh, batch, 1)


@pytest.mark.slow
def test_runs_with_shared_media_learn_and_are_judged_as_those_without(
    make_fresh, processor, shared, dataset, tmp_path
):
    rows = [chat("A square.", CLIP_ITEM), chat("Red.", CLIP_ITEM, question="Which colour?")]
    curves = []
    for data, batch_size in ((shared([rows]), 1), (dataset(rows), 2)):
        options = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": batch_size}
        trainer = make_trainer(
            *(make_fresh(), processor, data, tmp_path),
            **(options | {"eval_dataset": data, "per_device_train_batch_size": batch_size}),
        )
        trainer.train()
        curves.append([entry.get("loss", entry.get("eval_loss")) for entry in trainer.state.log_history[:-1]])
    assert len(curves[0]) == 4 and curves[0] == pytest.approx(curves[1], abs=1e-4)
