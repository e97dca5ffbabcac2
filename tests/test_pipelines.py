"""The pipelines: what they accept, and that they answer what the model does, one by one and in batches."""

import wave

import numpy as np
import pytest
import torch
from transformers import AnyToAnyPipeline, ImageTextToTextPipeline, pipeline
from transformers.generation.streamers import BaseStreamer
from transformers.pipelines.pt_utils import KeyDataset
from transformers.utils import is_torchvision_available

from transformers_omnivinci import VideoTextToTextPipeline
from transformers_omnivinci.pipelines import AnyToAnyWithoutTorchvisionPipeline

from .conftest import CLIP, PARITY
from .media_samples import audio_item, image, image_item, sound, user, video, video_item

pytestmark = pytest.mark.compat

CLIP_ITEM = {"type": "video", "path": CLIP}
SHORT = {"max_new_tokens": 5, "num_frames": 4}


class Rows(torch.utils.data.Dataset):
    """A dataset that says which rows were read."""

    def __init__(self, rows):
        self.rows, self.read = rows, []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.read.append(index)
        return self.rows[index]


class Collector(BaseStreamer):
    """Keeps the token ids that it gets."""

    def __init__(self):
        self.ids, self.ended = [], False

    def put(self, value):
        self.ids += value.flatten().tolist()

    def end(self):
        self.ended = True


@pytest.fixture
def make(model, processor):
    """Makes a pipeline of the shared model, which stays on the CPU."""
    return lambda task, **kwargs: pipeline(task, model=model, processor=processor, device="cpu", **kwargs)


@pytest.fixture
def pipe(make):
    return make("video-text-to-text")


