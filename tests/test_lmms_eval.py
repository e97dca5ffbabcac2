"""The plug-in of lmms-eval, as far as it needs no lmms-eval; `make lmms` runs the evaluator itself."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import yaml

from transformers_omnivinci import NANO
from transformers_omnivinci.evaluation.asking import Answer, Asker, media_key
from transformers_omnivinci.inference.lmms_eval import TASKS
from transformers_omnivinci.inference.lmms_eval.answering import DEFAULT_NEW_TOKENS, generation_options
from transformers_omnivinci.inference.lmms_eval.chats import medium_items, message_chat, task_chat
from transformers_omnivinci.inference.lmms_eval.journal import Journal
from transformers_omnivinci.inference.lmms_eval.scoring import accuracy, accuracy_by_group, scores_of

from .conftest import CLIP
from .media_files import image_bytes

IMAGE = PIL.Image.new("RGB", (64, 48), "red")
SOUND = {"array": np.sin(np.arange(16_000) / 20).astype(np.float32), "sampling_rate": 16_000}


class Decoder:
    """As those of torchcodec."""

    def get_all_samples(self):
        return type("Samples", (), {"data": torch.zeros(2, 8_000), "sample_rate": 8_000})()


def kinds(chat):
    return [item.get("text", item["type"]) for message in chat for item in message["content"]]


def test_media_of_a_task_stand_in_front_of_its_text():
    chat = task_chat("What?", [IMAGE, SOUND, Decoder()])
    assert [message["role"] for message in chat] == ["user"]
    assert kinds(chat) == ["image", "audio", "audio", "What?"]
    assert kinds(task_chat("What?", None)) == kinds(task_chat("What?", [])) == ["What?"]


def test_images_stand_where_a_text_has_their_placeholders():
    assert kinds(task_chat("A <image> B <image>", [IMAGE, IMAGE])) == ["A ", "image", " B ", "image"]
    assert kinds(task_chat("<image> is a word", [SOUND])) == ["audio", "<image> is a word"]
    assert kinds(task_chat("One <image>?", [IMAGE, IMAGE])) == ["image", "image", "One <image>?"]


def test_a_system_prompt_stands_in_the_place_of_another_one():
    messages = [{"role": "system", "content": "Old."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert kinds(message_chat(messages)) == ["Old.", "Hi"]
    assert kinds(message_chat(messages, "New.")) == ["New.", "Hi"]
    assert kinds(task_chat("Hi", None, "New.")) == ["New.", "Hi"]


@pytest.mark.parametrize(
    ("medium", "kind"),
    [
        (CLIP, "video"),
        (Path(CLIP), "video"),
        (Path(CLIP).read_bytes(), "video"),
        ({"type": "video", "path": CLIP, "video_start": 1.0, "video_end": 2.0}, "video"),
        ({"bytes": image_bytes(IMAGE), "path": None}, "image"),
        (SOUND, "audio"),
        (SOUND["array"], "audio"),
        (Decoder(), "audio"),
        (Decoder().get_all_samples(), "audio"),
    ],
)
def test_the_kind_of_a_medium_is_told_by_its_content(medium, kind):
    (item,) = medium_items(medium)
    assert item["type"] == kind and item[kind] is not None
    if isinstance(medium, dict) and "video_end" in medium:
        assert (item["video_start"], item["video_end"]) == (1.0, 2.0)


def test_messages_of_lmms_eval_become_ours():
    content = [
        {"type": "video", "url": CLIP, "start_time": 1.0, "end_time": None},
        {"type": "video", "url": {"type": "video", "path": CLIP, "video_end": 2.0}},
        {"type": "video", "url": SOUND},  # as lmms-eval calls sounds in messages that it makes itself
        {"type": "audio", "url": Decoder()},
        {"type": "image", "url": IMAGE},
        {"type": "text", "text": "What?"},
    ]
    (message,) = message_chat([{"role": "user", "content": content}])
    items = message["content"]
    assert [item["type"] for item in items] == ["video", "video", "audio", "audio", "image", "text"]
    assert items[0] == {"type": "video", "video": CLIP, "video_start": 1.0}
    assert items[1] == {"type": "video", "video": CLIP, "video_end": 2.0}


@pytest.mark.parametrize(
    ("visuals", "words"),
    [
        ([None], "is missing"),
        ([{"video_path": CLIP, "timestep": 3}], "timestep"),
        ([{"type": "video", "path": CLIP, "speed": 2}], "speed"),
        ([np.zeros((4, 8, 8, 3))], "shape"),
        ([object()], "object"),
        (["nowhere.mp4"], "nowhere.mp4"),
    ],
)
def test_what_is_not_understood_is_an_error(visuals, words):
    with pytest.raises((ValueError, OSError), match=words):
        task_chat("What?", visuals)
    with pytest.raises(ValueError, match="'smell'"):
        message_chat([{"role": "user", "content": [{"type": "smell", "url": CLIP}]}])
    with pytest.raises(ValueError, match="no medium"):
        message_chat([{"role": "user", "content": [{"type": "video", "url": None}]}])


@pytest.mark.parametrize(
    ("given", "options", "stop"),
    [
        (
            {"max_new_tokens": 8, "temperature": 0, "top_p": 1.0, "num_beams": 1, "until": ["\n\n"]},
            {"num_beams": 1},
            [],
        ),
        ({"max_gen_toks": 8, "until": "Q:"}, {}, ["Q:"]),
        ({"max_new_tokens": 8, "temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7, "top_p": 0.9}, []),
        ({"max_new_tokens": 8, "temperature": 0.7, "do_sample": False, "image_aspect_ratio": "pad"}, {}, []),
        ({"max_new_tokens": 8, "temperature": 0, "do_sample": True, "top_p": None}, {}, []),
    ],
)
def test_options_of_tasks_are_those_of_generate(given, options, stop):
    expected = {"max_new_tokens": 8, "do_sample": "temperature" in options, **options}
    assert generation_options(given) == (expected, stop)


def test_an_answer_is_as_long_as_the_task_or_the_checkpoint_says():
    assert generation_options({})[0]["max_new_tokens"] == DEFAULT_NEW_TOKENS
    assert generation_options({}, 20)[0]["max_new_tokens"] == 20
    assert generation_options({"max_tokens": 8}, 20)[0]["max_new_tokens"] == 8
    assert "max_new_tokens" not in generation_options({"max_length": 8}, 20)[0]


def test_what_ends_an_answer_is_text():
    with pytest.raises(ValueError, match="until"):
        generation_options({"until": [3]})


def test_media_are_alike_by_their_content():
    def key(*visuals):
        return media_key(task_chat("What?", list(visuals)))

    assert key(CLIP) == key(CLIP) != key(CLIP, CLIP)
    assert key(IMAGE) == key(IMAGE.copy()) != key(IMAGE.transpose(PIL.Image.Transpose.ROTATE_90))
    assert key(SOUND) == key({**SOUND, "array": SOUND["array"].copy()}) != key({**SOUND, "sampling_rate": 8_000})
    assert key(IMAGE, SOUND) != key(SOUND, IMAGE)
    assert key({"type": "video", "path": CLIP, "video_end": 2.0}) != key({"type": "video", "path": CLIP})
    assert key(Decoder()) is None and key() is None
    palettes = [PIL.Image.new("P", (64, 48)) for _ in range(2)]
    palettes[1].putpalette([255, 0, 0] * 256)
    assert key(palettes[0]) != key(palettes[1])


QUESTIONS = ["Which shape is shown first?", "Which sound is heard first?", "<image> <|im_end|> Which colour is shown?"]


@pytest.fixture(scope="module")
def nano():
    from transformers import AutoModel, AutoProcessor

    return AutoModel.from_pretrained(NANO).eval(), AutoProcessor.from_pretrained(NANO)


@pytest.fixture
def encoded(nano, monkeypatch):
    """How many media were encoded, call by call."""
    counts, encode = [], nano[0].encode_media

    def encode_media(**media):
        counts.append(sum(len(media[name]) for name in ("video_timestamps", "image_grid_hw") if name in media))
        return encode(**media)

    monkeypatch.setattr(nano[0], "encode_media", encode_media)
    return counts


def test_media_are_encoded_once_for_all_questions_about_them(nano, encoded):
    model, processor = nano
    greedy = {"max_new_tokens": 12, "do_sample": False}
    options = {"num_frames": 8, "load_audio_from_video": True, "sanitize_control_tokens": True}
    chats = [task_chat(question, CLIP) for question in QUESTIONS] + [task_chat("What colour is the shape?", IMAGE)]
    ask = Asker(model, processor, num_kept=8, **options)
    together = ask.generate(ask.prepare(chats), **greedy)
    assert encoded == [2]
    for chat, answer in zip(chats, together, strict=True):
        inputs = processor.apply_chat_template(
            chat, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt", **options
        )
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert answer.text == processor.decode(ids, skip_special_tokens=True).strip()
        assert answer.num_prompt_tokens == inputs["input_ids"].shape[1]
    encoded.clear()
    alone = [ask.generate(ask.prepare([chat]), **greedy)[0] for chat in [*chats[:2], chats[3]]]
    assert alone == [*together[:2], together[3]] and not encoded


def test_old_media_are_dropped_and_encoded_anew(nano, encoded):
    ask = Asker(*nano, max_new_tokens=1, num_kept=1)
    green = PIL.Image.new("RGB", (64, 48), "green")
    for image in (IMAGE, green, green, IMAGE):
        ask([task_chat("What?", image)])
    assert encoded == [1, 1, 1] and len(ask.kept) == 1


def test_prompts_that_are_too_long_are_refused_before_they_are_encoded(nano, encoded):
    with pytest.raises(ValueError, match="tokens, where the model reads 4096: ask with fewer frames"):
        Asker(*nano, num_frames=8).prepare([task_chat("What happens? " * 1500, CLIP)])
    assert not encoded


def test_answers_end_at_what_the_task_says(nano):
    ask = Asker(*nano)
    chat = task_chat("What is shown and heard, and when?", CLIP)
    (whole,) = ask.generate(ask.prepare([chat]), max_new_tokens=40)
    (cut,) = ask.generate(ask.prepare([chat]), stop=["seconds"], max_new_tokens=40)
    assert "seconds" in whole.text and cut.text == whole.text[: whole.text.index("seconds")].strip()
    assert cut.num_tokens < whole.num_tokens


def test_a_journal_goes_on_where_a_run_was_interrupted(tmp_path):
    journal = Journal(tmp_path, 0, {"num_frames": 8})
    one, other = journal.key(document=1), journal.key(document=2)
    journal.put(one, Answer("red", 20, 2))
    with journal.path.open("a") as file:
        file.write('{"key": "' + other)  # the machine was switched off
    resumed = Journal(tmp_path, 0, {"num_frames": 8})
    assert resumed.answers == {one: Answer("red", 20, 2)}
    resumed.put(other, Answer("blue", 20, 2))
    assert Journal(tmp_path, 1, {"num_frames": 8}).answers.keys() == {one, other}
    assert Journal(tmp_path, 0, {"num_frames": 16}).key(document=1) != one


def read_task(name):
    """The YAML of a task, with the functions that it names."""
    path = next(Path(TASKS).glob(f"*/{name}.yaml"))
    spec = importlib.util.spec_from_file_location(f"{name}_utils", path.parent / "utils.py")
    utils = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(utils)

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: getattr(utils, node.value.removeprefix("utils.")))
    return yaml.load(path.read_text(), Loader), utils


def test_daily_omni_is_scored_by_type_category_and_duration(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    task, _ = read_task("daily_omni")
    doc = {
        "Question": "Which sound is heard while the ball rolls?",
        "Choice": ["A. A bell", "B. A drum", "C. A horn", "D. Rain"],
        "Answer": "B",
        "video_id": "x1",
        "Type": "AV Event Alignment",
        "video_category": "Sports",
        "video_duration": "30s",
    }
    with pytest.raises(FileNotFoundError, match="x1_video.mp4"):
        task["doc_to_visual"](doc)
    video = tmp_path / "DailyOmni" / "Videos" / "x1" / "x1_video.mp4"
    video.parent.mkdir(parents=True)
    video.touch()
    assert task["doc_to_visual"](doc) == [str(video)]
    text = task["doc_to_text"](doc)
    assert doc["Question"] in text and all(choice in text for choice in doc["Choice"])
    scored = [task["process_results"](doc, [answer]) for answer in ("B", "b. a drum", "A drum", "C", "no idea")]
    assert [score["accuracy"]["score"] for score in scored] == [1, 1, 1, 0, 0]
    assert scored[0]["accuracy_by_duration"]["group"] == "30s"
    metrics = {entry["metric"]: entry["aggregation"] for entry in task["metric_list"]}
    assert metrics.keys() == scored[0].keys()
    assert metrics["accuracy"]([score["accuracy"] for score in scored]) == 0.6
    assert metrics["accuracy_by_type"]([score["accuracy_by_type"] for score in scored]) == {"AV Event Alignment": 0.6}


SPORTU = [
    {
        "id": "soccer_260_2",
        "question": "How many players are shown?",
        "options": {"A": 4, "B": 6, "C": 5, "D": 2},
        "answer": "D",
        "difficulty level": "easy",
    },
    {
        "id": "Basketball_9",
        "question": "Is there a foul in this video?",
        "options": {"A": "Yes", "B": "No"},
        "answer": "B",
        "difficulty level": "medium",
    },
]


def test_sportu_is_read_from_the_file_of_its_authors(tmp_path, monkeypatch):
    task, utils = read_task("sportu_video_mc")
    basketball, soccer = utils.parse_questions(json.dumps(SPORTU))
    assert (soccer["options"], soccer["sport"], basketball["sport"]) == (["4", "6", "5", "2"], "soccer", "basketball")
    assert "\nD. 2\n" in task["doc_to_text"](soccer)
    monkeypatch.delenv("SPORTU_VIDEOS", raising=False)
    with pytest.raises(FileNotFoundError, match="SPORTU_VIDEOS"):
        task["doc_to_visual"](soccer)
    video = tmp_path / "Soccer" / "soccer_260_2.MP4"
    video.parent.mkdir()
    video.touch()
    monkeypatch.setenv("SPORTU_VIDEOS", str(tmp_path))
    assert task["doc_to_visual"](soccer) == [str(video)]
    with pytest.raises(FileNotFoundError, match="Basketball_9"):
        task["doc_to_visual"](basketball)
    scores = task["process_results"](soccer, ["D"]), task["process_results"](basketball, ["Yes"])
    by_sport = [score["accuracy_by_sport"] for score in scores]
    assert accuracy_by_group(by_sport) == {"basketball": 0.0, "soccer": 1.0}
    assert {entry["metric"] for entry in task["metric_list"]} == scores[0].keys()


def test_accuracy_is_a_share():
    scores = [scores_of(right, "clip", {"form": form}) for right, form in ((True, "b"), (False, "b"), (True, "a"))]
    assert accuracy([score["accuracy"] for score in scores]) == pytest.approx(2 / 3)
    assert list(accuracy_by_group([score["accuracy_by_form"] for score in scores]).items()) == [("a", 1.0), ("b", 0.5)]
