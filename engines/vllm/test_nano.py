"""nano in vLLM: the tokens of transformers, batches, caches, options and mistakes."""

import numpy as np
import PIL.Image
import pytest
from vllm.exceptions import VLLMValidationError

from engines.vllm.asking import answer, ask, messages_of
from engines.vllm.conftest import greedy, tokens_of
from tests.conftest import CLIP
from tests.media_files import Sound, write_audio, write_video
from transformers_omnivinci import NANO
from transformers_omnivinci.evaluation.synthetic import chat_of, read_rows, score_answers
from transformers_omnivinci.media import load_audio, load_video
from transformers_omnivinci.synthetic import CLOSED_TYPES, SyntheticDataset, write_dataset

SOUND = {"load_audio_from_video": True}


@pytest.fixture(scope="module")
def reference(references):
    return references(NANO)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Media by name: a clip with sound and one without, a sound, and pictures of two shapes."""
    folder, noise = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    made = {"clip": CLIP}
    made["silent"] = write_video(folder / "silent.mp4", 48)
    made["long"] = write_video(folder / "long.mp4", 240, sound=Sound(seconds=10))
    samples = 0.1 * np.sin(np.arange(64_000) / 20)[None].astype(np.float32)
    made["sound"] = write_audio(folder / "sound.wav", Sound(rate=16_000, layout="mono", codec="pcm_s16le"), samples)
    for name, size in (("wide", (40, 160)), ("tall", (160, 50))):
        made[name] = folder / f"{name}.png"
        PIL.Image.fromarray(noise.integers(0, 256, (*size, 3), np.uint8)).save(made[name])
    return {name: str(path) for name, path in made.items()}


@pytest.fixture
def fresh(nano):
    """nano with empty caches."""
    nano.reset_prefix_cache()
    nano.reset_mm_cache()
    return nano


def chat(engine, conversations, options=None, **sampling):
    return engine.chat(conversations, greedy(**sampling), mm_processor_kwargs=options, use_tqdm=False)


def count(engine, name):
    return next(metric.value for metric in engine.get_metrics() if metric.name == f"vllm:{name}")


def test_held_out_clips_get_the_same_tokens_and_so_the_same_accuracy(fresh, reference, tmp_path):
    dataset = SyntheticDataset("test", 50, 7, types=CLOSED_TYPES)
    path = write_dataset(tmp_path, dataset)
    rows = read_rows(path)
    chats = [chat_of(row, path.parent) for row in rows]
    assert len(chats) == 50
    outputs = chat(fresh, [messages_of(one) for one in chats], SOUND, max_tokens=16)
    expected = []
    for first in range(0, len(chats), 10):
        expected += answer(*reference, chats[first : first + 10], 16, **SOUND)
    assert tokens_of(outputs) == expected
    texts = [output.outputs[0].text.strip() for output in outputs]
    right = reference[1].batch_decode(expected, skip_special_tokens=True)
    scores = score_answers(rows, texts)
    assert scores == score_answers(rows, [text.strip() for text in right])
    accuracy = sum(score.accuracy * score.num_questions for score in scores) / 50
    print(f"accuracy of 50 held-out clips: {accuracy:.0%}")
    assert accuracy > 0.5  # chance is below a quarter


def unlike(files):
    """Sixteen requests that share neither media nor lengths, as prompts and media of `LLM.generate`."""
    media = [
        {},
        {"image": [files["wide"]]},
        {"image": [files["wide"], files["tall"]]},
        {"image": [PIL.Image.open(files["tall"])]},
        {"video": [files["clip"]]},
        {"video": [files["silent"]]},
        {"video": [files["long"], files["silent"]]},
        {"audio": [files["sound"]]},
        {"audio": [files["sound"], files["clip"]]},
        {"image": [files["tall"]], "video": [files["clip"]], "audio": [files["sound"]]},
    ]
    tokens = {"image": "<image>", "video": "<vila/video>", "audio": "<sound>"}
    questions = ("What happens?", "Which shape is shown first, and which colour does it have?")
    requests = []
    for number in range(16):
        given = media[number % len(media)]
        placeholders = "".join(tokens[modality] * len(items) for modality, items in given.items())
        text = f"<|im_start|>user\n{placeholders}{questions[number % 2]}<|im_end|>\n<|im_start|>assistant\n"
        options = {"load_audio_from_video": False} if "silent" in str(given) or number % 3 == 0 else SOUND
        request = {"prompt": text, "mm_processor_kwargs": dict(options)}
        if number >= len(media):
            request["mm_processor_kwargs"]["num_frames"] = 3
        requests.append(request | ({"multi_modal_data": given} if given else {}))
    return requests


def test_a_batch_of_unlike_requests_is_answered_as_each_alone(fresh, files):
    requests = unlike(files)
    sampling = [greedy(4 + number, ignore_eos=True) for number in range(16)]
    together = tokens_of(fresh.generate(requests, sampling, use_tqdm=False))
    alone = []
    for request, one in zip(unlike(files), sampling, strict=True):
        fresh.reset_prefix_cache()
        fresh.reset_mm_cache()
        alone += tokens_of(fresh.generate(request, one, use_tqdm=False))
    assert together == alone
    assert [len(tokens) for tokens in together] == [4 + number for number in range(16)]
    assert len({tuple(tokens[:4]) for tokens in together}) > 3


def test_the_second_question_about_a_clip_finds_it_in_both_caches(fresh, reference, files):
    questions = ("What is heard first?", "Which shape is shown first?")
    chats = [ask(question, ("video", files["long"])) for question in questions]
    hits, decoded = count(fresh, "mm_cache_hits"), count(fresh, "prefix_cache_hits")
    [first] = chat(fresh, [messages_of(chats[0])], SOUND)
    assert (first.num_cached_tokens, count(fresh, "mm_cache_hits")) == (0, hits)
    [second] = chat(fresh, [messages_of(chats[1])], SOUND)
    assert count(fresh, "mm_cache_hits") == hits + 1
    shared = 0
    for one, other in zip(first.prompt_token_ids, second.prompt_token_ids, strict=False):
        if one != other:
            break
        shared += 1
    blocks = shared // 32 * 32
    assert blocks > 32 and second.num_cached_tokens == blocks
    assert count(fresh, "prefix_cache_hits") == decoded + blocks
    assert tokens_of([first, second]) == answer(*reference, chats, **SOUND)


def test_a_medium_may_be_named_by_an_id_of_ones_own(fresh, files):
    def request(video, name):
        named = {"multi_modal_data": {"video": [video]}, "multi_modal_uuids": {"video": [name]}}
        return {"prompt": PROMPT.format("<vila/video>"), "mm_processor_kwargs": SOUND} | named

    [first] = fresh.generate(request(files["clip"], "mine"), greedy(), use_tqdm=False)
    [again] = fresh.generate(request(None, "mine"), greedy(), use_tqdm=False)
    assert again.prompt_token_ids == first.prompt_token_ids and tokens_of([again]) == tokens_of([first])
    with pytest.raises(ValueError, match="not provided"):
        fresh.generate(request(None, "another"), greedy(), use_tqdm=False)


def test_with_other_options_a_clip_is_another_one(fresh, files):
    hits, lengths = count(fresh, "mm_cache_hits"), []
    for options in (SOUND, {"load_audio_from_video": False}, SOUND | {"num_frames": 3}, SOUND | {"fps": 1.0}):
        [output] = chat(fresh, [messages_of(ask("What happens?", ("video", files["long"])))], options)
        lengths.append(len(output.prompt_token_ids))
    assert count(fresh, "mm_cache_hits") == hits
    assert len(set(lengths)) == 4


@pytest.mark.parametrize(
    "options",
    [
        {"use_audio_in_video": True},
        {"load_audio_from_video": True, "use_audio_in_video": True},
        {"videos_kwargs": {"load_audio_from_video": True}},
    ],
    ids=["Qwen's name", "both names", "nested"],
)
def test_the_sound_of_videos_is_asked_for_by_either_name(nano, reference, files, options):
    one = ask("What is heard first?", ("video", files["clip"]))
    outputs = chat(nano, [messages_of(one)], options)
    assert tokens_of(outputs) == answer(*reference, [one], **SOUND)


def test_the_engine_may_ask_for_sound_and_frames_of_all_requests(engines, reference, files):
    options = {"use_audio_in_video": True, "num_frames": 6}
    engine = engines(NANO, mm_processor_kwargs=options, allowed_local_media_path="/")
    one = ask("What is heard first?", ("video", files["clip"]))
    assert tokens_of(chat(engine, [messages_of(one)])) == answer(*reference, [one], num_frames=6, **SOUND)
    deaf = {"load_audio_from_video": False}
    outputs = chat(engine, [messages_of(one)], deaf | {"num_frames": 4})
    assert tokens_of(outputs) == answer(*reference, [one], num_frames=4, **deaf)
    silent = ask("What is heard first?", ("video", files["silent"]))
    with pytest.raises(ValueError, match="asks for the sound"):
        chat(engine, [messages_of(silent)])
    assert tokens_of(chat(engine, [messages_of(silent)], deaf)) == answer(*reference, [silent], num_frames=6, **deaf)


@pytest.mark.parametrize(
    "options", [{"num_frames": 4}, {"fps": 1.0}, {"num_frames": 4, "load_audio_from_video": False}], ids=str
)
def test_frames_are_chosen_as_by_the_processor(nano, reference, files, options):
    one = ask("Which shape is shown first?", ("video", files["clip"]))
    assert tokens_of(chat(nano, [messages_of(one)], options)) == answer(*reference, [one], **options)


PROMPT = "<|im_start|>user\n{}What is heard first?<|im_end|>\n<|im_start|>assistant\n"


def given_apart(files):
    """The clip's frames, with what is known of them, and its sound: as users of Qwen's models give them."""
    video = load_video(files["clip"])
    frames = video.frames.permute(0, 2, 3, 1).numpy()
    return (frames, {"fps": video.metadata.fps}), load_audio(files["clip"])


@pytest.mark.parametrize("placeholders", ["<vila/video>", "<sound><vila/video>"], ids=["Qwen's", "the release's"])
def test_frames_and_their_sound_may_be_given_apart(nano, files, placeholders):
    video, sound = given_apart(files)
    options = {"use_audio_in_video": True, "num_frames": 8}
    apart = {"multi_modal_data": {"video": [video], "audio": [(sound, 16_000)]}}
    whole = {"multi_modal_data": {"video": files["clip"]}}
    texts = (PROMPT.format(placeholders), PROMPT.format("<vila/video>"))
    requests = [
        {"prompt": text, "mm_processor_kwargs": options, **media} for text, media in zip(texts, (apart, whole))
    ]
    outputs = nano.generate(requests, greedy(), use_tqdm=False)
    assert outputs[0].prompt_token_ids == outputs[1].prompt_token_ids
    assert tokens_of(outputs)[0] == tokens_of(outputs)[1]


def test_a_clip_of_its_own_is_not_taken_for_a_track(nano, reference, files):
    one = ask("What is heard first?", ("audio", files["sound"]), ("video", files["clip"]))
    request = {
        "prompt": reference[1].apply_chat_template(one, add_generation_prompt=True),
        "multi_modal_data": {"video": [files["clip"]], "audio": [files["sound"]]},
        "mm_processor_kwargs": SOUND,
    }
    [output] = nano.generate(request, greedy(), use_tqdm=False)
    assert tokens_of([output]) == answer(*reference, [one], **SOUND)


MISTAKES = {
    "frames alone, with sound asked for": (
        "video",
        lambda files: [given_apart(files)[0]],
        SOUND,
        "asks for the sound",
    ),
    "a file without sound": ("video", lambda files: [files["silent"]], SOUND, "asks for the sound"),
    "no video": ("video", lambda files: [files["sound"]], {}, "sound.wav"),
    "damaged": ("video", lambda files: [b"no video at all" * 99], {}, "cannot be read|not|no video"),
    "a missing file": ("video", lambda files: ["/nowhere/clip.mp4"], {}, "/nowhere/clip.mp4"),
    "a URL": ("video", lambda files: ["https://localhost/clip.mp4"], {}, "LLM.chat"),
    "no placeholder": ("audio", lambda files: [files["sound"]] * 2, {}, "1 placeholders of audio, but 2"),
    "samples of 16 bits as floats": ("audio", lambda files: [(np.full(9000, 999.0), 16_000)], {}, "soundfile"),
    "an unknown option": ("video", lambda files: [files["clip"]], {"num_frame": 4}, "num_frames"),
    "contradictions": (
        "video",
        lambda files: [files["clip"]],
        {"load_audio_from_video": True, "use_audio_in_video": False},
        "one of the two names",
    ),
    "too long": ("image", lambda files: [files["wide"]], {}, "maximum (context|model) length"),
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_mistake_is_said_in_a_sentence_and_the_engine_goes_on(nano, reference, files, mistake):
    modality, media, options, said = MISTAKES[mistake]
    text = PROMPT.format({"image": "<image>", "video": "<vila/video>", "audio": "<sound>"}[modality])
    if mistake == "too long":
        text = text.replace("What", "What " * 5000)
    request = {"prompt": text, "multi_modal_data": {modality: media(files)}, "mm_processor_kwargs": options}
    with pytest.raises((ValueError, VLLMValidationError), match=said) as caught:
        nano.generate(request, greedy(), use_tqdm=False)
    print(caught.value)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)
    one = ask("What is heard first?", ("video", files["clip"]))
    assert tokens_of(chat(nano, [messages_of(one)], SOUND)) == answer(*reference, [one], **SOUND)
