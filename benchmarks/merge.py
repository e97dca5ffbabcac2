"""
Laying out and merging the sequence: time by length, from the facts of a video to the embeddings that the model reads.
"""

import math
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from transformers_omnivinci import (
    OmniVinciConfig,
    OmniVinciImageProcessor,
    OmniVinciModel,
    OmniVinciProcessor,
    OmniVinciVideoProcessor,
)
from transformers_omnivinci.modeling.constrained_rotary_time_embedding import ConstrainedRotaryTimeEmbedding
from transformers_omnivinci.planning import sample_uniformly

from ._harness import MB, PeakMemory, Report, parser_on_device, take_turns

NOTE = "Published settings of the sequence; a narrow language model that does not run, with random weights."
TOKENIZER = Path(__file__).parent.parent / "tests" / "fixtures" / "parity" / "published-tiny" / "llm"
SAMPLING_RATE, FPS = 16_000, 30.0


def build_processor() -> OmniVinciProcessor:
    """With the published settings; the tokenizer is that of the tests, and counts as many tokens for media."""
    return OmniVinciProcessor(
        OmniVinciImageProcessor(),
        OmniVinciVideoProcessor(),
        WhisperFeatureExtractor(feature_size=128, chunk_length=30),
        AutoTokenizer.from_pretrained(TOKENIZER, model_max_length=10**9),
    )


def build_model(hidden_size: int, device: str, dtype: torch.dtype) -> OmniVinciModel:
    """A model that is narrow wherever merging does not look."""
    config = OmniVinciConfig(
        text_config={
            "model_type": "qwen2",
            "hidden_size": hidden_size,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "vocab_size": 1024,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "image_size": 448,
        },
        audio_config={"d_model": 8, "encoder_layers": 1, "encoder_attention_heads": 1, "encoder_ffn_dim": 8},
        image_token_id=1021,
        video_token_id=1022,
        audio_token_id=1023,
    )
    return OmniVinciModel(config).to(device, dtype).eval()


def expand(processor, seconds: int, num_frames: int, repeats: int) -> tuple[dict, list[int]]:
    """
    Time to plan a video with sound and to expand its prompt to token ids: spliced, and with every placeholder written
    into the text that is tokenized, as processors of transformers do it. And the ids.
    """
    total = round(seconds * FPS)
    frames = np.zeros((num_frames, 448, 448, 3), np.uint8)  # of which nothing but the shape is read
    metadata = {"total_num_frames": total, "fps": FPS, "duration": total / FPS}
    metadata["frames_indices"] = sample_uniformly(total, num_frames)
    prompt = f"<|im_start|>user\n{processor.video_token}What is shown, and what is heard?<|im_end|>\n"

    def plan():
        return processor.plan(
            prompt,
            videos=[frames],
            video_metadata=[metadata],
            audio=[np.broadcast_to(np.float32(0), seconds * SAMPLING_RATE)],
            load_audio_from_video=True,
            audio_from_video_indices=[0],
        )

    tokenizer, planned = processor.tokenizer, plan()
    names = {token: tokenizer.decode([token]) for token, _ in planned.media[0].runs}

    def write() -> list[int]:
        written = "".join(names[token] * length for token, length in planned.media[0].runs)
        return tokenizer(prompt.replace(processor.video_token, written))["input_ids"]

    assert write() == planned.ids()
    timings = take_turns({"plan": plan, "splice": planned.ids, "write": write}, repeats)
    return {
        "video (s)": seconds,
        "frames": num_frames,
        "groups": len(planned.groups[0]),
        "positions": planned.length,
        "planning (ms)": 1e3 * timings.median("plan"),
        "splicing (ms)": 1e3 * timings.median("splice"),
        "as text (ms)": 1e3 * timings.median("write"),
        "splicing is faster": timings.ratio("write", "splice"),
    }, planned.ids()


