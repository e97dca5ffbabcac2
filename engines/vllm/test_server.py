"""The OpenAI server of vLLM, asked by the openai client: what it answers is what transformers generates."""

import base64
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import PIL.Image
import pytest

from engines.vllm.asking import answer, ask
from tests.conftest import CLIP
from tests.media_files import Sound, write_audio, write_video
from transformers_omnivinci import NANO

SOUND = {"mm_processor_kwargs": {"load_audio_from_video": True}}
STARTS_WITHIN = 300


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The URL of a server of nano that hears videos, and lets requests say how media are read."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", NANO, "--port", str(port)]
    command += ["--served-model-name", "nano", "--dtype", "float32", "--enforce-eager", "--max-model-len", "4096"]
    command += ["--block-size", "32", "--trust-request-mm-kwargs", "--enable-prompt-tokens-details"]
    command += ["--allowed-local-media-path", os.path.dirname(CLIP)]
    log = tmp_path_factory.mktemp("server") / "log"
    with open(log, "w") as written:
        process = subprocess.Popen([str(word) for word in command], stdout=written, stderr=subprocess.STDOUT)
    try:
        deadline, client = time.monotonic() + STARTS_WITHIN, _client(port)
        while True:
            try:
                client.models.list()
                break
            except openai.APIConnectionError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(1)
        yield client
        assert process.poll() is None, log.read_text()[-3000:]
    finally:
        process.terminate()
        process.wait(60)


def _client(port):
    return openai.OpenAI(base_url=f"http://localhost:{port}/v1", api_key="none", max_retries=0)


def data_url(path, kind):
    with open(path, "rb") as file:
        return f"data:{kind};base64,{base64.b64encode(file.read()).decode()}"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    samples = 0.3 * np.sin(np.arange(48_000) / 9)[None].astype(np.float32)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 120, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(folder / "image.png")
    mono = Sound(rate=16_000, layout="mono", codec="pcm_s16le")
    sound = write_audio(folder / "sound.wav", mono, samples)
    silent = write_video(folder / "silent.mp4", 48)
    return {"image": folder / "image.png", "audio": sound, "silent": silent, "video": CLIP}


def parts_of(files, *modalities):
    kinds = {"image": "image/png", "video": "video/mp4", "audio": "audio/wav", "silent": "video/mp4"}
    parts = []
    for modality in modalities:
        url, name = data_url(files[modality], kinds[modality]), {"silent": "video"}.get(modality, modality)
        parts.append({"type": f"{name}_url", f"{name}_url": {"url": url}})
    return parts


def complete(client, parts, question, stream=False, **options):
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]
    return client.chat.completions.create(
        model="nano", messages=messages, max_tokens=12, temperature=0, stream=stream, extra_body=options
    )


def text_of(completion):
    return completion.choices[0].message.content


@pytest.fixture(scope="module")
def expected(references, files):
    """What transformers answers about media, by the whole text."""
    model, processor = references(NANO)

    def find(question, *modalities, **options):
        media = [({"silent": "video"}.get(name, name), files[name]) for name in modalities]
        [tokens] = answer(model, processor, [ask(question, *media)], **options)
        return processor.decode(tokens, skip_special_tokens=True)

    return find


