"""Checkpoints and engines for the tests of the plug-in for vLLM."""

import gc

import pytest
import torch
from transformers import AutoModel, AutoProcessor
from vllm import LLM, SamplingParams

from engines.vllm.widened import widen_checkpoint
from tests.conftest import PARITY
from transformers_omnivinci import NANO
from transformers_omnivinci.conversion import convert

OPTIONS = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 4096,
    "max_num_seqs": 16,
    "block_size": 32,
    "num_gpu_blocks_override": 512,
    "disable_log_stats": False,
}


def greedy(max_tokens: int = 12, **options) -> SamplingParams:
    """Greedy decoding, as the references are decoded."""
    return SamplingParams(temperature=0, max_tokens=max_tokens, **options)


def tokens_of(outputs) -> list[list[int]]:
    """The generated tokens of each request."""
    return [list(output.outputs[0].token_ids) for output in outputs]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Folders of the parity checkpoints with wider heads, by name and layout."""
    folder, made = tmp_path_factory.mktemp("checkpoints"), {}

    def find(name: str, layout: str = "published"):
        published = folder / "published" / name
        if not published.exists():
            widen_checkpoint(PARITY / name, published)
        if layout == "transformers" and (name, layout) not in made:
            convert(published, folder / "transformers" / name)
            made[name, layout] = True
        return folder / layout / name

    return find


@pytest.fixture(scope="session")
def engines():
    """Engines by checkpoint and options, made once."""
    made = {}

    def find(path, **options) -> LLM:
        key = (str(path), repr(sorted(options.items())))
        if key not in made:
            made[key] = LLM(str(path), **OPTIONS | options)
        return made[key]

    yield find
    made.clear()
    gc.collect()


@pytest.fixture(scope="session")
def references():
    """Model and processor of a checkpoint in transformers, in float32, loaded once."""
    loaded = {}

    def find(path):
        if str(path) not in loaded:
            model = AutoModel.from_pretrained(path, dtype=torch.float32)
            loaded[str(path)] = model, AutoProcessor.from_pretrained(path)
        return loaded[str(path)]

    return find


@pytest.fixture(scope="session")
def nano(engines):
    """nano in vLLM, which may read any file of this machine."""
    return engines(NANO, allowed_local_media_path="/")
