"""The plug-ins for engines, as far as they need no engine: media one by one, options, and what engines are told."""

import importlib.metadata
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformers_omnivinci.checkpoint_formats import loader_of
from transformers_omnivinci.inference import vllm as plugin
from transformers_omnivinci.inference.vllm.items import (
    RUNS,
    TENSORS,
    ids_of,
    in_order,
    is_embedding,
    item_of,
    media_of,
)
from transformers_omnivinci.inference.vllm.requests import check_counts, merge_options, sort_sounds
from transformers_omnivinci.inference.vllm.versions import check_version
from transformers_omnivinci.nano import NANO
from transformers_omnivinci.processing.one_medium import read_medium
from transformers_omnivinci.weight_files import open_folder

from .conftest import CASES, CLIP, PARITY
from .parity import load_case
from .parity import media_of as case_media

IDS = {"image": 1, "video": 2, "audio": 3}


def items_of(case, tensors, processor):
    """The media of a case, read one by one in the order of the prompt: (modality, item)."""
    media = case_media(case, tensors)
    images, links = list(media.get("images", ())), media.get("audio_from_video_indices", [None] * 99)
    videos = list(zip(media.get("videos", ()), media.get("video_metadata", ()), strict=True))
    clips = [clip for clip, link in zip(media.get("audio", ()), links, strict=False) if link is None]
    tracks = {link: clip for clip, link in zip(media.get("audio", ()), links, strict=False) if link is not None}
    whole = processor.image_processor.whole_image_options if len(images) > 1 else {}
    places, read = dict.fromkeys(RUNS, 0), []
    for item in case["content"]:
        modality = item["type"]
        if modality not in places:
            continue
        place, track, options = places[modality], None, {}
        places[modality] += 1
        if modality == "video":
            track, options = tracks.get(place), {"load_audio_from_video": place in tracks}
        source = {"image": images, "video": videos, "audio": clips}[modality][place]
        options |= whole if modality == "image" else {}
        read.append((modality, item_of(*read_medium(processor, modality, source, track, **options))))
    return read


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_media_read_one_by_one_make_the_sequence_of_the_released_code(load_checkpoint, name):
    """What an engine does: ids in the place of placeholders, and embeddings of each medium in the order of its ids."""
    case, tensors = load_case(name)
    model, processor = load_checkpoint(case["checkpoint"])
    read, token_ids = items_of(case, tensors, processor), processor.layout.token_ids
    embeddings = []
    for modality in RUNS:
        items = [item for one, item in read if one == modality]
        if not items:
            continue
        columns = {name: [item[name] for item in items] for name in TENSORS[modality]}
        encoded = model.encode_media(**media_of(modality, columns))
        own = list(encoded[modality].pooler_output)
        if modality == "video":
            tracks = iter(encoded["audio"].pooler_output if "audio" in encoded else ())
            sounds = [next(tracks) if len(item["track_features"]) else None for item in items]
            own = [
                in_order(item[RUNS["video"]], token_ids, *pair) for item, *pair in zip(items, own, sounds, strict=True)
            ]
        embeddings.append((modality, iter(own)))
    prompt = case["prompt_with_placeholders"].replace("<sound><vila/video>", "<vila/video>")
    ids, masks, order = [], [], [modality for modality, _ in read]
    waiting = iter(read)
    for token in processor.tokenizer(prompt)["input_ids"]:
        if token in token_ids.values():
            modality, item = next(waiting)
            assert token == token_ids[modality]
            ids += ids_of(item[RUNS[modality]])
            masks.append(is_embedding(ids_of(item[RUNS[modality]]), token_ids))
        else:
            ids.append(token)
            masks.append(torch.tensor([False]))
    sequence = model.get_input_embeddings()(torch.tensor(ids)).clone()
    by_modality = dict(embeddings)
    placed = [next(by_modality[modality]) for modality in order]
    if placed:
        sequence[torch.cat(masks)] = torch.cat(placed)
    expected = tensors["expected.inputs_embeds"]
    assert len(ids) == case["sequence_length"] == len(expected)
    torch.testing.assert_close(sequence, expected, atol=1e-3, rtol=0)


