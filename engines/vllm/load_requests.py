"""Requests of a load test: unlike media and questions, wrong ones, and how clients ask and go away."""

import base64
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.media_files import write_video
from transformers_omnivinci.synthetic import SyntheticDataset, write_clip

CAPTION = "What happens?"
MAX_TOKENS = 48
HEARD = {"load_audio_from_video": True}
TYPES = {"video_url": "video/mp4", "image_url": "image/png", "audio_url": "audio/wav"}


@dataclass(frozen=True)
class Request:
    """
    A chat of one turn.

    Attributes:
        kind: What media it has.
        content: As OpenAI's clients send it.
        options: `mm_processor_kwargs`.
        error: A part of the message of the error that is due. `None`: an answer is.
    """

    kind: str
    content: list[dict] = field(repr=False)
    options: dict = field(default_factory=dict)
    error: str | None = None

    def arguments(self) -> dict:
        """Of `chat.completions.create`."""
        return {
            "messages": [{"role": "user", "content": self.content}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "extra_body": {"mm_processor_kwargs": self.options} if self.options else None,
        }

    @property
    def is_long(self) -> bool:
        """Whether its answer has many tokens."""
        return self.content[-1]["text"] == CAPTION


def item(kind: str, data: bytes) -> dict:
    """A content item with a data URL. `kind`: one of `TYPES`."""
    return {"type": kind, kind: {"url": f"data:{TYPES[kind]};base64,{base64.b64encode(data).decode()}"}}


def input_audio(data: bytes) -> dict:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}


def text(question: str) -> dict:
    return {"type": "text", "text": question}


class Media:
    """Files of the synthetic world, with the questions that belong to them."""

    def __init__(self, folder: Path, seed: int = 0, videos: int = 12, others: int = 6):
        self.videos = [*_files(folder, "video", videos, seed)]
        self.images = [*_files(folder, "image", others, seed)]
        self.sounds = [*_files(folder, "audio", others, seed)]
        self.silent = [*_silent(folder, others, seed)]


def _files(folder: Path, modality: str, count: int, seed: int) -> Iterator[tuple[bytes, list[str]]]:
    dataset = SyntheticDataset("test", count, seed, modality=modality, questions_per_clip=2)
    suffix = {"video": "mp4", "image": "png", "audio": "wav"}[modality]
    for sample in dataset:
        path = folder / f"{sample.id}.{suffix}"
        write_clip(path, dataset.render(sample))
        yield path.read_bytes(), [question.text for question in sample.questions]


def _silent(folder: Path, count: int, seed: int) -> Iterator[tuple[bytes, list[str]]]:
    for sample in (dataset := SyntheticDataset("test", count, seed + 1, types=["visual"])):
        clip = dataset.render(sample)
        height, width = clip.frames.shape[1:3]
        path = folder / f"{sample.id}.mp4"
        write_video(path, len(clip.frames), size=(width, height), fps=clip.fps, pictures=[*clip.frames])
        yield path.read_bytes(), [question.text for question in sample.questions]


def right_requests(media: Media) -> list[Request]:
    """Every kind of request that is answered, several questions about each medium among them."""
    requests = [Request("text", [text(f"{CAPTION} {number}")]) for number in range(4)]
    for number, (video, questions) in enumerate(media.videos):
        clip = item("video_url", video)
        requests += [Request("sounding video", [clip, text(question)]) for question in [CAPTION, *questions]]
        options = {"use_audio_in_video": True, "num_frames": 8} if number % 2 else {"load_audio_from_video": False}
        requests.append(Request("video with options", [clip, text(questions[0])], options))
    for number, (video, questions) in enumerate(media.silent):
        clip = item("video_url", video)
        options = {"load_audio_from_video": False} if number % 2 else {}
        requests += [Request("silent video", [clip, text(question)], options) for question in [CAPTION, *questions]]
    for picture, questions in media.images:
        image = item("image_url", picture)
        requests += [Request("image", [image, text(question)]) for question in questions]
    for number, (sound, questions) in enumerate(media.sounds):
        clip = input_audio(sound) if number % 2 else item("audio_url", sound)
        requests += [Request("audio", [clip, text(question)]) for question in [CAPTION, *questions]]
    for video, image, sound in zip(media.videos, media.images, media.sounds, strict=False):
        mixed = [item("image_url", image[0]), item("video_url", video[0]), input_audio(sound[0])]
        requests += [
            Request("mix", [*mixed, text(CAPTION)]),
            Request("mix", [*mixed[1:], mixed[0], text(video[1][0])]),
        ]
    return requests


def wrong_requests(media: Media) -> list[Request]:
    """Requests with one thing wrong each, and what the error has to say."""
    video, silent, image = (files[0][0] for files in (media.videos, media.silent, media.images))
    question = text(CAPTION)
    return [
        Request("damaged video", [item("video_url", video[:2000]), question], error="media file"),
        Request("no video", [item("video_url", b"no video" * 99), question], error="media file"),
        Request("damaged image", [item("image_url", image[:60]), question], error="image"),
        Request("damaged sound", [item("audio_url", b"RIFF" * 99), question], error="audio"),
        Request(
            "silent video",
            [item("video_url", silent), question],
            {"load_audio_from_video": True},
            "asks for the sound",
        ),
        Request("options", [item("video_url", video), question], {"num_frame": 4}, "num_frame"),
        Request("too long", [item("video_url", video)] * 60 + [question], error="maximum context length"),
    ]


@dataclass(frozen=True)
class Call:
    """
    A request as a client makes it.

    Attributes:
        stream: Whether the answer comes token by token.
        leaves_after (*optional*): The client disconnects so many seconds after it asked.
        leaves_at (*optional*): The client disconnects at this piece of the stream.
    """

    request: Request
    stream: bool = False
    leaves_after: float | None = None
    leaves_at: int | None = None

    @property
    def is_cancelled(self) -> bool:
        return self.leaves_after is not None or self.leaves_at is not None


def draw_calls(right: list[Request], wrong: list[Request], count: int, seed: int) -> list[Call]:
    """`count` calls in random order: a tenth disconnects while waiting, a tenth in a stream, a twentieth is wrong."""
    rng = random.Random(seed)
    tenth = count // 10
    long = [request for request in right if request.is_long and request.kind != "text"]
    calls = [Call(request, stream=rng.random() < 0.5) for request in rng.choices(wrong, k=tenth // 2)]
    calls += [
        Call(request, stream=rng.random() < 0.5, leaves_after=rng.uniform(0.2, 3.0))
        for request in rng.choices(right, k=tenth)
    ]
    calls += [Call(request, stream=True, leaves_at=rng.randint(2, 6)) for request in rng.choices(long, k=tenth)]
    calls += [Call(request, stream=rng.random() < 0.5) for request in rng.choices(right, k=count - len(calls))]
    rng.shuffle(calls)
    return calls
