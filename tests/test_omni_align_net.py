"""OmniAlignNet: equation 1, what it attends to, what it leaves out, and its place in the model and its checkpoints."""

import math

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModel

from transformers_omnivinci import OmniVinciForConditionalGeneration, OmniVinciModel
from transformers_omnivinci.conversion import convert
from transformers_omnivinci.modeling.omni_align_net import OmniAlignNet, align_loss

from .conftest import CLIP, PARITY
from .media_samples import audio_item, user, video_item
from .processes import run_in_processes
from .test_parts import tiny_config

SIZE = 16  # hidden size of `tiny_config`
TEXT, VIDEO, AUDIO = 7, 61, 62
READINGS = ["batch", "clip"]
both_readings = pytest.mark.parametrize("attention", READINGS)


def tiny_model(attention="batch", **kwargs):
    torch.manual_seed(0)
    # The usual range is for hundreds of channels: with these few, vectors before their normalisation were tiny.
    sizes = {"initializer_range": 0.25, "align_loss_weight": 0.5, "align_attention": attention}
    config = tiny_config(**sizes | kwargs)
    return OmniVinciForConditionalGeneration(config).train()


def tiny_net(attention="batch", **kwargs) -> OmniAlignNet:
    return tiny_model(attention, **kwargs).model.omni_align_net


def embeddings(num_clips, seed=0, most=6):
    """E_v and E_a of clips of unlike lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, most + 1, (2, num_clips), generator=generator).tolist()
    return tuple([torch.randn(n, SIZE, generator=generator) for n in row] for row in lengths)


def media(seed, num_frames=2):
    """Frames and a window of sound as the towers of `tiny_config` take them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_frames, 3, 28, 28, generator=generator), torch.randn(1, 8, 20, generator=generator)


def inputs_of(*clips):
    """A prompt with clips, (frames or None, sound or None) each, as the processor would give it."""
    videos, sounds = [v for v, _ in clips if v is not None], [s for _, s in clips if s is not None]
    ids = [TEXT]
    for video, sound in clips:
        ids += [VIDEO] * (0 if video is None else len(video)) + [AUDIO] * (0 if sound is None else 5) + [TEXT]
    ids = torch.tensor([ids])
    inputs = {"input_ids": ids, "labels": ids.masked_fill(ids != TEXT, -100)}
    if videos:
        most = max(map(len, videos))
        times = [[float(t) if t < len(video) else -1.0 for t in range(most)] for video in videos]
        inputs |= {"pixel_values_videos": torch.cat(videos), "video_timestamps": torch.tensor(times)}
        inputs["video_has_audio"] = torch.tensor([s is not None for v, s in clips if v is not None])
    if sounds:
        inputs |= {"input_features": torch.cat(sounds), "audio_timestamps": torch.arange(5.0).repeat(len(sounds), 1)}
        inputs["audio_from_video"] = torch.tensor([v is not None for v, s in clips if s is not None])
    return inputs


# ------------------------------------------------------------------------------------------------------- equation 1


@pytest.mark.parametrize(("num_clips", "scale"), [(2, 1.0), (5, 1.0), (5, 14.0)])
def test_equation_1(num_clips, scale):
    generator = torch.Generator().manual_seed(num_clips)
    vision, audio = torch.nn.functional.normalize(torch.randn(2, num_clips, 6, generator=generator), dim=-1)
    v, a = vision.tolist(), audio.tolist()
    s = [[scale * sum(x * y for x, y in zip(row, column, strict=True)) for column in a] for row in v]
    clips = range(num_clips)
    to_audio = -sum(math.log(math.exp(s[i][i]) / sum(math.exp(s[i][j]) for j in clips)) for i in clips) / num_clips
    to_vision = -sum(math.log(math.exp(s[i][i]) / sum(math.exp(s[j][i]) for j in clips)) for i in clips) / num_clips
    assert align_loss(vision, audio, scale).item() == pytest.approx((to_audio + to_vision) / 2, rel=1e-5)