CASES = {
    "a video with its sound": (("video",), "What is heard first?", SOUND),
    "by the name of Qwen": (("video",), "What is heard first?", {"mm_processor_kwargs": {"use_audio_in_video": True}}),
    "a video without": (("silent",), "Which shape is shown?", {}),
    "an image": (("image",), "What is this?", {}),
    "a sound": (("audio",), "What is heard?", {}),
    "a sound and a video": (("audio", "video"), "What is heard first?", SOUND),
    "all": (("image", "audio", "video"), "What happens?", SOUND),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_answers_are_those_of_transformers(server, files, expected, case):
    modalities, question, options = CASES[case]
    heard = {} if options else {"load_audio_from_video": False}
    right = expected(question, *modalities, **(heard if options == {} else {"load_audio_from_video": True}))
    assert text_of(complete(server, parts_of(files, *modalities), question, **options)) == right


def test_input_audio_and_a_file_url_are_understood(server, files, expected):
    data = data_url(files["audio"], "audio/wav").partition(",")[2]
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    assert text_of(complete(server, [part], "What is heard?")) == expected("What is heard?", "audio")
    part = {"type": "video_url", "video_url": {"url": f"file://{CLIP}"}}
    right = expected("What is heard first?", "video", load_audio_from_video=True)
    assert text_of(complete(server, [part], "What is heard first?", **SOUND)) == right


def test_a_stream_has_the_same_text_in_several_parts(server, files, expected):
    parts = parts_of(files, "video")
    chunks = list(complete(server, parts, "What happens?", stream=True, **SOUND))
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == expected("What happens?", "video", load_audio_from_video=True)
    assert sum(map(bool, texts)) > 3


def test_frames_are_chosen_by_either_group_of_options(server, files, expected):
    right = expected("Which shape is shown first?", "video", load_audio_from_video=True, num_frames=4)
    parts = parts_of(files, "video")
    by_processor = {"mm_processor_kwargs": {"load_audio_from_video": True, "num_frames": 4}}
    by_media = SOUND | {"media_io_kwargs": {"video": {"num_frames": 4}}}
    for options in (by_processor, by_media):
        assert text_of(complete(server, parts, "Which shape is shown first?", **options)) == right


def test_frames_as_jpegs_are_a_silent_video(server, references, tmp_path):
    frames = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), np.uint8)
    paths = [tmp_path / f"{number}.jpg" for number in range(len(frames))]
    for frame, path in zip(frames, paths, strict=True):
        PIL.Image.fromarray(frame).save(path, quality=95)
    model, processor = references(NANO)
    given = np.stack([np.asarray(PIL.Image.open(path)) for path in paths])
    question = ask("Which shape is shown?", ("video", given))
    question[0]["content"][0] = {"type": "video"}
    prompt = processor.tokenizer.apply_chat_template(
        question, chat_template=processor.chat_template, add_generation_prompt=True, tokenize=False
    )
    inputs = processor(prompt, videos=[(given, {"fps": 2.0})], load_audio_from_video=False, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    data = ",".join(base64.b64encode(path.read_bytes()).decode() for path in paths)
    part = {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{data}"}}
    options = {"media_io_kwargs": {"video": {"fps": 2.0}}, "mm_processor_kwargs": {"load_audio_from_video": False}}
    completion = complete(server, [part], "Which shape is shown?", **options)
    assert text_of(completion) == processor.decode(tokens, skip_special_tokens=True)
    assert completion.usage.prompt_tokens == inputs["input_ids"].shape[1]


def test_a_second_question_is_cached(server, files):
    parts = parts_of(files, "video")
    for question in ("What is heard last?", "Which colour has it?"):
        usage = complete(server, parts, question, **SOUND).usage
    assert usage.prompt_tokens_details.cached_tokens >= 64


MISTAKES = {
    "no sound": (("silent",), SOUND, "asks for the sound"),
    "unknown option": (("video",), {"mm_processor_kwargs": {"num_frame": 4}}, "num_frames"),
    "unknown option of media": (("video",), {"media_io_kwargs": {"video": {"num_frame": 4}}}, "num_frames"),
    "damaged": (b"no video" * 99, {}, "FFmpeg"),
    "too long": (("image",), {}, "maximum"),
}


def test_mistakes_fail_alone_with_a_sentence(server, files, expected):
    right = expected("What is heard first?", "video", load_audio_from_video=True)

    def run(mistake):
        if mistake is None:
            return text_of(complete(server, parts_of(files, "video"), "What is heard first?", **SOUND))
        media, options, said = MISTAKES[mistake]
        if isinstance(media, bytes):
            url = f"data:video/mp4;base64,{base64.b64encode(media).decode()}"
            parts = [{"type": "video_url", "video_url": {"url": url}}]
        else:
            parts = parts_of(files, *media)
        with pytest.raises(openai.BadRequestError, match=said) as caught:
            complete(server, parts, "What " * (5000 if mistake == "too long" else 1), **options)
        return str(caught.value)

    names = [name for mistake in MISTAKES for name in (mistake, None)]
    with ThreadPoolExecutor(len(names)) as executor:
        results = list(executor.map(run, names))
    assert [results[place] for place, name in enumerate(names) if name is None] == [right] * len(MISTAKES)
