"""What `omnivinci quantize` makes, in vLLM: it answers held-out clips as nano does."""

import os
import subprocess
import sys

import pytest

from engines.vllm.asking import messages_of
from engines.vllm.conftest import greedy
from transformers_omnivinci import NANO
from transformers_omnivinci.evaluation.synthetic import chat_of, read_rows, score_answers
from transformers_omnivinci.quantization.recipes import QUANTIZATION_RECIPES
from transformers_omnivinci.synthetic import CLOSED_TYPES, SyntheticDataset, write_dataset

INT8, INT4, FLOAT8 = "W8A8Int8", "WNA16", "W8A8Fp8"
SCHEMES = {"paper": (INT8, INT4), "w4a16": (None, INT4), "w8a8": (INT8, INT8), "fp8": (FLOAT8, FLOAT8)}
"""How the names of vLLM's schemes end, of the image encoder and the language model. `None`: not quantized."""


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("calibration"), SyntheticDataset("train", 16, seed=8))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("clips"), SyntheticDataset("test", 24, 7, types=CLOSED_TYPES))


@pytest.fixture(scope="module")
def ask_all(engines, clips):
    """A checkpoint in vLLM, in bfloat16 as its kernels for 4 bits on CPUs demand, and its answers to all questions."""
    chats = [messages_of(chat_of(row, clips.parent)) for row in read_rows(clips)]

    def ask(folder):
        engine = engines(folder, dtype="bfloat16", allowed_local_media_path="/")
        options = {"mm_processor_kwargs": {"load_audio_from_video": True}, "use_tqdm": False}
        outputs = engine.chat(chats, greedy(16), **options)
        return engine, [output.outputs[0].text.strip() for output in outputs]

    return ask


@pytest.fixture(scope="module")
def answers_of_nano(ask_all):
    return ask_all(NANO)[1]


def schemes(model):
    """Names of how vLLM runs a linear layer of the encoders and of the language model, `None` where not quantized."""
    layers = (
        model.vision_tower.encoder.layers[0].mlp.fc1,
        model.language_model.model.layers[0].mlp.down_proj,
    )
    found = (getattr(layer, "scheme", None) for layer in layers)
    return tuple(scheme and type(scheme).__name__ for scheme in found)


@pytest.mark.parametrize("recipe", QUANTIZATION_RECIPES)
def test_a_checkpoint_of_the_command_answers_as_nano_does(
    recipe, ask_all, answers_of_nano, calibration, clips, tmp_path
):
    command = [sys.executable, "-m", "transformers_omnivinci.cli", "quantize", NANO, tmp_path / recipe]
    command += ["--recipe", recipe, "--calibration", calibration, "--device", "cpu"]
    # The environment with llm-compressor stands upon this one, and goes with it.
    variables = os.environ | {"OMNIVINCI_CACHE": os.path.join(sys.prefix, "omnivinci")}
    done = subprocess.run(list(map(str, command)), env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Runs llm-compressor" in done.stderr and "Quantized" in done.stdout
    engine, answers = ask_all(tmp_path / recipe)
    [run] = engine.apply_model(schemes)
    for scheme, expected in zip(run, SCHEMES[recipe], strict=True):
        assert scheme is None if expected is None else scheme.endswith(expected)
    rows = read_rows(clips)
    right = sum(score.accuracy * score.num_questions for score in score_answers(rows, answers))
    same = sum(one == other for one, other in zip(answers, answers_of_nano, strict=True))
    print(f"{recipe}: {run}, {same} of {len(rows)} answers are those of nano, {right:.0f} are right")
    assert same >= len(rows) - 3
