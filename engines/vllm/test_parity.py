"""What the released code generated, vLLM generates: every parity case, in both layouts."""

import pytest

from engines.vllm.conftest import greedy, tokens_of
from tests.conftest import CASES
from tests.parity import load_case, media_of, write_media

LAYOUTS = ("published", "transformers")
CHECKPOINTS = sorted({case["checkpoint"] for case in CASES.values()})


def names_of(checkpoint):
    return [name for name, case in CASES.items() if case["checkpoint"] == checkpoint]


def request_of(name):
    """A case as `LLM.generate` takes it: frames and samples that are decoded already."""
    case, tensors = load_case(name)
    media = media_of(case, tensors)
    data = {"image": media.get("images"), "audio": media.get("audio")}
    if "videos" in media:
        data["video"] = list(zip(media["videos"], media["video_metadata"], strict=True))
    request = {
        "prompt": case["prompt_with_placeholders"],
        "multi_modal_data": {modality: given for modality, given in data.items() if given},
        "mm_processor_kwargs": {"load_audio_from_video": media.get("load_audio_from_video", False)},
    }
    return request, tensors["expected.generated_ids"].tolist(), case["sequence_length"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_tokens_are_those_of_the_released_code(checkpoint, layout, checkpoints, engines):
    engine = engines(checkpoints(checkpoint, layout))
    requests, expected, lengths = zip(*map(request_of, names_of(checkpoint)), strict=True)
    outputs = engine.generate(list(requests), greedy(ignore_eos=True), use_tqdm=False)
    assert [len(output.prompt_token_ids) for output in outputs] == list(lengths)
    assert tokens_of(outputs) == list(expected)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_files_give_the_same_tokens_as_decoded_media(checkpoint, checkpoints, engines, tmp_path):
    engine = engines(checkpoints(checkpoint))
    for name in names_of(checkpoint):
        (tmp_path / name).mkdir()
        request, expected, _ = request_of(name)
        files = write_media(tmp_path / name, *load_case(name))
        names = {"image": "images", "video": "videos", "audio": "audio"}
        data = {modality: files[key] for modality, key in names.items() if key in files}
        options = {key: files[key] for key in ("num_frames", "load_audio_from_video") if key in files}
        request |= {"multi_modal_data": data, "mm_processor_kwargs": options}
        [output] = engine.generate(request, greedy(ignore_eos=True), use_tqdm=False)
        assert list(output.outputs[0].token_ids) == expected, name
