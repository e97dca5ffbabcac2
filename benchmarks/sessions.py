"""
Sessions: how soon the first token of an answer comes, at the first question about a clip, at later ones, and while a
clip is watched live.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch
from transformers import AutoModel, AutoProcessor

from transformers_omnivinci import NANO, LiveSource, OmniVinciConfig, OmniVinciForConditionalGeneration, Session
from transformers_omnivinci.processing.batch import take_media
from transformers_omnivinci.sessions import Policy

from ._harness import Report, take_turns

NOTE = (
    "Seconds from the question to the first token of its answer, greedily; the first question begins with the file. "
    "The larger model is random: SigLIP, audio encoder and Qwen2 of the sizes below, with nano's tokenizer and layout."
)
OPTIONS = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}
FIRST = "What happens in the clip?"
SECOND = "Which sound is heard at the end?"
RATE = 16_000
PARTS = ("asking", "stream", "live")
# Sends the packets of a clip when they are due, and says first when it has begun.
CAMERA = """
import sys, time, av
_, path, seconds = sys.argv
options = {"flush_packets": "1", "pes_payload_size": "0"}
pipe = open(1, "wb", buffering=0)
with av.open(path) as reader, av.open(pipe, "w", format="mpegts", options=options) as writer:
    streams = {stream: writer.add_stream_from_template(stream) for stream in reader.streams}
    packets = [packet for packet in reader.demux() if packet.dts is not None]
    packets.sort(key=lambda packet: packet.dts * packet.time_base)  # a camera does not send its sound later
    begun = time.time()
    print(begun, file=sys.stderr, flush=True)
    for packet in packets:
        second = float(packet.dts * packet.time_base)
        if second < float(seconds):
            time.sleep(max(0.0, begun + second - time.time()))
            packet.stream = streams[packet.stream]
            writer.mux(packet)
"""


def render(path: Path, seconds: float, height: int = 720, width: int = 1280, fps: int = 30) -> Path:
    """Writes an H.264 clip in which a bar moves, with a tone in AAC."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        for index in range(round(seconds * fps)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(draw(index, height, width), format="rgb24")))
        samples = tone(0, seconds)
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            container.mux(audio.encode(frame))
        container.mux(video.encode())
        container.mux(audio.encode())
    return path


def draw(index: int, height: int, width: int) -> np.ndarray:
    """A frame (height, width, 3) with a bar at a place of its own."""
    frame = np.full((height, width, 3), 40, np.uint8)
    place = index * 7 % (width - 40)
    frame[:, place : place + 40] = (200, index % 256, 60)
    return frame


def tone(start: float, seconds: float) -> np.ndarray:
    """A tone that changes with each second."""
    moments = start + np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * (300 + 20 * np.floor(moments % 20)) * moments)).astype(np.float32)


