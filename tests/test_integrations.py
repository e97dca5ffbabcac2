"""Plug-ins of fine-tuning frameworks, as far as they need no framework. `engines/` has the tests with them."""

import importlib
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoProcessor

from transformers_omnivinci import NANO
from transformers_omnivinci.integrations.frameworks import check_media, describe_row, read_options, require_framework
from transformers_omnivinci.integrations.media import (
    encode_media,
    fill_slots,
    find_slots,
    order_media,
    placeholder_ids,
    plan_media,
)
from transformers_omnivinci.integrations.rows import main, write_rows
from transformers_omnivinci.processing.batch import select_media
from transformers_omnivinci.processing.prompts import TOKENS

from .chats import chat, write
from .conftest import CLIP
from .media_samples import image, sound

IMAGE, VIDEO, AUDIO = 3, 4, 5
PLACEHOLDER_IDS = {IMAGE: "image", VIDEO: "video", AUDIO: "audio"}


@pytest.fixture(scope="module")
def nano():
    return AutoProcessor.from_pretrained(NANO)


@pytest.mark.parametrize("hears", [True, False])
def test_media_take_the_places_that_they_have_in_a_chat(nano, hears):
    half = [("audio", sound()), ("video", CLIP), ("image", image())]
    media = [*half, *half[1:], half[0]]
    content = [{"type": modality, modality: source} for modality, source in media]
    content = [one for item in content for one in (item, {"type": "text", "text": "\n\nWhat?"})]
    options = {"load_audio_from_video": hears, "num_frames": 4}
    chats = [{"role": "user", "content": content}]
    expected = nano.apply_chat_template(chats, tokenize=True, return_dict=True, return_tensors="pt", **options)
    places, tensors = encode_media(nano, media, **options)
    assert plan_media(nano, media, **options) == places
    placeholders = placeholder_ids(nano)
    text = nano.tokenizer(nano.apply_chat_template(chats))["input_ids"]
    slots = find_slots(text, len(media), placeholders)
    assert fill_slots(text, slots, places) == expected["input_ids"][0].tolist()
    assert tensors.keys() == select_media(expected).keys()
    assert all((tensors[name] == expected[name]).all() for name in tensors)
    grouped = {name: [place for (one, _), place in zip(media, places) if one == name] for name in TOKENS}
    assert order_media(expected["input_ids"][0].tolist(), grouped, placeholders) == [name for name, _ in media]


def test_text_alone_has_no_media(nano):
    assert (plan_media(nano, []), encode_media(nano, [])) == ([], ([], {}))


def test_what_is_filled_in_has_one_value_for_each_token():
    assert fill_slots([7, IMAGE, 8, AUDIO], [1, 3], [[IMAGE, IMAGE, 1], [AUDIO]]) == [7, IMAGE, IMAGE, 1, 8, AUDIO]
    assert fill_slots([0, -100, 8, -100], [1, 3], [[IMAGE, IMAGE, 1], [AUDIO]], -100) == [0, -100, -100, -100, 8, -100]
    with pytest.raises(ValueError, match="2 placeholders .* 1 media"):
        find_slots([7, IMAGE, 8, AUDIO], 1, PLACEHOLDER_IDS)


def places_of(*tokens: int):
    """Places of a medium: its placeholders with boundary tokens between and around them."""
    run = st.lists(st.sampled_from(tokens), min_size=1, max_size=4)
    return st.builds(
        lambda start, runs, end: [*start, *(token for one in runs for token in [*one, 1]), *end],
        *(st.lists(st.just(1), max_size=2), st.lists(run, min_size=1, max_size=3), st.lists(st.just(1), max_size=2)),
    )


MEDIUM = st.one_of(
    st.tuples(st.just("image"), places_of(IMAGE)),
    st.tuples(st.just("video"), places_of(VIDEO, AUDIO)),
    st.tuples(st.just("audio"), places_of(AUDIO)),
)


@given(st.lists(MEDIUM, max_size=6), st.lists(st.lists(st.sampled_from([1, 9]), max_size=3), min_size=7, max_size=7))
def test_an_order_is_found_that_gives_the_sequence(media, texts):
    def write_out(ordered):
        return [token for text, place in zip(texts, [*ordered, []]) for token in [*text, *place]]

    ids = write_out([place for _, place in media])
    grouped = {name: [place for one, place in media if one == name] for name in TOKENS}
    left = {name: iter(found) for name, found in grouped.items()}
    order = order_media(ids, grouped, PLACEHOLDER_IDS)
    assert sorted(order) == sorted(name for name, _ in media)
    marks = [token for token in ids if token in PLACEHOLDER_IDS]
    assert [token for name in order for token in next(left[name]) if token in PLACEHOLDER_IDS] == marks