def test_the_loss_is_computed_in_full_precision_under_autocast():
    vision, audio = torch.nn.functional.normalize(torch.randn(2, 4, 64), dim=-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = align_loss(vision, audio, 14.0)
    assert torch.equal(under_autocast, align_loss(vision, audio, 14.0))


@both_readings
def test_v_and_a_have_length_1_and_make_the_loss(attention):
    net, clips = tiny_net(attention), embeddings(5)
    vision, audio = net(*clips, return_loss=False)
    assert vision.shape == audio.shape == (5, SIZE)
    torch.testing.assert_close(torch.stack((vision, audio)).norm(dim=-1), torch.ones(2, 5))
    torch.testing.assert_close(net(*clips), align_loss(vision, audio))


def test_a_learnable_temperature_divides_similarities():
    clips = embeddings(4)
    plain, scaled = tiny_net(), tiny_net(align_temperature=0.25)
    assert "logit_scale" not in dict(plain.named_parameters())
    scaled.load_state_dict(plain.state_dict(), strict=False)
    loss = scaled(*clips)
    torch.testing.assert_close(loss, align_loss(*plain(*clips, return_loss=False), 4.0))
    loss.backward()
    assert scaled.logit_scale.grad.abs() > 0


def test_a_temperature_does_not_fall_below_one_hundredth():
    net, clips = tiny_net(align_temperature=0.07), embeddings(4)
    torch.nn.init.constant_(net.logit_scale, 9.0)
    torch.testing.assert_close(net(*clips), align_loss(*net(*clips, return_loss=False), 100.0))


# --------------------------------------------------------------------------------------------- what attends to what


def test_a_query_sees_no_padding():
    pooling = tiny_net().vision_pooling
    long, short = torch.randn(6, SIZE), torch.randn(2, SIZE)
    padded = torch.stack((long, torch.cat((short, torch.full((4, SIZE), 1e3)))))
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    pooled = pooling(padded, mask)
    torch.testing.assert_close(pooled[1:], pooling(short[None], torch.ones(1, 2, dtype=torch.bool)))
    torch.testing.assert_close(pooled[:1], pooling(long[None], torch.ones(1, 6, dtype=torch.bool)))


def test_over_a_clip_v_and_a_are_the_same_in_any_batch():
    net, (videos, sounds) = tiny_net("clip"), embeddings(4)
    vision, audio = net(videos, sounds, return_loss=False)
    for index in range(4):
        alone = net(videos[index : index + 1], sounds[index : index + 1], return_loss=False)
        torch.testing.assert_close(torch.cat(alone), torch.stack((vision[index], audio[index])))


def test_over_the_batch_the_three_layers_see_one_sequence_of_clips():
    net, (videos, sounds) = tiny_net("batch"), embeddings(4)
    assert len(net.layers) == 3
    for pooling, clips, found in zip(
        (net.vision_pooling, net.audio_pooling), (videos, sounds), net(videos, sounds, return_loss=False), strict=True
    ):
        states = torch.cat([pooling(clip[None], torch.ones(1, len(clip), dtype=torch.bool)) for clip in clips])[None]
        for layer in net.layers:
            states = layer(states, None)
        torch.testing.assert_close(found, torch.nn.functional.normalize(states[0], dim=-1))
    with_another = net(videos[:3] + embeddings(1, seed=9)[0], sounds, return_loss=False)[0]
    assert not torch.allclose(with_another[:3], net(videos, sounds, return_loss=False)[0][:3])


@both_readings
def test_picture_and_sound_do_not_see_each_other(attention):
    net, (videos, sounds) = tiny_net(attention), embeddings(4)
    other_videos, other_sounds = embeddings(4, seed=1)
    vision, audio = net(videos, sounds, return_loss=False)
    assert torch.equal(net(videos, other_sounds, return_loss=False)[0], vision)
    assert torch.equal(net(other_videos, sounds, return_loss=False)[1], audio)


@both_readings
def test_the_order_of_clips_does_not_matter(attention):
    net, clips, order = tiny_net(attention), embeddings(4), [2, 0, 3, 1]
    permuted = tuple([modality[index] for index in order] for modality in clips)
    for before, after in zip(net(*clips, return_loss=False), net(*permuted, return_loss=False), strict=True):
        torch.testing.assert_close(after, before[order])
    torch.testing.assert_close(net(*permuted), net(*clips))


@both_readings
@pytest.mark.parametrize("num_clips", [0, 1])
def test_fewer_than_two_clips_give_zero_with_zero_gradients(attention, num_clips):
    net = tiny_net(attention, align_temperature=0.07)
    clips = embeddings(num_clips)
    loss = net(*clips)
    assert loss.item() == 0
    loss.backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None and not weight.grad.any(), name
    assert [len(found) for found in net(*clips, return_loss=False)] == [num_clips, num_clips]


@pytest.mark.slow
@both_readings
def test_random_clips_are_told_apart_after_a_few_steps(attention):
    net, (videos, sounds) = tiny_net(attention, align_temperature=0.07), embeddings(12)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        net(videos, sounds).backward()
        optimizer.step()
    with torch.no_grad():
        vision, audio = net(videos, sounds, return_loss=False)
    similarities = vision @ audio.T
    assert similarities.argmax(0).tolist() == similarities.argmax(1).tolist() == list(range(12))


# ------------------------------------------------------------------------------------------------ several processes

SPLITS = [(3, 2), (4, 0), (0, 1), (1, 1), (0, 0)]
"""Clips of the first and of the second process."""
PARALLEL_CASES = [(attention, split) for attention in READINGS for split in SPLITS]


def run_process(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = []
    for attention, split in PARALLEL_CASES:
        net = DistributedDataParallel(tiny_net(attention, align_temperature=0.07))
        start = sum(split[:rank])
        part = [clips[start : start + split[rank]] for clips in embeddings(sum(split))]
        loss = net(*part)
        loss.backward()
        results.append((loss.detach(), {name: weight.grad for name, weight in net.module.named_parameters()}))
    torch.save(results, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def parallel_results(tmp_path_factory):
    """Loss and averaged gradients of each case in each of two processes."""
    folder = tmp_path_factory.mktemp("parallel")
    run_in_processes(run_process, folder)
    return list(zip(*(torch.load(folder / f"{rank}.pt") for rank in range(2)), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(PARALLEL_CASES)), ids=lambda index: str(PARALLEL_CASES[index]))
def test_two_processes_give_loss_and_gradients_of_one_with_all_clips(parallel_results, index):
    attention, split = PARALLEL_CASES[index]
    net = tiny_net(attention, align_temperature=0.07)
    loss = net(*embeddings(sum(split)))
    loss.backward()
    for found, gradients in parallel_results[index]:
        torch.testing.assert_close(found, loss.detach())
        for name, weight in net.named_parameters():
            torch.testing.assert_close(gradients[name], weight.grad, msg=name, atol=1e-5, rtol=1e-4)


# --------------------------------------------------------------------------------------------------------- the model


@pytest.mark.compat
def test_the_loss_has_two_parts_in_training():
    model, inputs = tiny_model(), inputs_of(*map(media, range(3)))
    output = model(**inputs)
    torch.testing.assert_close(output.loss, output.language_loss + 0.5 * output.align_loss)
    vision, audio = model.get_alignment_embeddings(**inputs)
    torch.testing.assert_close(output.align_loss, align_loss(vision, audio))
    assert output.align_loss > 0
    labels = inputs["labels"]
    expected = torch.nn.functional.cross_entropy(output.logits[0, :-1], labels[0, 1:])
    torch.testing.assert_close(output.language_loss, expected)


def test_the_loss_is_the_next_tokens_alone_in_evaluation():
    model, inputs = tiny_model(), inputs_of(*map(media, range(3)))
    language_loss = model(**inputs).language_loss
    output = model.eval()(**inputs)
    assert output.align_loss is None and output.language_loss is None
    torch.testing.assert_close(output.loss, language_loss)


def test_without_labels_nothing_is_aligned(monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(OmniAlignNet, "forward", None)
    output = model(**{name: value for name, value in inputs_of(media(0)).items() if name != "labels"})
    assert output.loss is None and output.align_loss is None


def test_accumulated_steps_count_by_their_share_of_targets():
    """As Trainer does, which divides sums over targets by the number of those in all steps."""
    model, steps = tiny_model(), [inputs_of(*map(media, (0, 1))), inputs_of(*map(media, (2, 3, 4)))]
    counts = [int((step["labels"][:, 1:] != -100).sum()) for step in steps]
    outputs = [model(**step, num_items_in_batch=torch.tensor(sum(counts))) for step in steps]
    alone = [model(**step) for step in steps]
    expected = sum(count * output.loss for count, output in zip(counts, alone, strict=True)) / sum(counts)
    torch.testing.assert_close(sum(output.loss for output in outputs), expected)
    torch.testing.assert_close(outputs[0].align_loss, alone[0].align_loss)


def test_clips_without_sound_or_without_picture_are_left_out():
    model = tiny_model("clip")
    pairs = [media(seed) for seed in range(3)]
    silent, unseen = (media(3, num_frames=4)[0], None), (None, media(4)[1])
    mixed = inputs_of(unseen, pairs[0], silent, unseen, pairs[1], pairs[2], silent)
    with torch.no_grad():
        expected = model.get_alignment_embeddings(**inputs_of(*pairs))
        found = model.get_alignment_embeddings(**mixed)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(model(**mixed).align_loss, model(**inputs_of(*pairs)).align_loss)


@pytest.mark.parametrize("clips", [[], [(media(0)[0], None)], [(None, media(0)[1])], [media(0)]], ids=len)
def test_batches_without_pairs_train_the_language_model_alone(clips):
    model = tiny_model()
    output = model(**inputs_of(*clips, (None, media(1)[1])))
    assert output.align_loss.item() == 0
    assert torch.equal(output.loss, output.language_loss)
    output.loss.backward()
    assert all(weight.grad is not None for weight in model.model.omni_align_net.parameters())


@pytest.mark.compat
def test_the_embeddings_are_those_of_the_projectors_before_pooling_and_time():
    model = tiny_model(video_pool_sizes=[[2, 1, 1]])
    inputs = inputs_of(media(0, num_frames=4))
    del inputs["labels"], inputs["input_ids"]
    encoded = model.encode_media(**inputs, output_projected_embeddings=True)
    inner = model.model
    pixels, windows = inputs["pixel_values_videos"], inputs["input_features"]
    patches = inner.vision_tower(pixels).last_hidden_state.unflatten(1, (2, 2))
    torch.testing.assert_close(encoded["video"].projected_embeddings[0], inner.vision_projector(patches).flatten(0, 2))
    vectors = inner.audio_projector(inner.audio_tower(windows).last_hidden_state[0])
    torch.testing.assert_close(encoded["audio"].projected_embeddings[0], vectors)
    assert len(encoded["video"].pooler_output[0]) == 2
    assert all(output.projected_embeddings is None for output in model.encode_media(**inputs).values())
    flags = {name: inputs[name] for name in ("video_has_audio", "audio_from_video")}
    torch.testing.assert_close(
        model.get_alignment_embeddings(**flags, mm_encoder_outputs=encoded), model.get_alignment_embeddings(**inputs)
    )


@both_readings
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_queries_projectors_and_towers(attention, checkpointing):
    model = tiny_model(attention, align_temperature=0.07)
    if checkpointing:
        model.gradient_checkpointing_enable()
    inputs = inputs_of(*map(media, range(3)))
    model(**inputs, use_cache=False).align_loss.backward()
    inner = model.model
    parts = (inner.omni_align_net, inner.vision_projector, inner.audio_projector, inner.vision_tower)
    gradients = [w.grad for part in parts for name, w in part.named_parameters() if "k_proj.bias" not in name]
    gradients += [w.grad for w in inner.audio_tower.layers.parameters()]
    assert all(gradient is not None for gradient in gradients)
    assert all(gradient.any() for gradient in gradients)
    for name in ("vision_pooling.query", "audio_pooling.query", "logit_scale"):
        assert inner.omni_align_net.get_parameter(name).grad.any(), name
    assert all(weight.grad is None for weight in inner.language_model.parameters())
    plain = tiny_model(attention, align_temperature=0.07)
    plain(**inputs).align_loss.backward()
    for (name, weight), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        if weight.grad is not None:
            torch.testing.assert_close(weight.grad, other.grad, msg=name, atol=1e-5, rtol=1e-4)


@both_readings
def test_half_precision(attention):
    model, inputs = tiny_model(attention), inputs_of(*map(media, range(4)))
    exact = model(**inputs).align_loss
    output = model.bfloat16()(**inputs)
    assert output.align_loss.dtype == torch.float32 and output.loss.dtype == torch.float32
    torch.testing.assert_close(output.align_loss, exact, atol=0.05, rtol=0.05)
    output.loss.backward()
    assert all(weight.grad.isfinite().all() for weight in model.model.omni_align_net.parameters())
    autocast = tiny_model(attention)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(autocast(**inputs).align_loss, exact, atol=0.05, rtol=0.05)


def test_what_cannot_be_paired_is_refused():
    model, inputs = tiny_model(), inputs_of(*map(media, range(2)))
    with pytest.raises(ValueError, match="needs .* `video_has_audio` .* got 2 media and no entries"):
        model(**{name: value for name, value in inputs.items() if name != "video_has_audio"})
    with pytest.raises(ValueError, match="`audio_from_video` .* got 2 media and 1 entries"):
        model(**inputs | {"audio_from_video": torch.tensor([True])})
    with pytest.raises(ValueError, match="1 videos with sound, but `audio_from_video` 2"):
        model(**inputs | {"video_has_audio": torch.tensor([True, False])})
    text = {name: inputs.pop(name) for name in ("input_ids", "labels")}
    with pytest.raises(ValueError, match="`video_has_audio` .* got no media"):
        model(**text, mm_encoder_outputs=model.encode_media(**inputs))


# ----------------------------------------------------------------------------------------------------- the processor


def test_the_processor_tells_which_sound_is_a_videos(processor):
    clip = {"type": "video", "path": CLIP}
    chats = [user(audio_item(), "?", clip), user("Which?", clip, audio_item(seconds=1))]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "num_frames": 2}
    inputs = processor.apply_chat_template(chats, load_audio_from_video=True, **options)
    assert inputs["video_has_audio"].tolist() == [True, True]
    assert inputs["audio_from_video"].tolist() == [False, True, True, False]
    assert inputs.to(dtype=torch.bfloat16)["audio_from_video"].dtype == torch.bool
    silent = processor.apply_chat_template(chats, load_audio_from_video=False, **options)
    assert silent["video_has_audio"].tolist() == [False, False]
    assert silent["audio_from_video"].tolist() == [False, False]
    mixed = processor(
        text=["<vila/video><vila/video>?", "<sound>"],
        videos=[item["video"] for item in (video_item(num_frames=2), video_item(num_frames=2, seed=1))],
        audio=[audio_item()["audio"], audio_item(pitch=880)["audio"]],
        audio_from_video_indices=[1, None],
        load_audio_from_video=True,
        return_tensors="pt",
    )
    assert mixed["video_has_audio"].tolist() == [False, True]
    assert mixed["audio_from_video"].tolist() == [True, False]


# ------------------------------------------------------------------------------------------------------- checkpoints


def test_the_release_has_none(model):
    assert model.model.omni_align_net is None
    assert not [name for name in model.state_dict() if "align" in name]
    with pytest.raises(ValueError, match="no OmniAlignNet.*align_loss_weight"):
        model.get_alignment_embeddings(**inputs_of(media(0)))


@pytest.mark.compat
def test_it_is_saved_and_loaded_with_the_model(tmp_path):
    model, inputs = tiny_model(align_temperature=0.07), inputs_of(*map(media, range(3)))
    model.save_pretrained(tmp_path)
    for again in (AutoModel.from_pretrained(tmp_path), OmniVinciModel.from_pretrained(tmp_path)):
        torch.testing.assert_close(
            again.get_alignment_embeddings(**inputs), model.eval().get_alignment_embeddings(**inputs)
        )
    again = AutoModel.from_pretrained(tmp_path)
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in again.state_dict().items())


@both_readings
def test_implementations_of_attention_agree(attention, tmp_path):
    inputs = inputs_of(*[media(seed, num_frames=1 + seed) for seed in range(3)])
    tiny_model(attention).save_pretrained(tmp_path)
    sdpa, eager = (AutoModel.from_pretrained(tmp_path, attn_implementation=name) for name in ("sdpa", "eager"))
    assert eager.model.omni_align_net.layers[0].self_attn.config._attn_implementation == "eager"
    torch.testing.assert_close(sdpa.get_alignment_embeddings(**inputs), eager.get_alignment_embeddings(**inputs))


@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_it_works_where_its_weights_are_offloaded(place, tmp_path):
    model, inputs = tiny_model(), inputs_of(*map(media, range(3)))
    model.save_pretrained(tmp_path / "model")
    parts = [f"model.{name}" for name, _ in model.model.named_children()]
    device_map = dict.fromkeys([*parts, "lm_head"], "cpu") | {"model.omni_align_net": place}
    placed = AutoModel.from_pretrained(tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload")
    torch.testing.assert_close(
        placed.get_alignment_embeddings(**inputs), model.eval().get_alignment_embeddings(**inputs)
    )


@pytest.mark.parametrize("model_class", [OmniVinciForConditionalGeneration, OmniVinciModel])
@pytest.mark.parametrize("layout", ["published", "transformers"])
def test_a_checkpoint_without_it_gets_a_fresh_one_on_request(model_class, layout, load_checkpoint, tmp_path):
    before, folder = load_checkpoint()[0], PARITY / "published-tiny"
    if layout == "transformers":
        folder = tmp_path
        before.save_pretrained(folder)
    model = model_class.from_pretrained(folder, align_loss_weight=0.2, align_temperature=0.07)
    inner = getattr(model, "model", model)
    stored = before.model.state_dict()
    fresh = inner.state_dict().keys() - stored.keys()
    assert fresh and all(name.startswith("omni_align_net.") for name in fresh)
    assert all(torch.equal(weight, inner.state_dict()[name]) for name, weight in stored.items())
    net = inner.omni_align_net
    assert net.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    for weight in (net.vision_pooling.query, net.audio_pooling.query, net.layers[2].self_attn.q_proj.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.5)
    assert (net.layers[0].layer_norm1.weight == 1).all() and not net.layers[0].mlp.fc1.bias.any()


def test_the_published_layout_has_no_place_for_it(processor, tmp_path):
    model = AutoModel.from_pretrained(PARITY / "published-tiny", align_loss_weight=0.2)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "aligned")
    with pytest.raises(ValueError, match="no place .* align_loss_weight"):
        convert(tmp_path / "aligned", tmp_path / "back", to="published")
    assert not (tmp_path / "back").exists()


def test_a_lacking_weight_of_a_converted_checkpoint_is_still_named(processor, tmp_path):
    model = AutoModel.from_pretrained(PARITY / "published-tiny")
    model.save_pretrained(tmp_path / "plain")
    processor.save_pretrained(tmp_path / "plain")
    config = model.config.from_dict(model.config.to_dict() | {"align_loss_weight": 0.2})
    config.save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match="missing: model.omni_align_net"):
        convert(tmp_path / "plain", tmp_path / "converted")
