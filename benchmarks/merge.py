"""
Laying out and merging the sequence: time by length, from a planned video to the embeddings that the model reads.
"""

import math
from pathlib import Path

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
from transformers_omnivinci.media import OmniVinciVideoMetadata
from transformers_omnivinci.processing.prompts import Placeholder, PromptBatch

from ._harness import Report, parser_on_device, take_turns

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


def plan_and_tokenize(processor, seconds: int, num_frames: int, repeats: int) -> tuple[dict, list[int]]:
    """Time to plan a video with sound and to write its prompt; and the token ids of that."""
    total = round(seconds * FPS)
    metadata = OmniVinciVideoMetadata(total_num_frames=total, fps=FPS, duration=total / FPS)
    metadata.frames_indices = processor.video_processor.sample_frames(metadata, num_frames=num_frames).tolist()
    batch = PromptBatch(
        prompts=[f"{processor.video_token}What is shown, and what is heard?"],
        placeholders=[[Placeholder("video", 0)]],
        images=[],
        videos=[None],
        clips=[],
        tracks=[None],
        heard=[True],
    )
    options = processor._merge_kwargs(processor.valid_processor_kwargs, processor.tokenizer.init_kwargs)

    def plan():
        return processor.plan_video(metadata, seconds * SAMPLING_RATE)

    def tokenize():
        return processor._tokenize(batch, {"image": [], "video": [plan().runs], "audio": []}, options)

    timings = take_turns({"plan": plan, "tokenize": tokenize}, repeats)
    row = tokenize()["input_ids"][0]
    return {
        "video (s)": seconds,
        "frames": num_frames,
        "groups": len(plan().groups),
        "positions": len(row),
        "planning (ms)": 1e3 * timings.median("plan"),
        "planning and tokenizing (ms)": 1e3 * timings.median("tokenize"),
    }, row


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
        plan_and_tokenize(processor, seconds, num_frames, arguments.repeats)
        for seconds, num_frames in ((36, 3), (360, 26), (3600, 256))
    ]
    rows = [row for row, _ in planned]
    add_exponents(rows, "planning (ms)", "planning and tokenizing (ms)")
    report.add("A video with sound, from its header to token ids", rows)

    kinds = {processor.video_token_id: "video", processor.audio_token_id: "audio"}
    hour = [kinds.get(token, "text") for token in planned[-1][1]]
    model = build_model(arguments.hidden_size, arguments.device, getattr(torch, arguments.dtype))
    rows = [
        merge(model, hour[: positions // arguments.batch_size], arguments.batch_size, arguments.repeats)
        for positions in arguments.positions
    ]
    add_exponents(rows, "merged (ms)")
    report.add(f"Merging {arguments.batch_size} rows of that hour, its beginning (wanted: linear, growth 1)", rows)
    report.save()


if __name__ == "__main__":
    main()