def test_an_item_survives_being_stacked_and_cast(load_checkpoint):
    _, processor = load_checkpoint("published-tiny")
    plan, media = read_medium(processor, "video", CLIP, load_audio_from_video=True, num_frames=3)
    item = item_of(plan, media, torch.bfloat16)
    assert item["pixel_values_videos"].dtype == item["track_features"].dtype == torch.bfloat16
    assert item["video_timestamps"].dtype == item["track_timestamps"].dtype == torch.float32
    stacked = media_of("video", {name: torch.stack([tensor, tensor]) for name, tensor in item.items()})
    assert stacked["video_timestamps"].shape == (2, 3)
    assert stacked["audio_num_windows"].tolist() == [len(item["track_features"])] * 2
    assert len(stacked["input_features"]) == 2 * len(item["track_features"])


def test_videos_with_and_without_sound_share_a_batch(load_checkpoint):
    model, processor = load_checkpoint("published-tiny")
    silent, heard = (
        item_of(*read_medium(processor, "video", CLIP, load_audio_from_video=wanted, num_frames=2))
        for wanted in (False, True)
    )
    columns = {name: [silent[name], heard[name]] for name in TENSORS["video"]}
    with torch.no_grad():
        encoded = model.encode_media(**media_of("video", columns))
    assert (len(encoded["video"].pooler_output), len(encoded["audio"].pooler_output)) == (2, 1)


def test_embeddings_that_do_not_fit_their_placeholders_are_refused():
    runs = torch.tensor([[IDS["video"], 2], [9, 1], [IDS["audio"], 1]])
    picture, sound = torch.zeros(2, 4), torch.ones(1, 4)
    assert in_order(runs, IDS, picture, sound)[:, 0].tolist() == [0, 0, 1]
    for wrong in ((picture[:1], sound), (picture, None)):
        with pytest.raises(ValueError, match="2 placeholders of its picture and 1 of its sound"):
            in_order(runs, IDS, *wrong)


def test_one_of_several_images_is_a_single_tile(processor):
    image = np.zeros((60, 300, 3), np.uint8)
    alone, _ = read_medium(processor, "image", image)
    whole, media = read_medium(processor, "image", image, **processor.image_processor.whole_image_options)
    assert alone.length > whole.length
    assert media["image_grid_hw"].tolist() == [[1, 1]] and len(media["pixel_values"]) == 1
    expected = processor.image_processor([[image, image]])["pixel_values"][:1]
    assert torch.equal(media["pixel_values"], expected)


def test_sound_that_was_asked_for_is_not_lost_silently(processor):
    frames = (np.zeros((4, 20, 30, 3), np.uint8), {"fps": 2.0})
    with pytest.raises(ValueError, match="asks for the sound"):
        read_medium(processor, "video", frames, load_audio_from_video=True)
    plan, _ = read_medium(processor, "video", frames, np.zeros(16_000, np.float32), load_audio_from_video=True)
    assert plan.windows is not None
    assert read_medium(processor, "video", frames)[0].windows is None


@pytest.mark.parametrize(
    ("given_options", "expected"),
    [
        ([{}, {"use_audio_in_video": True}], {"load_audio_from_video": True}),
        ([{"load_audio_from_video": True}, {}], {"load_audio_from_video": True}),
        ([{"use_audio_in_video": True}, {"load_audio_from_video": False}], {"load_audio_from_video": False}),
        ([{"num_frames": 8}, {"fps": 2.0}], {"fps": 2.0}),
        ([{"fps": 2.0}, {"num_frames": 8}], {"num_frames": 8}),
        ([{"videos_kwargs": {"num_frames": 8}}, {"num_frames": 4}], {"num_frames": 4}),
    ],
    ids=str,
)
def test_options_of_a_request_win_over_those_of_the_engine(given_options, expected):
    assert merge_options([{}, {}], given_options) == {"videos_kwargs": expected}


def test_options_of_media_are_understood_and_give_way():
    media = [{"video": {"num_frames": 32, "video_backend": "opencv"}}, {"video": {"fps": 1.0}}]
    assert merge_options(media, [{}, {}]) == {"videos_kwargs": {"fps": 1.0}}
    assert merge_options(media, [{}, {"num_frames": 3}]) == {"videos_kwargs": {"num_frames": 3}}
    everything = merge_options([{}, {"video": {"num_frames": -1, "fps": -1}}], [{}, {}])
    assert everything == {"videos_kwargs": {"do_sample_frames": False}}
    assert merge_options([{}, {}], [{"images_kwargs": {"max_tiles": 3}}, {"audio_backend": "pyav"}]) == {
        "images_kwargs": {"max_tiles": 3},
        "audio_backend": "pyav",
    }


