"""Content items of chats, as users of this and of other models write them."""

import base64
import dataclasses
from urllib.parse import quote

import numpy as np
import PIL.Image
import pytest
import torch
from openai.types.chat import ChatCompletionMessage
from transformers import pipeline

from transformers_omnivinci.training.data import BadSample, read_sample
from transformers_omnivinci.training.encoding import SampleEncoder

from .media_files import image_bytes, render_frame, wav_bytes, write_video
from .media_samples import image_item, user

PNG = image_bytes(PIL.Image.fromarray(render_frame(77)))
TEXT = base64.b64encode(PNG).decode()
LINES = "\r\n".join(TEXT[start : start + 76] for start in range(0, len(TEXT), 76))
URL = "data:image/png;base64," + TEXT
WAV = wav_bytes(0.3 * np.sin(np.arange(16_000) / 20))


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    """Four seconds of 12 frames each."""
    return str(write_video(tmp_path_factory.mktemp("items") / "clip.mp4", 48, fps=12))


def prepare(processor, *items, **options):
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "num_frames": 5} | options
    chat = user(*items, "?")
    inputs = processor.apply_chat_template(chat, **options)
    counted = {name: value for name, value in options.items() if name in ("num_frames", "fps", "max_frames")}
    assert processor.count_tokens(chat, add_generation_prompt=False, **counted) == inputs["input_ids"].shape[1]
    return inputs


def seconds(inputs) -> list[list[float]]:
    return [[round(second, 2) for second in row if second >= 0] for row in inputs["video_timestamps"].tolist()]


# Options of an item


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_frames": 2}, [0, 3.92]),
        ({"nframes": 3}, [0, 2, 3.92]),
        ({"num_frames": np.int64(2)}, [0, 3.92]),
        ({"fps": 1}, [0, 1, 2, 3]),
        ({"fps": np.float32(0.5)}, [0, 2]),
        ({"fps": 4.0, "max_frames": 3}, [0, 2, 3.92]),
        ({"max_frames": 2}, [0, 3.92]),
        ({"max_frames": 9, "fps": None}, [0, 1, 2, 2.92, 3.92]),
        ({"fps": 2, "video_start": 1.0, "video_end": 2}, [0, 0.5]),
    ],
    ids=str,
)
def test_options_of_an_item_are_for_it_alone(options, expected, processor, clip):
    item = {"type": "video", "path": clip}
    inputs = prepare(processor, {**item, **options}, item)
    assert seconds(inputs) == [expected, [0, 1, 2, 2.92, 3.92]]
    inputs = prepare(processor, item, {**item, **options}, num_frames=None, fps=1.0)
    assert seconds(inputs)[0] == [0, 1, 2, 3]
    assert len(seconds(inputs)[1]) == len(expected) or "max_frames" in options


def test_options_of_items_hold_for_given_frames_too(processor):
    frames = [PIL.Image.fromarray(render_frame(number)) for number in range(10)]
    item = {"type": "video", "video": (frames, {"fps": 5.0})}
    expected = [[0, 1.8], [0, 1], [0, 0.4, 0.8, 1.4, 1.8]]
    assert seconds(prepare(processor, {**item, "num_frames": 2}, {**item, "fps": 1.0}, item)) == expected
    with pytest.raises(ValueError, match="choose a part of a file"):
        prepare(processor, {**item, "video_start": 1.0})


