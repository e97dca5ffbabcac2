"""What pipelines remember: media by their content, prompts by what stands in them, in bounded bytes."""

import copy
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import pipeline

from transformers_omnivinci.media import is_self_contained
from transformers_omnivinci.modeling import OmniVinciModel
from transformers_omnivinci.sessions.prefix import Prefix
from transformers_omnivinci.sessions.prefix_tree import OVERHEAD, PrefixTree, join_layers

from .media_files import image_bytes
from .media_samples import audio_item, image, image_item, user, video_item

pytestmark = pytest.mark.compat

CLIP_ITEM = {"type": "video", "path": "set by a fixture"}
SILENT = {"num_frames": 4, "load_audio_from_video": False}
SHORT = {**SILENT, "max_new_tokens": 5, "return_tensors": True}
SOUNDING = {**SHORT, "load_audio_from_video": True}
CHATS = {
    "an image": user(image_item(), "What?"),
    "two images": user(image_item(), image_item(seed=2), "Same?"),
    "a file": user(CLIP_ITEM, "What?"),
    "frames": user(video_item(num_frames=7), "Which colours?"),
    "everything": user(image_item(), CLIP_ITEM, "Before?", audio_item(), "And after?"),
    "text": user("Hi"),
    "an answer begun": [*user(CLIP_ITEM, "Count."), {"role": "assistant", "content": "One, two,"}],
}


@pytest.fixture(autouse=True)
def path(clip):
    """A small clip with sound, which is that of `CLIP_ITEM`."""
    CLIP_ITEM["path"] = str(clip("plain.mp4"))
    return CLIP_ITEM["path"]


@pytest.fixture
def make(model, processor):
    return lambda **options: pipeline("video-text-to-text", model=model, processor=processor, device="cpu", **options)


@pytest.fixture
def pipe(make):
    return make()


@pytest.fixture
def off(make):
    return make(cache_gb=0)


@pytest.fixture
def work(monkeypatch, processor):
    """How often anything was decoded, and how many media were encoded."""
    done = {"read": 0, "encoded": 0}
    call, encode = type(processor).__call__, OmniVinciModel.encode_media

    def read(self, *args, **kwargs):
        done["read"] += 1
        return call(self, *args, **kwargs)

    def encode_media(self, **media):
        done["encoded"] += bool(media.keys() & {"pixel_values", "pixel_values_videos", "input_features"})
        return encode(self, **media)

    monkeypatch.setattr(type(processor), "__call__", read)
    monkeypatch.setattr(OmniVinciModel, "encode_media", encode_media)
    return done


def ids(records) -> list[int]:
    [record] = records
    return record["generated_token_ids"].tolist()


def forwards(pipe, chat, **options):
    """The answer to a chat, and how much of its prompt was cached."""
    outputs = pipe.forward(pipe.preprocess(copy.deepcopy(chat), remember=True, **SILENT, **options))
    return outputs["generated_sequence"].flatten().tolist(), outputs["cached_tokens"]


@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)
def test_answers_are_those_without_it(pipe, off, chat):
    expected = ids(off(chat, **SOUNDING))
    for _ in range(2):
        assert ids(pipe(chat, **SOUNDING)) == expected
    if chat[-1]["role"] == "user":
        other = user(*chat[-1]["content"][:-1], "Why?")
        assert ids(pipe(other, **SOUNDING)) == ids(off(other, **SOUNDING))
    assert off.memory.num_bytes == 0


def test_a_file_is_neither_decoded_nor_encoded_nor_read_again(pipe, work, path):
    for question in ("What?", "Why?"):
        pipe(path, text=question, **SHORT)
        assert work == {"read": 1, "encoded": 1}
    _, cached = forwards(pipe, user({"type": "video", "video": path}, "When?"))
    length = pipe.processor.count_tokens(user(CLIP_ITEM, "When?"), **SILENT)
    assert length - 12 < cached < length and work == {"read": 1, "encoded": 1}
    pipe(path, text="What?", remember=False, **SHORT)
    assert work == {"read": 2, "encoded": 2}