@pytest.mark.parametrize(
    ("media", "options", "said"),
    [
        ({"video": {"num_frame": 3}}, {}, "num_frame.*`num_frames`"),
        ({}, {"load_audio_from_video": True, "use_audio_in_video": False}, "one of the two"),
        ({}, {"use_audio_in_video": "yes"}, "True or False"),
        ({}, {"num_frames": 3, "videos_kwargs": {"num_frames": 4}}, "beside it"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(media, options, said):
    with pytest.raises(ValueError, match=said):
        merge_options([{}, media], [{}, options])


@pytest.mark.parametrize(
    ("ids", "num_sounds", "hears", "expected"),
    [
        ([9, 2, 9], 0, True, ([9, 2, 9], [])),
        ([9, 2, 9], 1, True, ([9, 2, 9], [0])),
        ([9, 3, 2, 9], 1, True, ([9, 2, 9], [0])),
        ([9, 3, 2, 9], 0, True, ([9, 2, 9], [])),
        ([3, 9, 2, 9], 1, True, ([3, 9, 2, 9], [None])),
        ([3, 9, 2, 9], 2, True, ([3, 9, 2, 9], [None, 0])),
        ([2, 9, 3, 2], 3, True, ([2, 9, 3, 2], [0, None, 1])),
        ([3, 2, 9, 3, 2], 2, True, ([2, 9, 2], [0, 1])),
        ([3, 2], 1, False, ([3, 2], [None])),
        ([3], 1, True, ([3], [None])),
    ],
    ids=str,
)
def test_sounds_are_clips_of_their_own_or_tracks(ids, num_sounds, hears, expected):
    assert sort_sounds(ids, IDS, num_sounds, hears) == expected


@given(st.lists(st.sampled_from([1, 2, 3, 9]), max_size=12), st.booleans())
def test_as_many_sounds_as_placeholders_and_videos_all_find_a_place(ids, hears):
    given_sounds = ids.count(3) + (ids.count(2) if hears else 0)
    prompt, links = sort_sounds(ids, IDS, given_sounds, hears)
    assert len(links) == given_sounds
    own = {"audio": links.count(None), "video": ids.count(2), "image": ids.count(1)}
    check_counts(prompt, IDS, own)
    assert sorted(link for link in links if link is not None) == list(range(len(links) - links.count(None)))


def test_media_without_placeholder_and_placeholders_without_medium_are_refused():
    check_counts([1, 9, 3], IDS, {"image": 1, "audio": 1})
    with pytest.raises(ValueError, match="1 placeholders of image, but 2"):
        check_counts([1], IDS, {"image": 2})
    with pytest.raises(ValueError, match="load_audio_from_video"):
        check_counts([2], IDS, {"video": 1, "audio": 1})


def test_versions_that_are_too_old_are_named_with_those_that_work():
    with pytest.raises(ImportError, match=r"0\.30\.1 is too old.*0\.31 to 0\.32"):
        check_version("0.30.1")
    for accepted in ("0.31.0", "0.32.0+cpu", "1.0", "0.1.dev9+g1234", "dev"):
        check_version(accepted)


def test_vllm_is_told_the_model_by_name_once(monkeypatch):
    told = {}
    registry = SimpleNamespace(get_supported_archs=lambda: told, register_model=told.__setitem__)
    engine = ModuleType("vllm")
    engine.ModelRegistry = registry
    monkeypatch.setitem(sys.modules, "vllm", engine)
    plugin.register()
    plugin.register()
    assert list(told) == ["OmniVinciForConditionalGeneration"]
    module, _, name = told["OmniVinciForConditionalGeneration"].partition(":")
    assert importlib.util.find_spec(module) and name == "OmniVinciForConditionalGeneration"


def test_the_entry_point_leads_to_it_and_imports_nothing_heavy():
    [entry] = [one for one in importlib.metadata.entry_points(group="vllm.general_plugins") if one.name == "omnivinci"]
    assert entry.value == f"{plugin.__name__}:register"
    code = f"import sys, {plugin.__name__}; print(sorted({{'torch', 'transformers', 'vllm'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["published-tiny", "published-tiny-maxpool", "published-tiny-short-groups"])
def test_engines_find_every_weight_of_the_published_layout(load_checkpoint, name):
    model, _ = load_checkpoint(name)
    loader, found = loader_of(PARITY / name), {}
    for folder in loader.weight_folders():
        for key, tensor in open_folder(PARITY / name / folder).items():
            found[loader.weight_name(folder, key, model.config)] = tuple(tensor.shape)
    found.pop(None, None)
    assert found == {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert loader_of(NANO) is None