def build_random(processor) -> OmniVinciForConditionalGeneration:
    """A random model of some hundred million parameters that reads what nano's processor makes."""
    settings = OmniVinciConfig.from_pretrained(NANO).to_dict()
    text = {"hidden_size": 1024, "num_hidden_layers": 16, "intermediate_size": 2816, "num_attention_heads": 16}
    settings["text_config"] |= text | {"num_key_value_heads": 4, "layer_types": ["full_attention"] * 16}
    settings["vision_config"] |= {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
    settings["vision_config"] |= {"num_attention_heads": 12}
    settings["audio_config"] |= {"d_model": 512, "encoder_layers": 8, "encoder_attention_heads": 8}
    settings["audio_config"] |= {"encoder_ffn_dim": 2048}
    settings["text_config"]["max_position_embeddings"] = 32_768
    torch.manual_seed(0)
    return OmniVinciForConditionalGeneration(OmniVinciConfig.from_dict(settings)).float().eval()


def first_token(call) -> None:
    """Runs a generation up to its first token."""
    call(max_new_tokens=1, min_new_tokens=1, do_sample=False)


def ask_again(model, processor, clip: Path, options: dict, repeats: int) -> list[dict]:
    """The second question in three ways, each against the first one."""

    def chat(question):
        return [
            {"role": "user", "content": [{"type": "video", "path": str(clip)}, {"type": "text", "text": question}]}
        ]

    def prepare(question):
        return processor.apply_chat_template(chat(question), **OPTIONS, **options)

    session = Session(model, processor)
    session.watch(clip, **options)
    kept = prepare(FIRST)
    media = take_media(kept)
    with torch.no_grad():
        encoded = model.encode_media(**media)

    def first():
        fresh = Session(model, processor)
        fresh.watch(clip, **options)
        first_token(lambda **greedy: fresh.ask(FIRST, **greedy))

    def again():
        first_token(lambda **greedy: model.generate(**prepare(SECOND), **greedy))

    def from_encoded():
        inputs = prepare(SECOND)
        take_media(inputs)
        first_token(lambda **greedy: model.generate(**inputs, mm_encoder_outputs=encoded, **greedy))

    ways = {
        "a session, first": first,
        "generate, everything again": again,
        "generate with `encode_media`, the file read again": from_encoded,
        "a session, second": lambda: first_token(lambda **greedy: session.ask(SECOND, **greedy)),
    }
    timings = take_turns(ways, repeats)
    asked = session.ask(SECOND, max_new_tokens=16, do_sample=False)
    inputs = prepare(SECOND)
    whole = model.generate(**inputs, max_new_tokens=16, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()
    return [
        {
            "question": name,
            "first token (s)": timings.median(name),
            "of the first (%)": 100 * timings.ratio(name, "a session, first"),
            "positions": asked.prompt_tokens,
            "answers equal": "yes" if whole == asked.token_ids else "no",
        }
        for name in ways
    ]


def watch_live(model, processor, seconds: list[int], repeats: int, policy: Policy | None) -> list[dict]:
    """Time to the first token after so many seconds of a clip of 2 frames a second, and what feeding a second took."""
    session, rows, fed = Session(model, processor, policy=policy), [], []
    for second in range(max(seconds)):
        frames = [draw(60 * second + step, 180, 320) for step in (0, 30)]
        start = time.perf_counter()
        session.feed(frames, [second, second + 0.5], tone(second, 1.0), start=second)
        fed.append(time.perf_counter() - start)
        if second + 1 in seconds:
            timings = take_turns({"ask": lambda: first_token(lambda **greedy: session.ask(SECOND, **greedy))}, repeats)
            answer = session.ask(SECOND, max_new_tokens=1)
            rows.append(
                {
                    "watched (s)": float(second + 1),
                    "first token (s)": timings.median("ask"),
                    "positions": answer.prompt_tokens,
                    "read at the question": answer.prompt_tokens - answer.cached_tokens,
                    "feeding a second (s)": float(np.median(fed[-10:])),
                }
            )
    return [{**row, "to the shortest ×": row["first token (s)"] / rows[0]["first token (s)"]} for row in rows]


def follow_stream(model, processor, clip: Path, seconds: float) -> dict:
    """
    How far a session is behind a camera: another process sends the clip as MPEG-TS at its pace, and [`LiveSource`]
    gives two frames a second and the sound. Counted from when the second was sent at which a chunk ends.
    """
    command = [sys.executable, "-c", CAMERA, str(clip), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as camera:
        begun, lags, kinds = float(camera.stderr.readline()), [], []
        session = Session(model, processor)
        with LiveSource(camera.stdout, fps=2.0, chunk_seconds=0.5) as source:
            for chunk in source:
                session.feed(*chunk.media)
                lags.append(time.time() - begun - chunk.end)
                kinds += [event.kind for event in chunk.events]
    [clip] = session.timeline()
    return {
        "stream (s)": clip.duration,
        "frames": round(sum((last - first) * rate + 1 for first, last, rate in clip.seen)),
        "median behind (s)": float(np.median(lags)),
        "most behind (s)": float(np.max(lags)),
        "events": ", ".join(dict.fromkeys(kinds)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sessions", description=__doc__.strip())
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the clip (default: 60)")
    parser.add_argument("--live", type=int, nargs="+", default=[10, 100, 1000], help="default: 10 100 1000")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count (default: 5)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured (default: all)")
    arguments = parser.parse_args()
    report = Report("sessions", vars(arguments), NOTE)
    processor = AutoProcessor.from_pretrained(NANO)
    nano = AutoModel.from_pretrained(NANO, dtype=torch.float32).eval()
    # Without the warning that nano was made for 4,096 positions: its answers are not looked at here.
    processor.tokenizer.model_max_length = 100_000
    with tempfile.TemporaryDirectory() as folder:
        clip = render(Path(folder, "clip.mp4"), arguments.seconds) if {*arguments.parts} != {"live"} else None
        if "asking" in arguments.parts:
            random = build_random(processor)
            size = sum(weight.numel() for weight in random.parameters()) / 1e6
            for name, model in (("nano", nano), (f"random, {size:.0f} million parameters", random)):
                rows = ask_again(model, processor, clip, {"fps": 2.0}, arguments.repeats)
                report.add(f"Asking again about {arguments.seconds:g} s of 720p30 with sound at 2 fps, {name}", rows)
        if "stream" in arguments.parts:
            report.add("Behind a 720p30 stream with sound, nano", [follow_stream(nano, processor, clip, 20.0)])
    if "live" in arguments.parts:
        for limit, policy in (("without a limit", None), ("within 1,000 positions", Policy(max_tokens=1000))):
            rows = watch_live(nano, processor, arguments.live, 5, policy)
            report.add(f"From question to first token while watching, nano, {limit}", rows)
    report.save()


if __name__ == "__main__":
    main()