def test_pipelines_and_training_take_options_of_items(load_checkpoint, clip):
    model, processor = load_checkpoint()
    item = {"type": "video", "path": clip, "fps": 1.0, "video_end": 3.0}
    pipe = pipeline("video-text-to-text", model=model, processor=processor)
    inputs = pipe.preprocess(user(item, "?"), num_frames=5)
    assert seconds(inputs) == [[0, 1, 2]]

    chat = [*user(item, "?"), {"role": "assistant", "content": "Yes."}]
    sample = read_sample({"messages": chat}, "one")
    encoder = SampleEncoder(processor, num_frames=5)
    encoded = encoder.encode(sample)
    assert seconds(encoded) == [[0, 1, 2]] and encoder.measure(sample).length == len(encoded["input_ids"])
    other = read_sample({"messages": [*user({**item, "fps": 2.0}, "?"), chat[-1]]}, "two")
    assert encoder.measure(other).length != encoder.measure(sample).length
    assert not encoder.split(sample).shares_media(encoder.split(other))
    assert encoder.split(sample).shares_media(encoder.split(read_sample({"messages": chat}, "three")))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"fps": "2"}, TypeError, "`fps`.*'video.* is a number, got str '2'"),
        ({"fps": True}, TypeError, "`fps`.*bool"),
        ({"num_frames": 2.5}, TypeError, "`num_frames`.*whole number.*2.5"),
        ({"nframes": [2]}, TypeError, "`nframes`.*list"),
        ({"num_frames": 0}, ValueError, "num_frames=0"),
        ({"max_frames": -1}, ValueError, "max_frames=-1"),
        ({"fps": 0}, ValueError, "fps=0"),
        ({"fps": float("inf")}, ValueError, "fps=inf"),
        ({"video_start": float("nan")}, ValueError, "video_start=nan"),
        ({"video_start": 2, "video_end": 1}, ValueError, "video_end"),
        ({"video_start": 50.0}, ValueError, "beyond the end"),
        ({"fps": 1, "num_frames": 2}, ValueError, "`num_frames=2` and `fps=1`"),
        ({"nframes": 1, "num_frames": 2}, ValueError, "`num_frames` twice"),
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(options, error, words, processor, clip):
    for key in ("video", "video_url"):
        chat = user({"type": key, key: clip, **options}, "?")
        for read in (processor.count_tokens, lambda chat: processor.apply_chat_template(chat, tokenize=True)):
            with pytest.raises(error, match=words):
                read(chat)


# Unknown entries


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"type": "video", "video": "a.mp4", "frames": 2}, "'frames'.*video, url, path, base64, num_frames, fps"),
        ({"type": "video", "video": "a.mp4", "total_pixels": 2}, "'total_pixels'"),
        ({"type": "image", "image": "a.png", "max_pixels": 2, "size": 3}, "'max_pixels', 'size'"),
        ({"type": "image", "image": "a.png", "fps": 2}, "'image' has unknown entries 'fps'"),
        ({"type": "audio", "audio": "a.wav", "sampling_rate": 2}, "'sampling_rate': audio, url, path, base64"),
        ({"type": "text", "text": "a", "video": "a.mp4"}, "'text' has unknown entries 'video'"),
        ({"type": "text", "text": "a", "cache_control": {}}, "'cache_control'"),
        ({"type": "image", "image": "a.png", "path": "b.png"}, "more than once"),
        ({"type": "image_url", "image_url": {"url": URL, "detail": "high"}}, "`detail`.*'auto' alone, got 'high'"),
        ({"type": "image_url", "image_url": {"url": URL, "name": "a"}}, "`image_url` has unknown entries 'name'"),
        ({"type": "image_url", "image_url": {"detail": "auto"}}, "no `url`"),
        ({"type": "image_url", "url": URL}, "unknown entries 'url': image_url"),
        ({"type": "video_url", "video_url": {"url": URL, "detail": "auto"}}, "'detail': url"),
        ({"type": "input_audio", "input_audio": {"format": "wav"}}, "no `data`"),
        ({"type": "input_image", "image_url": URL}, "type 'input_image' is not understood"),
    ],
    ids=str,
)
def test_what_is_unknown_in_an_item_is_named(item, words, processor):
    for chat in (user(item), [user("?"), user(item)]):
        for read in (processor.count_tokens, processor.apply_chat_template):
            with pytest.raises(ValueError, match=words):
                read(chat)
    with pytest.raises(BadSample, match=words):
        read_sample({"messages": [*user(item), {"role": "assistant", "content": "Yes."}]}, "one")


def test_entries_that_are_null_are_as_if_they_were_not_there(processor):
    columns = dict.fromkeys(["text", "image", "video", "path", "fps", "whatever"])
    inputs = prepare(processor, {**columns, "type": "image", "image": PNG}, {**columns, "type": "text", "text": "a"})
    assert torch.equal(inputs["pixel_values"], prepare(processor, {"type": "image", "image": PNG})["pixel_values"])