@pytest.fixture
def generate(model, processor):
    """Token ids of a prompt with its answer, of the model itself."""

    def run(chat, max_new_tokens=5, load_audio_from_video=True, **options):
        is_continued = chat[-1]["role"] == "assistant"
        inputs = processor.apply_chat_template(
            chat,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=not is_continued,
            continue_final_message=is_continued,
            load_audio_from_video=load_audio_from_video,
            **options,
        )
        ids = model.generate(**inputs, max_new_tokens=max_new_tokens)[0]
        return ids, processor.decode(ids[inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return run


def unlike_chats() -> list[list[dict]]:
    """Chats that differ in their media, in their length and in who speaks last."""
    return [
        user(image_item(), CLIP_ITEM, audio_item(), "What is this?"),
        user("Hi"),
        user(video_item(num_frames=7), "Which colours are there, and which shapes?"),
        [*user("Count."), {"role": "assistant", "content": "One, two,"}],
        user(CLIP_ITEM, CLIP_ITEM, "Same?"),
        user(audio_item(seconds=31.0), "What is heard?"),
    ]


# --------------------------------------------------------------------------------------------- video-text-to-text


def test_task_is_registered():
    pipe = pipeline("video-text-to-text", model=str(PARITY / "published-tiny"), device="cpu")
    assert type(pipe) is VideoTextToTextPipeline
    assert pipe(CLIP, text="What?", **SHORT)[0]["input_text"] == "What?"


@pytest.mark.parametrize("chat", unlike_chats())
def test_chat_gets_the_answer_of_the_model(pipe, generate, chat):
    ids, answer = generate(chat, num_frames=4)
    assert pipe(chat, return_full_text=False, **SHORT) == [{"input_text": chat, "generated_text": answer}]
    (record,) = pipe(text=chat, return_tensors=True, **SHORT)
    assert record["input_text"] == chat
    assert torch.equal(record["generated_token_ids"], ids)


@pytest.mark.slow
def test_unlike_samples_in_a_batch_get_the_answers_that_they_get_alone(pipe):
    chats = unlike_chats()
    alone = [pipe(chat, return_tensors=True, **SHORT)[0]["generated_token_ids"] for chat in chats]
    for batch_size in (4, 6):  # with a last batch that is not full, and one of all
        tensors = pipe(chats, batch_size=batch_size, return_tensors=True, **SHORT)
        for (record,), ids in zip(tensors, alone, strict=True):
            assert torch.equal(record["generated_token_ids"], ids)

    answers = pipe(chats, batch_size=2, **SHORT)
    assert answers == [pipe(chat, **SHORT) for chat in chats]
    assert len({answer[0]["generated_text"][-1]["content"] for answer in answers}) > 2


@pytest.mark.parametrize(
    "options",
    (
        {"num_frames": 3},
        {"fps": 0.5},
        {"fps": 2.0, "max_frames": 5},
        {"num_frames": 3, "video_start": 2.0, "video_end": 6.5},
        {"num_frames": 3, "load_audio_from_video": False},
    ),
)
def test_options_of_the_processor(pipe, generate, options):
    chat = user(CLIP_ITEM, "What?")
    ids, _ = generate(chat, max_new_tokens=1, **options)
    for kwargs in (options, {"processor_kwargs": options}):
        (record,) = pipe(chat, max_new_tokens=1, return_tensors=True, **kwargs)
        assert torch.equal(record["generated_token_ids"], ids)


def test_videos_are_heard_unless_told_otherwise(pipe, processor):
    (record,) = pipe(CLIP, text="What?", max_new_tokens=1, num_frames=2, return_tensors=True)
    assert processor.audio_token_id in record["generated_token_ids"]


def test_sampling_of_a_call_replaces_that_of_the_pipeline(make):
    chat = user(CLIP_ITEM, "What?")
    pipe = make("video-text-to-text", num_frames=2, max_new_tokens=1)
    for options in ({}, {"fps": 0.5}, {"num_frames": 5}):
        alone = make("video-text-to-text", max_new_tokens=1, **(options or {"num_frames": 2}))
        ids = [p(chat, return_tensors=True, **options)[0]["generated_token_ids"] for p in (pipe, alone)]
        assert torch.equal(*ids)


# ------------------------------------------------------------------------------------------------- what is accepted


def test_one_video_and_its_text(pipe, generate):
    _, answer = generate(user(CLIP_ITEM, "What?"), num_frames=4)
    wanted = [{"input_text": "What?", "generated_text": answer}]
    only_new = {"return_full_text": False, **SHORT}
    assert pipe(CLIP, text="What?", **only_new) == wanted
    assert pipe(videos=CLIP, text="What?", **only_new) == wanted
    assert pipe({"video": CLIP, "text": "What?"}, **only_new) == wanted
    with open(CLIP, "rb") as file:
        assert pipe(file, text="What?", **only_new) == wanted
        assert pipe(file.read(), text="What?", **only_new) == wanted
    assert pipe([CLIP], text="What?", **only_new) == [wanted]
    assert pipe(CLIP, text="What?", **SHORT) == [{"input_text": "What?", "generated_text": f"What?{answer}"}]


def test_decoded_frames(pipe, generate):
    frames, metadata = video(num_frames=5)
    _, answer = generate(user({"type": "video", "video": (frames, metadata)}, "What?"))
    wanted = [{"input_text": "What?", "generated_text": answer}]
    only_new = {"return_full_text": False, "max_new_tokens": 5}
    pairs = ((frames, metadata), (torch.from_numpy(frames), metadata), (list(frames), metadata))
    for pair in pairs:
        assert pipe(pair, text="What?", **only_new) == wanted
        assert pipe([pair, pair], text="What?", batch_size=2, **only_new) == [wanted, wanted]
    options = {"processor_kwargs": {"video_metadata": [metadata]}, **only_new}
    for given in (frames, list(frames), torch.from_numpy(frames)):
        assert pipe(given, text="What?", **options) == wanted
    assert pipe(frames[None], text="What?", **options) == [wanted]


@pytest.mark.slow
def test_lists_of_videos_and_texts(pipe):
    silent = video(num_frames=3)
    pairs = ((CLIP, "A?"), (silent, "A?"), (silent, "Or B?"), (CLIP, "Or B?"))
    heard_a, seen_a, seen_b, heard_b = (pipe(video, text=text, **SHORT) for video, text in pairs)
    for batch_size in (1, 2):
        options = {**SHORT, "batch_size": batch_size}
        assert pipe([CLIP, silent], text="A?", **options) == [heard_a, seen_a]
        assert pipe((CLIP, silent), text=["A?", "Or B?"], **options) == [heard_a, seen_b]
        assert pipe(CLIP, text=["A?", "Or B?"], **options) == [heard_a, heard_b]
    assert pipe([], text="A?") == []


def test_several_videos_of_one_question(pipe, generate):
    _, answer = generate(user(CLIP_ITEM, video_item(), "Same?"), num_frames=4)
    wanted = [{"input_text": "Same?", "generated_text": answer}]
    videos = [CLIP, video()]
    assert pipe({"video": videos, "text": "Same?"}, return_full_text=False, **SHORT) == wanted
    assert pipe([videos], text=["Same?"], return_full_text=False, **SHORT) == [wanted]


def test_text_alone(pipe, generate):
    _, answer = generate(user("Hi"))
    wanted = [{"input_text": "Hi", "generated_text": answer}]
    assert pipe(text="Hi", max_new_tokens=5, return_full_text=False) == wanted
    assert pipe(text=["Hi", "Hi"], max_new_tokens=5, return_full_text=False) == [wanted, wanted]
    assert pipe({"text": "Hi"}, max_new_tokens=5, return_full_text=False) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", (1, 2))
def test_datasets_and_generators(pipe, batch_size):
    samples = [{"video": CLIP, "text": "A?"}, {"video": video(), "text": "And B?"}, {"text": "C?"}]
    chats = unlike_chats()[1:4]
    videos = [CLIP, video(), CLIP]
    options = {"batch_size": batch_size, **SHORT}
    wanted = {
        "samples": [pipe(sample, **SHORT) for sample in samples],
        "chats": [pipe(chat, **SHORT) for chat in chats],
        "videos": [pipe(video, text="A?", **SHORT) for video in videos],
    }
    assert pipe(samples, **options) == wanted["samples"]
    for name, rows in (("samples", samples), ("chats", chats)):
        assert list(pipe(Rows(rows), **options)) == wanted[name]
        assert list(pipe((row for row in rows), **options)) == wanted[name]
        assert list(pipe(KeyDataset(Rows([{"it": row} for row in rows]), "it"), **options)) == wanted[name]
    keyed = KeyDataset(Rows([{"it": video} for video in videos]), "it")
    assert list(pipe(keyed, text="A?", **options)) == wanted["videos"]
    assert list(pipe((video for video in videos), text="A?", **options)) == wanted["videos"]


def test_datasets_are_read_as_answers_are_taken(pipe):
    rows = Rows([{"text": "A?"}, {"text": "B?"}, {"text": "C?"}, {"text": "D?"}])
    answers = pipe(rows, batch_size=2, max_new_tokens=1)
    assert rows.read == []
    next(iter(answers))
    assert rows.read == [0, 1]


def test_workers_read_the_samples(pipe):
    samples = [{"video": video(seed=seed), "text": "A?"} for seed in range(3)]
    assert pipe(samples, num_workers=1, batch_size=2, **SHORT) == pipe(samples, **SHORT)


# ------------------------------------------------------------------------------------------------------- the answer


def test_full_text_of_a_chat_has_the_answer_as_last_message(pipe, generate):
    chat = user(CLIP_ITEM, "What?")
    _, answer = generate(chat, num_frames=4)
    (record,) = pipe(chat, **SHORT)
    assert record["generated_text"] == [*chat, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize("as_items", (False, True))
def test_last_message_of_the_assistant_is_continued(pipe, generate, as_items):
    def message(text):
        return {"role": "assistant", "content": [{"type": "text", "text": text}] if as_items else text}

    chat = [*user("Count."), message("One, two,")]
    _, answer = generate(chat)
    (record,) = pipe(chat, max_new_tokens=5)
    assert record == {"input_text": chat, "generated_text": [chat[0], message(f"One, two,{answer}")]}
    (record,) = pipe(chat, max_new_tokens=5, continue_final_message=False)
    assert record["generated_text"][:-1] == chat


def test_streamer_gets_the_answer(pipe, generate):
    ids, _ = generate(user(CLIP_ITEM, "What?"), num_frames=4)
    streamer = Collector()
    pipe(CLIP, text="What?", streamer=streamer, **SHORT)
    assert streamer.ended
    assert streamer.ids == ids.tolist()


def test_stop_sequence_ends_the_answer(pipe):
    (whole,) = pipe(CLIP, text="What?", return_full_text=False, **SHORT)
    stop = whole["generated_text"][:2]
    assert stop.strip()
    (record,) = pipe(CLIP, text="What?", return_full_text=False, stop_sequence=stop, **SHORT)
    assert len(record["generated_text"]) < len(whole["generated_text"])
    assert stop in record["generated_text"]


def test_parameters_of_generation(pipe):
    chats = unlike_chats()[1:3]
    given = {"num_beams": 2, "num_return_sequences": 2}
    by_name = pipe(chats, batch_size=2, **given, **SHORT)
    assert [len(records) for records in by_name] == [2, 2]
    assert pipe(chats, generate_kwargs=given, **SHORT) == by_name
    assert given == {"num_beams": 2, "num_return_sequences": 2}
    with pytest.raises(ValueError, match="num_beams.*both in `generate_kwargs` and as parameters"):
        pipe(chats, num_beams=2, generate_kwargs=given)
    with pytest.raises(ValueError, match="'max_new_tokens' is defined twice"):
        pipe(chats, max_new_tokens=2, generate_kwargs={"max_new_tokens": 2})


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    (
        ((), {}, "Got neither `videos` nor `text`"),
        ((CLIP,), {}, "A sample of type str has no text"),
        (([CLIP, CLIP],), {}, "A sample of type str has no text"),
        ((CLIP,), {"text": 5}, "`text` is int beside `videos`"),
        ((CLIP,), {"text": user("Hi")}, "A chat has its media in the content of its messages"),
        (([CLIP, CLIP],), {"text": ["a", "b", "c"]}, "Got 2 videos but 3 texts"),
        ((Rows([CLIP]),), {"text": ["a"]}, "`text` is a list beside Rows: one string for all is accepted"),
        (({"video": CLIP},), {}, "A sample of type dict has no text"),
        (({"clip": CLIP, "text": "a"},), {}, r"A sample has the keys \['clip', 'text'\]"),
        ((CLIP,), {"text": "a", "num_frames": 2, "fps": 1.0}, "Got both `num_frames=2` and `fps=1.0`"),
        ((CLIP,), {"text": "a <image>"}, "'<image>', which stands for a medium"),
    ),
)
def test_refused(pipe, args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        pipe(*args, **kwargs)


def test_missing_file(pipe):
    with pytest.raises(FileNotFoundError, match="There is no file 'nowhere.mp4'"):
        pipe("nowhere.mp4", text="What?")


# ------------------------------------------------------------- image-text-to-text and any-to-any of the library


@pytest.mark.slow
@pytest.mark.parametrize("task", ("image-text-to-text", "any-to-any"))
def test_chats_in_the_pipelines_of_the_library(make, generate, task):
    pipe = make(task)
    chats = [user(image_item(), CLIP_ITEM, audio_item(), "What?"), user(CLIP_ITEM, "What?")]
    answers = pipe(text=chats, load_audio_from_video=True, return_full_text=False, **SHORT)
    for chat, (record,) in zip(chats, answers, strict=True):
        _, answer = generate(chat, num_frames=4)
        assert record == {"input_text": chat, "generated_text": answer}


def test_images_in_the_pipeline_of_the_library(make, model, processor):
    pipe = make("image-text-to-text")
    assert type(pipe) is ImageTextToTextPipeline
    prompts, images = ["<image>What?", "<image>And which colour?"], [image(seed=1), image(60, 200, seed=2)]
    records = pipe(images=images, text=prompts, return_full_text=False, max_new_tokens=5)
    for prompt, picture, record in zip(prompts, images, records, strict=True):
        inputs = processor(text=prompt, images=picture, return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=5)[0, inputs["input_ids"].shape[1] :]
        assert record["generated_text"] == processor.decode(ids, skip_special_tokens=True)


@pytest.fixture
def wav(tmp_path):
    path = str(tmp_path / "sound.wav")
    with wave.open(path, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((sound() * 32767).astype("<i2").tobytes())
    return path


@pytest.mark.slow
def test_any_media_in_the_pipeline_of_the_library(make, model, processor, wav):
    pipe = make("any-to-any")
    cases = (
        ({"images": image()}, "<image>What?", {}),
        ({"videos": CLIP}, "<vila/video>What?", {"num_frames": 3}),
        ({"videos": CLIP}, "<vila/video>What?", {"num_frames": 3, "load_audio_from_video": True}),
        ({"audio": wav}, "<sound>What?", {}),
        ({"audio": sound()}, "<sound>What?", {}),
        (
            {"images": image(), "videos": CLIP, "audio": wav},
            "<sound>a<image>b<vila/video>What?",
            {"num_frames": 3},
        ),
    )
    for media, prompt, options in cases:
        inputs = processor(text=prompt, **media, return_tensors="pt", **options)
        ids = model.generate(**inputs, max_new_tokens=5)[0, inputs["input_ids"].shape[1] :]
        wanted = [{"input_text": prompt, "generated_text": processor.decode(ids, skip_special_tokens=True)}]
        options = {**options, "max_new_tokens": 5, "return_full_text": False}
        assert pipe(text=prompt, **media, **options) == wanted
        assert pipe([{"text": prompt, **media}], **options) == [wanted]


@pytest.mark.skipif(is_torchvision_available(), reason="the stock pipeline needs torchvision")
def test_any_to_any_needs_no_torchvision(make, model, processor):
    pipe = make("any-to-any")
    assert type(pipe) is AnyToAnyWithoutTorchvisionPipeline
    # The track of an mp4, which the feature extractor reads with torchcodec only.
    (record,) = pipe(text="<sound>What?", audio=CLIP, max_new_tokens=2)
    assert record["input_text"] == "<sound>What?"
    with pytest.raises(ImportError, match="Torchvision"):
        AnyToAnyPipeline(model=model, processor=processor, device="cpu")


@pytest.mark.skipif(is_torchvision_available(), reason="only asked for where torchvision is missing")
def test_any_to_any_of_other_models_is_that_of_the_library(monkeypatch):
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14, **sizes},
        text_config={"model_type": "llama", "vocab_size": 32, **sizes},
        image_token_id=31,
    )
    other = LlavaForConditionalGeneration(config)
    with pytest.raises(ImportError, match=r"^\s*AnyToAnyPipeline requires the Torchvision"):
        AnyToAnyWithoutTorchvisionPipeline(model=other, device="cpu")
    monkeypatch.setattr("transformers.pipelines.any_to_any.requires_backends", lambda *args: None)
    assert type(AnyToAnyWithoutTorchvisionPipeline(model=other, device="cpu")) is AnyToAnyPipeline


def test_collated_batch_is_that_of_the_processor(pipe, processor):
    chats = [user(video_item(num_frames=3), "A?"), user(CLIP_ITEM, "And B?"), user(image_item(), audio_item(), "C?")]
    samples = [pipe.preprocess(chat, num_frames=4) for chat in chats]
    batch = pipe.collate(samples)
    together = processor.apply_chat_template(
        chats,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        load_audio_from_video=True,
        num_frames=4,
    )
    assert batch.keys() - {"text"} == together.keys()
    for name in together:
        np.testing.assert_array_equal(batch[name], together[name], err_msg=name)