def test_what_is_no_file_is_recognised_by_what_it_becomes(pipe, work):
    for _ in range(2):
        pipe(CHATS["frames"], **SHORT)
    assert work == {"read": 2, "encoded": 1}


def test_the_next_turn_goes_on_from_the_answer(pipe, off):
    chat = user(CLIP_ITEM, "What?")
    [record] = pipe(chat, max_new_tokens=5, **SILENT)
    further = [*record["generated_text"], *user("And then?")]
    said, cached = forwards(pipe, further, sanitize_control_tokens=True)
    assert cached >= pipe.processor.count_tokens(chat, **SILENT)
    assert said == off.forward(off.preprocess(further, **SILENT))["generated_sequence"].flatten().tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"fps": 0.5},
        {"num_frames": 4, "video_start": 2.0},
        {"num_frames": 4, "load_audio_from_video": False},
        {"num_frames": 4, "processor_kwargs": {"videos_kwargs": {"do_normalize": False}}},
    ],
    ids=str,
)
def test_other_options_are_other_media(pipe, off, options):
    chat = user(CLIP_ITEM, "What?")
    for chosen in ({"num_frames": 4}, options, {"num_frames": 4}, options):
        answer = pipe(chat, max_new_tokens=5, return_tensors=True, **chosen)
        assert ids(answer) == ids(off(chat, max_new_tokens=5, return_tensors=True, **chosen))
    assert pipe.memory.usage()["media"] == 2


def test_other_settings_are_other_media(make, model, processor, path):
    processor = copy.deepcopy(processor)
    pipe = pipeline("video-text-to-text", model=model, processor=processor, device="cpu")
    lengths = []
    for num_frames in (3, 5):
        processor.video_processor.num_frames = num_frames
        lengths.append(len(ids(pipe(path, text="What?", max_new_tokens=1, return_tensors=True))))
    assert lengths[0] < lengths[1]


def test_a_name_tells_nothing(pipe, off, tmp_path, work):
    path = tmp_path / "a.png"
    for seed in (1, 2):
        path.write_bytes(image_bytes(image(seed=seed)))
        chat = user({"type": "image", "path": str(path)}, "What?")
        assert ids(pipe(chat, max_new_tokens=5, return_tensors=True)) == ids(
            off(chat, max_new_tokens=5, return_tensors=True)
        )
        shutil.copy(path, tmp_path / f"{seed}.png")
    done = dict(work)
    for name in ("1.png", "2.png"):
        pipe(user({"type": "image", "path": str(tmp_path / name)}, "What?"), max_new_tokens=5)
    assert work == done and pipe.memory.usage()["media"] == 2


def test_lists_of_other_files_are_not_recognised_by_their_own_content(pipe, tmp_path, path):
    """The same list names another clip after a while, or none."""
    playlist = tmp_path / "list.ffconcat"
    playlist.write_text("ffconcat version 1.0\nfile part.mp4\n")
    assert is_self_contained(path) and not is_self_contained(playlist)
    part = tmp_path / "part.mp4"
    shutil.copy(path, part)
    assert pipe(str(playlist), text="What?", **SHORT)
    part.unlink()
    with pytest.raises((OSError, ValueError)):
        pipe(str(playlist), text="What?", **SHORT)


def test_weights_that_change_are_seen(fresh, processor, path):
    pipe = pipeline("video-text-to-text", model=fresh, processor=processor, device="cpu")
    off = pipeline("video-text-to-text", model=fresh, processor=processor, device="cpu", cache_gb=0)
    before = ids(pipe(path, text="What?", **SHORT))
    with torch.no_grad():
        for weight in fresh.parameters():
            weight.mul_(1.5)
    after = ids(pipe(path, text="What?", **SHORT))
    assert after == ids(off(path, text="What?", **SHORT)) != before
    pipe.model.train()
    held = pipe.memory.usage()
    pipe(path, text="Why?", **SHORT)
    assert pipe.memory.usage() == held


