"""
What `generate` costs for each token beside the language model: OmniVinci against a bare Qwen2 with the same weights.

Both generate greedily from prompts of the same length and share the modules of the language model, so that a step
differs in nothing but what is around it. The prompt of OmniVinci is text alone, or has a video with sound in it.
"""

import time

import torch
from transformers import AutoConfig, Qwen2ForCausalLM, StoppingCriteria, StoppingCriteriaList
from transformers.modeling_outputs import BaseModelOutputWithPooling

from transformers_omnivinci import NANO, OmniVinciConfig, OmniVinciForConditionalGeneration

from ._harness import Report, Timings, parser_on_device

NOTE = "Seconds of a step of decoding, prefill left out: the median over rounds, in which all variants take turns."
LARGE = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24, "num_attention_heads": 16}
LARGE |= {"num_key_value_heads": 4, "vocab_size": 32_000, "tie_word_embeddings": False}


class Clock(StoppingCriteria):
    """Notes when each token is there."""

    def __init__(self):
        self.times = []

    def __call__(self, input_ids: torch.Tensor, scores, **kwargs) -> torch.Tensor:
        if input_ids.is_cuda:
            torch.cuda.synchronize()
        self.times.append((time.perf_counter(), time.process_time()))
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def build_large() -> OmniVinciConfig:
    """A language model of some hundred million parameters, below encoders that hardly weigh anything."""
    return OmniVinciConfig(
        text_config={"model_type": "qwen2", "max_position_embeddings": 32_768, **LARGE},
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "image_size": 448,
        },
        audio_config={"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 1, "encoder_ffn_dim": 32},
        image_token_id=31_997,
        video_token_id=31_998,
        audio_token_id=31_999,
    )


def strip(model: OmniVinciForConditionalGeneration) -> Qwen2ForCausalLM:
    """The language model alone, of the same modules."""
    with torch.device("meta"):
        bare = Qwen2ForCausalLM(model.config.text_config)
    bare.model, bare.lm_head = model.model.language_model, model.lm_head
    bare.generation_config = model.generation_config
    return bare.eval()


@torch.inference_mode()
def compare(name: str, model, length: int, num_tokens: int, rounds: int) -> dict:
    """
    Times the steps of all variants.

    Args:
        name (`str`): Of the model.
        model ([`OmniVinciForConditionalGeneration`]): The model.
        length (`int`): Tokens of the prompts.
        num_tokens (`int`): Tokens that are generated in each round.
        rounds (`int`): Rounds that count; one before does not.
    """
    config, bare = model.config, strip(model)
    text = torch.randint(10, min(config.text_config.vocab_size, 1000), (1, length))
    special = {getattr(config, f"{kind}_token_id") for kind in ("image", "video", "audio")}
    text = torch.where(torch.isin(text, torch.tensor(sorted(special))), 6, text).to(model.device)
    mixed, encoded = text.clone(), {}
    for kind, part in (("video", slice(length // 8, length // 2)), ("audio", slice(length // 2, -length // 8))):
        mixed[:, part] = getattr(config, f"{kind}_token_id")
        shape = (mixed[0, part].numel(), config.text_config.hidden_size)
        encoded[kind] = BaseModelOutputWithPooling(
            pooler_output=[0.02 * torch.randn(shape, device=model.device, dtype=model.dtype)]
        )
    options = {"do_sample": False, "max_new_tokens": num_tokens, "min_new_tokens": num_tokens}
    variants = {
        "bare": lambda clock: bare.generate(text, attention_mask=torch.ones_like(text), **clock),
        "text": lambda clock: model.generate(text, attention_mask=torch.ones_like(text), **clock),
        "media": lambda clock: model.generate(
            mixed, attention_mask=torch.ones_like(mixed), mm_encoder_outputs=encoded, **clock
        ),
    }
    timings, answers = Timings(variants), {}
    for turn in range(rounds + 1):
        for variant, generate in variants.items():
            clock = Clock()
            answers[variant] = generate({**options, "stopping_criteria": StoppingCriteriaList([clock])})
            if turn:
                first, last = clock.times[0], clock.times[-1]
                for clocks, start, end in zip((timings.wall, timings.cpu), first, last, strict=True):
                    clocks[variant].append((end - start) / (len(clock.times) - 1))
    assert torch.equal(answers["bare"], answers["text"])
    return {
        "language model": name,
        "parameters (M)": sum(weight.numel() for weight in bare.parameters()) / 1e6,
        "prompt": length,
        "bare (ms)": 1e3 * timings.median("bare"),
        "text alone (ms)": 1e3 * timings.median("text"),
        "with media (ms)": 1e3 * timings.median("media"),
        "text/bare ×": timings.ratio("text", "bare"),
        "media/bare ×": timings.ratio("media", "bare"),
        "by CPU time ×": timings.ratio("media", "bare", "cpu"),
    }


def main() -> None:
    parser = parser_on_device("python -m benchmarks.overhead", __doc__.strip().split("\n\n")[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=[256], help="lengths (default: 256)")
    parser.add_argument("--tokens", type=int, default=24, help="generated in each round (default: 24)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default: 7)")
    arguments = parser.parse_args()
    report = Report("overhead", vars(arguments), NOTE)
    torch.manual_seed(0)
    dtype, rows = getattr(torch, arguments.dtype), []
    for name, config in (("nano", AutoConfig.from_pretrained(NANO)), ("random", build_large())):
        model = OmniVinciForConditionalGeneration(config).to(arguments.device, dtype).eval()
        for length in arguments.prompts:
            rows.append(compare(name, model, length, arguments.tokens, arguments.rounds))
    report.add("A step of decoding, all of `generate` included (wanted: at most 1.1×)", rows)
    report.save()


if __name__ == "__main__":
    main()