def test_chats_are_left_as_they_are(processor, clip):
    items = [{"type": "video_url", "video_url": {"url": clip}, "nframes": 2}, {"type": "image", "base64": TEXT}]
    chat = user(*items, "?")
    processor.apply_chat_template(chat, tokenize=True)
    assert chat == user(*items, "?")
    assert items == [
        {"type": "video_url", "video_url": {"url": clip}, "nframes": 2},
        {"type": "image", "base64": TEXT},
    ]


# Base64, data URLs, OpenAI's items


@pytest.mark.parametrize(
    "item",
    [
        {"type": "image", "base64": TEXT},
        {"type": "image", "base64": LINES},
        {"type": "image", "base64": TEXT.encode()},
        {"type": "image", "base64": TEXT.rstrip("=")},
        {"type": "image", "base64": TEXT.replace("+", "-").replace("/", "_")},
        {"type": "image", "base64": URL},
        {"type": "image", "image": TEXT},
        {"type": "image", "url": "data:image/png;charset=utf-8;name=a.png;base64," + TEXT},
        {"type": "image", "url": "DATA:IMAGE/PNG;BASE64," + TEXT},
        {"type": "image", "url": f"\n data:image/png;base64,{LINES}\n"},
        {"type": "image", "url": "data:;base64," + quote(TEXT, safe="")},
        {"type": "image", "url": "data:image/png," + quote(PNG, safe="")},
        {"type": "image", "url": "data:image/jpeg;base64," + TEXT},
        {"type": "image_url", "image_url": {"url": URL, "detail": "auto"}},
        {"type": "image_url", "image_url": URL},
    ],
    ids=lambda item: str(item)[:60],
)
def test_images_in_base64(item, processor):
    expected = prepare(processor, {"type": "image", "image": PNG})["pixel_values"]
    assert torch.equal(prepare(processor, item)["pixel_values"], expected)
    source = next(value for key, value in item.items() if key != "type")
    if isinstance(source, str) and item["type"] == "image":
        frames = {"type": "video", ("base64" if "base64" in item else "video"): [source] * 2}
        assert len(prepare(processor, frames, num_frames=None)["pixel_values_videos"]) == 2


def test_videos_and_sounds_in_base64(processor, clip):
    with open(clip, "rb") as file:
        content = base64.b64encode(file.read()).decode()
    expected = prepare(processor, {"type": "video", "path": clip})["pixel_values_videos"]
    for item in (
        {"type": "video", "base64": content},
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + content}},
        {"type": "video_url", "video_url": clip},
    ):
        assert torch.equal(prepare(processor, item)["pixel_values_videos"], expected)
    content = base64.b64encode(WAV).decode()
    expected = prepare(processor, {"type": "audio", "audio": WAV})["input_features"]
    for item in (
        {"type": "audio", "base64": content},
        {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64," + content}},
        {"type": "input_audio", "input_audio": {"data": content, "format": "wav"}},
    ):
        assert torch.equal(prepare(processor, item)["input_features"], expected)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"type": "image", "base64": "@@@@"}, "not base64"),
        ({"type": "image", "base64": "aGVsbG8="}, "base64.*not an image"),
        ({"type": "image", "url": "data:image/png;base64"}, "data:<media type>;base64,<content>"),
        ({"type": "image", "url": "data:text/html,<p>Sign in</p>"}, "not in base64.*not an image"),
    ],
)
def test_base64_that_is_no_medium(item, words, processor):
    with pytest.raises(ValueError, match=words):
        prepare(processor, item)
    with pytest.raises(TypeError, match="`base64` is a string, got int"):
        prepare(processor, {"type": "image", "base64": 5})


@dataclasses.dataclass
class Message:
    role: str
    content: list
    tool_calls: list | None = None


@dataclasses.dataclass
class TextItem:
    text: str
    type: str = "text"


def test_messages_and_items_may_be_objects(processor):
    answer = ChatCompletionMessage(role="assistant", content="A sign.")
    given = [Message("user", [image_item(), TextItem("What?")]), answer, Message("user", [TextItem("Why?")])]
    plain = [*user(image_item(), "What?"), {"role": "assistant", "content": "A sign."}, *user("Why?")]
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}
    wanted = processor.apply_chat_template(plain, **options)
    for chat in (given, tuple(given)):
        assert torch.equal(processor.apply_chat_template(chat, **options)["input_ids"], wanted["input_ids"])
    assert processor.count_tokens(given) == wanted["input_ids"].shape[1]
