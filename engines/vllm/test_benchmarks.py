"""The script for a GPU: run with small models, and the sizes that it is for as far as no memory is needed."""

import os
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from benchmarks.serve_gpu import Setting, qwen_settings, write_checkpoint


def rows_of(printed):
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_three_models_are_measured_with_equal_prompts():
    command = [sys.executable, "-m", "benchmarks.serve_gpu", "--tiny", "--device", "cpu", "--repeats", "1"]
    done = subprocess.run(
        [*command, "--dtype", "float32", "--frames", "4"],
        env=os.environ | {"VLLM_CPU_OMP_THREADS_BIND": "nobind"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ours, vllm, qwen = rows_of(done.stdout)
    assert (
        ours["model"] == "OmniVinci, transformers" and vllm["model"] == "OmniVinci, vLLM" and "Qwen" in qwen["model"]
    )
    assert ours["positions"] == vllm["positions"]
    assert all(float(row[name]) > 0 for row in (ours, vllm, qwen) for name in ("first token (s)", "tokens per s"))


def count(model):
    return sum(parameter.numel() for parameter in model.parameters()) / 1e9


def test_the_models_have_the_sizes_that_are_named(tmp_path):
    write_checkpoint(tmp_path, tiny=False)
    with torch.device("meta"):
        ours = AutoModel.from_config(AutoConfig.from_pretrained(tmp_path))
        qwen = Qwen2_5OmniThinkerForConditionalGeneration(Qwen2_5OmniThinkerConfig(**qwen_settings(tiny=False)))
    assert count(ours) == pytest.approx(8.7, abs=0.5)
    assert count(qwen) == pytest.approx(8.9, abs=0.3)  # what its config.json describes, without the talker


def test_the_prompt_has_all_frames_and_all_sound(tmp_path):
    write_checkpoint(tmp_path, tiny=False)
    processor = AutoProcessor.from_pretrained(tmp_path)
    setting = Setting("cpu", "float32", False, (4,), 30.0, 1, 1, 0.5)
    frames, metadata, samples = setting.clip(4, seed=0)
    inputs = processor(
        text="<vila/video>",
        videos=[(frames, metadata)],
        audio=[(samples, 16_000)],
        audio_from_video_indices=[0],
        load_audio_from_video=True,
        return_tensors="pt",
    )
    assert inputs["pixel_values_videos"].shape == (4, 3, 448, 448)
    assert 4 * 256 + 750 <= inputs["input_ids"].shape[1] <= 4 * 256 + 750 + 8