def test_media_that_do_not_fill_a_row_are_refused():
    with pytest.raises(ValueError, match=r"a row of 3 tokens are not those of its media \(1 image inputs\)"):
        order_media([9, IMAGE, IMAGE], {"image": [[IMAGE, IMAGE, IMAGE]]}, PLACEHOLDER_IDS)
    with pytest.raises(ValueError, match="none"):
        order_media([9, IMAGE], {"image": []}, PLACEHOLDER_IDS)


@pytest.mark.parametrize(
    ("texts", "media", "match"),
    [
        (["<video>a"], {}, "Row 1 has 1 <video> in its messages, but 0 in `videos`"),
        (["a"], {"image": ["a.png"]}, "Row 1 has 0 <image> in its messages, but 1 in `images`"),
        (["<audio>", "<audio>"], {"audio": ["a.wav"]}, "2 <audio> .* 1 in `audios`"),
        (["<vila/video>"], {"video": ["a.mp4"]}, "holds <vila/video> in a text"),
    ],
)
def test_rows_whose_media_do_not_match_are_named(texts, media, match):
    with pytest.raises(ValueError, match=match):
        check_media(texts, media, "Row 1")


def test_rows_are_called_by_what_is_known_of_them():
    assert describe_row(["What?"], {"video": ["a.mp4"]}, "7") == "The row 7"
    assert describe_row(["", "What?"], {"video": ["a.mp4"], "image": None}) == "The row 'What?' about a.mp4"
    assert describe_row([], {"audio": ["a.wav", "b.wav"], "image": [b""]}) == "The row about a.wav, b.wav"


def test_options_come_from_the_environment_and_from_settings(monkeypatch):
    assert read_options() == {}
    monkeypatch.setenv("NUM_FRAMES", "8")
    monkeypatch.setenv("USE_AUDIO_IN_VIDEO", "true")
    assert read_options() == {"num_frames": 8, "load_audio_from_video": True}
    given = {"num_frames": 4, "load_audio_from_video": False, "enable_thinking": None}
    assert read_options(given) == {"num_frames": 4, "load_audio_from_video": False}
    with pytest.raises(ValueError, match="are one option"):
        read_options({"use_audio_in_video": True, "load_audio_from_video": False})
    for name, value in (("NUM_FRAMES", "many"), ("FPS", "fast"), ("USE_AUDIO_IN_VIDEO", "perhaps")):
        monkeypatch.setenv(name, value)
        with pytest.raises(ValueError, match=f"`{name.lower()}` is '{value}'"):
            read_options()
        monkeypatch.delenv(name)


def test_versions_of_frameworks_are_checked(monkeypatch):
    require_framework("torch", ">=2")
    with pytest.raises(ImportError, match=r"no-framework is not installed: pip install 'no-framework>=1'"):
        require_framework("no-framework", ">=1")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.12.6")
    for module, supported in (("ms_swift", r"ms-swift >=4\.6,<4\.7 is"), ("llamafactory", r">=0\.9\.5,<0\.9\.6 is")):
        with pytest.raises(ImportError, match=rf"3\.12\.6 is not supported .* {supported}"):
            importlib.import_module(f"transformers_omnivinci.integrations.{module}")


def test_the_folder_of_the_plug_ins_is_printed():
    command = [sys.executable, "-m", "transformers_omnivinci.integrations"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (Path(printed.strip()) / "ms_swift.py").is_file()


def test_chats_are_written_as_rows_of_frameworks(tmp_path, capsys):
    rows = [
        {**chat("Yes.", {"type": "video", "path": "a.mp4"}, {"type": "audio", "path": "a.wav"}), "id": "one"},
        chat("No."),
    ]
    source, target = write(tmp_path / "chats.jsonl", *rows), tmp_path / "rows.jsonl"
    main([str(source), str(target)])
    assert capsys.readouterr().out == f"{target}: 2 rows.\n"
    first, second = map(json.loads, target.read_text().splitlines())
    assert first == {
        "id": "one",
        "messages": [{"role": "user", "content": "<video><audio>What?"}, {"role": "assistant", "content": "Yes."}],
        "images": [],
        "videos": [str(tmp_path / "a.mp4")],
        "audios": [str(tmp_path / "a.wav")],
    }
    assert second["id"] == f"{source}:2" and second["messages"][0]["content"] == "What?"


@pytest.mark.parametrize(
    ("item", "match"),
    [
        ({"type": "text", "text": "a <video>"}, "chats.jsonl:1: a text of it, 'a <video>', holds a tag"),
        ({"type": "video", "path": "a.mp4", "video_end": 2.0}, "chats.jsonl:1: a medium of it .* without options"),
    ],
)
def test_what_rows_of_frameworks_cannot_hold_is_refused(item, match, tmp_path):
    source, target = write(tmp_path / "chats.jsonl", chat("Yes.", item)), tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match=match):
        write_rows(source, target)
    with pytest.raises(SystemExit, match="Error: "):
        main([str(source), str(target)])
    assert not target.exists()


def test_trainers_may_ask_for_fast_classes():
    assert AutoProcessor.from_pretrained(NANO, use_fast=True).tokenizer.is_fast
