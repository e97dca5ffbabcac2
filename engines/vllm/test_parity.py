"""What the released code generated, vLLM generates: every parity case, in both layouts."""

import pytest

from engines.vllm.asking import answer, ask
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


def test_an_image_is_tiled_only_where_it_is_alone_whatever_is_cached(checkpoints, references, engines, tmp_path):
    path = checkpoints("published-tiny")
    engine = engines(path)
    first, second = [("image", one) for one in write_media(tmp_path, *load_case("two_images"))["images"]]
    chats = [ask("What is this?", *media) for media in ([first], [first, second], [second], [second, first], [first])]
    requests = [
        {"prompt": references(path)[1].apply_chat_template(chat, add_generation_prompt=True), "multi_modal_data": data}
        for chat in chats
        for data in [{"image": [item["image"] for item in chat[0]["content"][:-1]]}]
    ]
    outputs = [engine.generate(request, greedy(), use_tqdm=False)[0] for request in requests]
    assert tokens_of(outputs) == [answer(*references(path), [chat])[0] for chat in chats]
    lengths = [len(output.prompt_token_ids) for output in outputs]
    assert lengths == [plan.length for plan in references(path)[1].plan(chats)]
    assert lengths[0] == lengths[4] > lengths[1] == lengths[3]
