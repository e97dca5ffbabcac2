"""
Every case of the parity fixtures against the released numbers: from images, sampled frames and waveforms to generated
tokens, and from lossless media files to the same inputs.
"""

import pytest
import torch

from .conftest import CASES
from .parity import load_case, media_of, waveform, write_media

pytestmark = pytest.mark.compat


def assert_close(actual: torch.Tensor, expected: torch.Tensor):
    difference = (actual - expected).abs()
    assert difference.max() <= 1e-3
    assert difference.mean() <= 1e-4


@pytest.fixture(params=CASES, scope="module")
def case(request, load_checkpoint):
    """A case with its model, its processor and what the processor makes of it."""
    entry, tensors = load_case(request.param)
    model, processor = load_checkpoint(entry["checkpoint"])
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": entry["content"]}], add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=prompt, **media_of(entry, tensors), return_tensors="pt")
    return entry, tensors, model, processor, prompt, inputs


def test_prompt(case):
    entry, _, _, _, prompt, _ = case
    assert prompt == entry["prompt_with_placeholders"].replace("<sound><vila/video>", "<vila/video>")


def test_placeholder_pairs_of_the_release_give_the_same_inputs(case):
    entry, tensors, _, processor, _, inputs = case
    paired = processor(text=entry["prompt_with_placeholders"], **media_of(entry, tensors), return_tensors="pt")
    assert paired.keys() == inputs.keys()
    for name in inputs:
        assert torch.equal(inputs[name], paired[name]), name


def test_sequence_length(case):
    entry, _, _, _, _, inputs = case
    assert inputs["input_ids"].shape == (1, entry["sequence_length"])


def test_pixels_and_tile_grids(case):
    entry, tensors, _, _, _, inputs = case
    if "expected.pixel_values_images" not in tensors:
        assert "pixel_values" not in inputs
        return
    if entry["block_sizes"]:
        assert inputs["image_grid_hw"].tolist() == entry["block_sizes"]
    expected = tensors["expected.pixel_values_images"].float()
    one_grey_level = 2 / 255
    assert (inputs["pixel_values"] - expected).abs().max() <= one_grey_level + 1e-3


def test_timeline(case):
    entry, tensors, _, processor, _, inputs = case
    for index, (timeline, facts) in enumerate(zip(entry["timeline"], entry["videos"], strict=True)):
        seconds = inputs["video_timestamps"][index]
        assert seconds[seconds >= 0].tolist() == pytest.approx(timeline["frame_times"], abs=1e-5)
        if not facts["has_audio"]:
            continue
        loaded = processor.video_processor.load_videos(
            [tensors[f"video.{index}.frames"]],
            video_metadata=[{key: facts[key] for key in ("fps", "total_num_frames", "frames_indices")}],
            do_sample_frames=False,
        )
        plan = processor.plan_video(loaded[0].metadata, len(waveform(tensors[f"video.{index}.waveform"])))
        assert [list(group.frames) for group in plan.groups] == timeline["segment_vis"]
        spans = [[span.start, span.stop] if span else [] for span in (group.mel_frames for group in plan.groups)]
        assert spans == timeline["segment_stft"]


def test_audio_lengths(case):
    entry, _, _, _, _, inputs = case
    if not entry["audio"]:
        assert "input_features" not in inputs
        return
    windows = [clip["new_audio_n_stft_frames"] // 3000 for clip in entry["audio"]]
    assert inputs["audio_num_windows"].tolist() == windows


def test_inputs_embeds(case):
    _, tensors, model, _, _, inputs = case
    with torch.no_grad():
        embeds = model.get_inputs_embeds(**inputs)
    assert_close(embeds[0], tensors["expected.inputs_embeds"])


def test_last_logits(case):
    _, tensors, model, _, _, inputs = case
    with torch.no_grad():
        logits = model(**inputs, logits_to_keep=1).logits
    assert_close(logits[0, -1], tensors["expected.last_logits"])


def test_generated_ids(case):
    _, tensors, model, _, _, inputs = case
    generated = model.generate(**inputs, max_new_tokens=12, min_new_tokens=12, do_sample=False, eos_token_id=None)
    expected = tensors["expected.generated_ids"].flatten().tolist()
    assert generated[0, inputs["input_ids"].shape[1] :].tolist() == expected


def test_media_files_give_the_same_inputs(case, tmp_path):
    """Decoding, sampling and the alignment of sound to frames are held against the arrays of the release."""
    entry, tensors, _, processor, prompt, inputs = case
    decoded = processor(text=prompt, **write_media(tmp_path, entry, tensors), return_tensors="pt")
    assert decoded.keys() == inputs.keys()
    for name in inputs:
        assert torch.equal(decoded[name], inputs[name]), name