def test_adapters_that_are_switched_are_seen(fresh, processor, path):
    from peft import LoraConfig, get_peft_model

    pipe = pipeline("video-text-to-text", model=fresh, processor=processor, device="cpu")
    before = ids(pipe(path, text="What?", **SHORT))
    torch.manual_seed(0)
    config = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False, lora_alpha=256)
    adapted = get_peft_model(fresh, config).eval()
    changed = ids(pipe(path, text="What?", **SHORT))
    assert changed != before
    with adapted.disable_adapter():
        assert ids(pipe(path, text="What?", **SHORT)) == before
    assert ids(pipe(path, text="What?", **SHORT)) == changed


def test_evidence_is_remembered(pipe, off, work):
    options = {"max_new_tokens": 2, "num_frames": 4}
    chat = CHATS["everything"]
    pipe(chat, **options)
    told = [pipe(chat, return_evidence=True, **options)[0]["evidence"] for _ in range(2)]
    assert told == [off(chat, return_evidence=True, **options)[0]["evidence"]] * 2


def test_evidence_of_a_file_is_told_without_reading_it(pipe, work, path):
    told = [pipe(path, text="What?", return_evidence=True, **SHORT)[0]["evidence"] for _ in range(2)]
    assert told[0] == told[1] and work == {"read": 1, "encoded": 1}


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"prompt_lookup_num_tokens": 2},
        {"repetition_penalty": 1.3},
        {"stop_sequence": "e"},
    ],
    ids=str,
)
def test_every_way_to_generate(pipe, off, options, path):
    pipe(path, text="Who?", **SHORT)
    expected = [record["generated_token_ids"].tolist() for record in off(path, text="What?", **SHORT, **options)]
    for _ in range(2):
        answers = pipe(path, text="What?", **SHORT, **options)
        assert [record["generated_token_ids"].tolist() for record in answers] == expected
    assert ids(pipe(path, text="When?", **SHORT)) == ids(off(path, text="When?", **SHORT))


def test_sampled_answers(pipe, off, path):
    options = {**SHORT, "do_sample": True, "num_return_sequences": 3, "temperature": 1.5}
    answers = []
    for one in (off, pipe, pipe):
        torch.manual_seed(0)
        answers.append([record["generated_token_ids"].tolist() for record in one(path, text="What?", **options)])
    assert answers[0] == answers[1] == answers[2]


def test_batches_are_answered_as_before(pipe, off):
    chats = [CHATS["a file"], CHATS["an image"], CHATS["a file"]]
    one_by_one = pipe(copy.deepcopy(chats), **SHORT)
    held = pipe.memory.usage()
    assert held["media"] == 2
    batched = pipe(chats, batch_size=3, **SHORT)
    assert list(map(ids, batched)) == list(map(ids, one_by_one)) == list(map(ids, off(chats, **SHORT)))
    assert pipe.memory.usage() == held


def test_bytes_are_bounded_and_those_of_longest_ago_go_first(pipe, off):
    chats = [user(image_item(seed=seed), "What?") for seed in range(5)]
    expected = [ids(off(chat, **SHORT)) for chat in chats]
    pipe(chats[0], **SHORT)
    pipe.memory.max_bytes = most = 3 * pipe.memory.num_bytes
    for _ in range(2):
        for chat, answer in zip(chats, expected, strict=True):
            assert ids(pipe(chat, **SHORT)) == answer
            assert 0 < pipe.memory.num_bytes <= most
            assert pipe.memory.num_bytes == _held_bytes(pipe.memory)
    whole = pipe.processor.count_tokens(chats[-1])
    assert forwards(pipe, chats[-1])[1] == whole - 1
    assert forwards(pipe, chats[0])[1] < whole / 2
    for few in (1, 50_000):
        pipe.memory.max_bytes = few
        assert ids(pipe(chats[2], **SHORT)) == expected[2] and pipe.memory.num_bytes <= few
    pipe.memory.clear()
    assert pipe.memory.num_bytes == 0


