"""
Long files: the peak memory of a process that watches ten minutes of 720p video with sound, and an hour of it, and
answers a question.
"""

import argparse
import io
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from multiprocessing import get_context
from pathlib import Path

import av
import torch
from transformers import AutoModel, AutoProcessor

from transformers_omnivinci import NANO, OmniVinciConfig, OmniVinciForConditionalGeneration, Session
from transformers_omnivinci.cli import app

from ._harness import MB, Report, resident
from .sessions import render

NOTE = (
    "Peak resident set of a fresh process each: Python, torch, model and decoders included. The clip is a minute of "
    "720p H.264 with AAC, {fps} frames a second, whose packets are repeated. The model is random, of nano's sizes, "
    "but sees frames of 448 px as the 9B model does, 4 embeddings each, and has a head of keys and values for six of "
    "queries. There are 5 embeddings of sound per second."
)
QUESTION = "What happens in the clip?"
NUM_TOKENS = 8
SIDE, PATCH = 448, 56


def repeat(source: Path, path: Path, times: int) -> Path:
    """A clip that is another one several times, without encoding it again."""
    with av.open(str(source)) as given, av.open(str(path), "w") as made:
        streams = {stream.index: made.add_stream_from_template(stream) for stream in given.streams}
        packets = [packet for packet in given.demux() if packet.dts is not None]
        # Of the sound only packets that end with the picture: they are to follow each other.
        starts = {index: min(one.dts for one in packets if one.stream.index == index) for index in streams}
        end = given.streams.video[0].duration * given.streams.video[0].time_base
        packets = [
            one for one in packets if (one.dts - starts[one.stream.index] + one.duration) * one.time_base <= end
        ]
        lengths = {index: sum(one.duration for one in packets if one.stream.index == index) for index in streams}
        for number in range(times):
            for packet in packets:
                index = packet.stream.index
                copied = av.Packet(bytes(packet))
                copied.pts, copied.dts = (value + number * lengths[index] for value in (packet.pts, packet.dts))
                copied.duration, copied.time_base = packet.duration, packet.time_base
                copied.is_keyframe, copied.stream = packet.is_keyframe, streams[index]
                made.mux(copied)
    return path


def build(folder: Path) -> Path:
    """Writes a random model that sees frames of 448 px, with its processor."""
    torch.manual_seed(0)
    settings = OmniVinciConfig.from_pretrained(NANO).to_dict()
    settings["vision_config"] |= {"image_size": SIDE, "patch_size": PATCH}
    settings |= {"s2_scales": [SIDE]}
    # Heads share keys and values as in the 9B model, where seven do.
    settings["text_config"] |= {"num_key_value_heads": 1, "max_position_embeddings": 65_536}
    OmniVinciForConditionalGeneration(OmniVinciConfig.from_dict(settings)).float().save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    processor = AutoProcessor.from_pretrained(NANO, size=size, patch_size=PATCH, s2_scales=[SIDE])
    processor.tokenizer.model_max_length = 65_536
    processor.save_pretrained(folder)
    return folder


def ask_session(model: str, clip: str, fps: float) -> str:
    """The answer of a session."""
    session = Session(*_load(model))
    session.watch(clip, fps=fps)
    return session.ask(QUESTION, max_new_tokens=NUM_TOKENS)


def ask_command(model: str, clip: str, fps: float) -> str:
    """The answer of `omnivinci ask`."""
    options = {"--model": model, "--fps": fps, "--max-new-tokens": NUM_TOKENS, "--device": "cpu"}
    with redirect_stdout(io.StringIO()) as printed:
        app(
            ["ask", clip, QUESTION, *(str(one) for option in options.items() for one in option)], standalone_mode=False
        )
    return printed.getvalue().rstrip("\n")


def ask_at_once(model: str, clip: str, fps: float) -> str:
    """The answer of one `generate` over all frames and windows as tensors."""
    model, processor = _load(model)
    content = [{"type": "video", "path": clip}, {"type": "text", "text": QUESTION}]
    how = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template([{"role": "user", "content": content}], **how, fps=fps)
    made = model.generate(**inputs, max_new_tokens=NUM_TOKENS)[0, inputs["input_ids"].shape[1] :]
    return processor.decode(made, skip_special_tokens=True)


def _load(model: str):
    return AutoModel.from_pretrained(model), AutoProcessor.from_pretrained(model)


WAYS = {"a session": ask_session, "`omnivinci ask`": ask_command, "all tensors at once": ask_at_once}


def measure(way: str, model: str, clip: str, fps: float) -> dict:
    """A row, and the answer."""
    begun = time.perf_counter()
    answer = WAYS[way](model, clip, fps)
    assert answer, "The model says nothing, which tells nothing of its answers."
    return {"peak (MB)": resident("VmHWM") / MB, "time (s)": time.perf_counter() - begun, "answer": str(answer)}


def count(model: str, clip: str, fps: float) -> dict:
    """Positions of the prompt, and the size of the language model's cache of them."""
    processor, config = AutoProcessor.from_pretrained(model), OmniVinciConfig.from_pretrained(model).text_config
    content = [{"type": "video", "path": clip}, {"type": "text", "text": QUESTION}]
    length = processor.count_tokens([{"role": "user", "content": content}], fps=fps)
    width = config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    size = 2 * config.num_hidden_layers * width * torch.float32.itemsize
    return {"positions": length, "cache (MB)": length * size / MB}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_files", description=__doc__.strip())
    parser.add_argument("--minutes", type=int, nargs="+", default=[10, 60], help="lengths of clips (default: 10 60)")
    parser.add_argument("--fps", type=float, default=0.5, help="frames per second that are used (default: 0.5)")
    parser.add_argument("--clip-fps", type=int, default=10, help="frames per second of the clip (default: 10)")
    arguments = parser.parse_args()
    report = Report("long_files", vars(arguments), NOTE.format(fps=arguments.clip_fps))
    with tempfile.TemporaryDirectory() as folder:
        minute = render(Path(folder, "minute.mp4"), 60.0, fps=arguments.clip_fps)
        model, rows = str(build(Path(folder, "model"))), []
        for minutes in arguments.minutes:
            clip = str(repeat(minute, Path(folder, f"{minutes}.mp4"), minutes))
            counted = count(model, clip, arguments.fps)
            for way in WAYS:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    row = pool.submit(measure, way, model, clip, arguments.fps).result()
                rows.append({"way": way, "clip (min)": minutes} | counted | row)
            Path(clip).unlink()
    for row in rows:
        first = next(one for one in rows if one["way"] == row["way"])
        row["to the shortest ×"] = row["peak (MB)"] / first["peak (MB)"]
        row["answers equal"] = len({one["answer"] for one in rows if one["clip (min)"] == row["clip (min)"]}) == 1
    rows = [{name: row[name] for name in row if name != "answer"} for row in rows]
    report.add(f"720p with sound at {arguments.fps:g} frames per second", rows)
    report.save()


if __name__ == "__main__":
    main()