def rotate(num_vectors: int, hidden_size: int, dtype: torch.dtype, device: str) -> dict:
    """How much more memory CRTE takes at its peak, its output included, by what the output takes."""
    time_embedding = ConstrainedRotaryTimeEmbedding(hidden_size, 3600.0)
    embeddings = torch.ones(num_vectors, hidden_size, dtype=dtype, device=device)
    timestamps = torch.linspace(0, 3600, num_vectors, device=device)
    time_embedding(embeddings[:1], timestamps[:1])
    with PeakMemory(device) as memory:
        rotated = time_embedding(embeddings, timestamps)
    output = rotated.numel() * rotated.element_size()
    return {
        "vectors": num_vectors,
        "channels": hidden_size,
        "output (MB)": output / MB,
        "peak (MB)": memory.bytes / MB,
        "peak by output": memory.bytes / output,
    }


def merge(model: OmniVinciModel, kinds: list[str], batch_size: int, repeats: int) -> dict:
    """Time to place the embeddings of media into a batch whose rows have a position of each of `kinds`."""
    config, weight = model.config, model.get_input_embeddings().weight
    ids = {"text": 5, "video": config.video_token_id, "audio": config.audio_token_id}
    input_ids = torch.tensor([[ids[kind] for kind in kinds]] * batch_size, device=weight.device)
    encoded = {
        kind: BaseModelOutputWithPooling(
            pooler_output=[
                torch.randn(kinds.count(kind), weight.shape[1], device=weight.device, dtype=weight.dtype)
                for _ in range(batch_size)
            ]
        )
        for kind in ("video", "audio")
    }
    timings = take_turns(
        {
            "embed": lambda: model.get_input_embeddings()(input_ids),
            "merge": lambda: model.get_inputs_embeds(input_ids, mm_encoder_outputs=encoded),
        },
        repeats,
    )
    merged = model.get_inputs_embeds(input_ids, mm_encoder_outputs=encoded)
    for kind, output in encoded.items():
        assert torch.equal(merged[input_ids == ids[kind]], torch.cat(output.pooler_output))
    return {
        "positions": input_ids.numel(),
        "of media": sum(len(clip) for output in encoded.values() for clip in output.pooler_output),
        "text alone (ms)": 1e3 * timings.median("embed"),
        "merged (ms)": 1e3 * timings.median("merge"),
    }


def add_exponents(rows: list[dict], *keys: str) -> None:
    """Adds to each row how the time grew since the last: 1 is linear in the positions."""
    for key in keys:
        for row, last in zip(rows, [None, *rows]):
            if last is not None:
                growth = math.log(row[key] / last[key]) / math.log(row["positions"] / last["positions"])
            row[f"growth of {key.removesuffix(' (ms)')}"] = None if last is None else growth


@torch.inference_mode()
def main() -> None:
    parser = parser_on_device("python -m benchmarks.merge", __doc__.strip())
    parser.add_argument("--hidden-size", type=int, default=896, help="of the embeddings (default: 896)")
    parser.add_argument("--batch-size", type=int, default=2, help="rows of a batch (default: 2)")
    parser.add_argument("--positions", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="of a batch")
    parser.add_argument("--repeats", type=int, default=7, help="rounds (default: 7)")
    arguments = parser.parse_args()
    report = Report("merge", vars(arguments), NOTE)
    torch.manual_seed(0)

    processor = build_processor()
    planned = [
        expand(processor, seconds, num_frames, arguments.repeats)
        for seconds, num_frames in ((36, 3), (360, 26), (3600, 256))
    ]
    rows = [row for row, _ in planned]
    add_exponents(rows, "planning (ms)", "splicing (ms)")
    report.add("A video with sound, from its header to token ids", rows)

    dtype = getattr(torch, arguments.dtype)
    rows = [rotate(number, 3584, dtype, arguments.device) for number in (9_000, 90_000)]
    report.add("Peak memory of CRTE at the published width (wanted: at most twice the output)", rows)

    kinds = {processor.video_token_id: "video", processor.audio_token_id: "audio"}
    hour = [kinds.get(token, "text") for token in planned[-1][1]]
    model = build_model(arguments.hidden_size, arguments.device, dtype)
    rows = [
        merge(model, hour[: positions // arguments.batch_size], arguments.batch_size, arguments.repeats)
        for positions in arguments.positions
    ]
    add_exponents(rows, "merged (ms)")
    report.add(f"Merging {arguments.batch_size} rows of that hour, its beginning (wanted: linear, growth 1)", rows)
    report.save()


if __name__ == "__main__":
    main()