def _held_bytes(memory) -> int:
    """Bytes of the storages of all tensors, with the overhead that is counted, and of arrays."""
    nodes, contents = list(memory._tree.nodes()), [kept.content for kept in memory._kept.values()]
    blocks = [block for content in contents for blocks in content.blocks.values() for block in blocks]
    tensors = [tensor for node in nodes for layer in node.layers for tensor in layer]
    tensors += [block.embeddings for block in blocks]
    arrays = [node.keys for node in nodes] + [block.keys for block in blocks]
    arrays += [array for content in contents for array in vars(content.positions).values()]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    assert len(storages) == len(tensors)
    return sum(storages.values()) + OVERHEAD * len(tensors) + sum(array.nbytes for array in arrays)


def test_what_is_kept_is_given_up_where_memory_runs_out(pipe, off, monkeypatch):
    pipe(CHATS["an image"], **SHORT)
    read, failed = Prefix.read, []

    def fails(self, prompt, stop):
        if not failed:
            failed.append(pipe.memory.num_bytes)
            raise torch.OutOfMemoryError("out of memory")
        return read(self, prompt, stop)

    monkeypatch.setattr(Prefix, "read", fails)
    assert ids(pipe(CHATS["a file"], **SHORT)) == ids(off(CHATS["a file"], **SHORT))
    assert failed[0] > 0 and pipe.memory.usage()["media"] == 1


def test_a_copy_is_empty(pipe):
    pipe(CHATS["an image"], **SHORT)
    other = copy.deepcopy(pipe.memory)
    assert other.num_bytes == 0 and other.max_bytes == pipe.memory.max_bytes and other.model is not pipe.model


@pytest.mark.parametrize("cache_gb", [-1, float("nan"), float("inf"), "1", True])
def test_wrong_sizes_are_refused(make, cache_gb):
    with pytest.raises(ValueError, match="`cache_gb=.*is not accepted"):
        make(cache_gb=cache_gb)


# ------------------------------------------------------------------------------------------------------ prefix trees


def layers_of(keys: np.ndarray, num_layers: int = 2):
    """Keys and values which tell of each position all that stands before it."""
    tensor = torch.from_numpy(np.cumsum(keys * np.arange(1, len(keys) + 1))).double()[None, None, :, None]
    return [(tensor.expand(1, 2, -1, 3) + number, tensor.expand(1, 2, -1, 3) - number) for number in range(num_layers)]


prompts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=12)


@given(prompts, st.lists(st.integers(0, 2), min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_a_tree_gives_what_was_read_of_the_longest_beginning(prompts, asked, random):
    tree, held, asked = PrefixTree(), [], np.asarray(asked)
    for now, prompt in enumerate(map(np.asarray, prompts)):
        layers, before = layers_of(prompt), tree.num_bytes
        cost = tree.cost(prompt, layers, now)
        tree.insert(prompt, layers, now)
        assert tree.num_bytes - before <= cost
        held.append(prompt)
        if random.random() < 0.2:
            leaf = min(tree.leaves(), key=lambda node: node.used)
            tree.drop(leaf)
            held = []
    assert tree.num_bytes == sum(node.num_bytes for node in tree.nodes())
    path, length = tree.find(asked, 99)
    common = [
        next((n for n, (a, b) in enumerate(zip(one, asked)) if a != b), min(len(one), len(asked))) for one in held
    ]
    assert length >= max(common, default=0)
    if length:
        for (keys, values), (wanted_keys, wanted_values) in zip(join_layers(path), layers_of(asked), strict=True):
            assert torch.equal(keys, wanted_keys[..., :length, :])
            assert torch.equal(values, wanted_values[..., :length, :])


def test_the_processor_returns_the_plans_of_prompts(processor, path):
    chats = [CHATS["a file"], CHATS["text"]]
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt", **SILENT}
    inputs = processor.apply_chat_template(chats, return_plan=True, **options)
    rows = [row[mask.bool()].tolist() for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    assert [plan.ids() for plan in inputs["plan"]] == rows
    assert "plan" not in processor.apply_chat_template(chats, **options)
