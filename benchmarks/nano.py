"""
Builds nano, its tokenizer and its processor before training, makes it deeper between two stages, and puts the trained
model into the package.

Run as `python -m benchmarks.nano build DIR`, `... grow RUN DIR` and `... ship RUN`; `make nano` does all of it.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, WhisperFeatureExtractor, set_seed

from transformers_omnivinci import (
    NANO,
    OmniVinciConfig,
    OmniVinciForConditionalGeneration,
    OmniVinciImageProcessor,
    OmniVinciProcessor,
    OmniVinciVideoProcessor,
)
from transformers_omnivinci.processing.prompts import TOKENS
from transformers_omnivinci.synthetic import CLOSED_TYPES, SyntheticDataset, WorldConfig, vocabulary

WORLD = WorldConfig()
VOCABULARY_SIZE = 768
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *TOKENS.values())
HOP_LENGTH = 400  # samples, so 40 mel frames a second; 8 of them become one embedding
MEL_BINS = 64
MAX_AUDIO_POSITIONS = 60  # after a convolution of stride 2: windows have 120 mel frames, or 3 seconds
NUM_LAYERS, NUM_FRAMES = 4, WORLD.num_frames
GROWN_LAYERS, GROWN_FRAMES = 6, 48
"""What it has after its growth: with 48 frames of 12 s, no two of them are more than 0.26 s apart."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer in which every word of the synthetic world is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )


def _texts() -> Iterator[str]:
    types = (*CLOSED_TYPES, "caption")
    dataset = SyntheticDataset("train", num_clips=600, config=WORLD, types=types, questions_per_clip=6)
    for sample in dataset:
        for question in sample.questions:
            yield question.text
            yield question.answer
        yield "system\nYou are a helpful assistant"  # the chat template's, in every prompt
        yield "user\n"
        yield "assistant\n"
    for word in vocabulary(WORLD):
        if word in ("There", "no"):  # of answers that came later, which it spells
            continue
        yield from (word, f" {word}") * 3


def build_config(tokenizer: PreTrainedTokenizerFast, num_layers: int = NUM_LAYERS) -> OmniVinciConfig:
    """
    The architecture. A frame becomes one embedding for the language model, and a second of sound five.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): Its tokenizer, which has the placeholders of media.
        num_layers (`int`, *optional*, defaults to 4): Layers of the language model.
    """
    side, longest = WORLD.height, WORLD.clip_seconds[1]
    return OmniVinciConfig(
        text_config={
            "model_type": "qwen2",
            "hidden_size": 192,
            "intermediate_size": 480,
            "num_hidden_layers": num_layers,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "initializer_range": 0.06,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": side,
            "patch_size": side // 4,
            "vision_use_head": False,
        },
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "d_model": 96,
            "encoder_layers": 2,
            "encoder_attention_heads": 3,
            "encoder_ffn_dim": 384,
            "num_mel_bins": MEL_BINS,
            "max_source_positions": MAX_AUDIO_POSITIONS,
        },
        **{f"{kind}_token_id": tokenizer.convert_tokens_to_ids(token) for kind, token in TOKENS.items()},
        vision_feature_layer=-1,
        spatial_merge_size=4,
        s2_scales=[side],
        audio_pooling="max",
        video_max_time=longest,
        audio_max_time=longest,
        tie_word_embeddings=True,
        initializer_range=0.06,
    )


def build_processor(
    config: OmniVinciConfig, tokenizer: PreTrainedTokenizerFast, num_frames: int = NUM_FRAMES
) -> OmniVinciProcessor:
    """
    The processor, which resizes images to a single small tile.

    Args:
        config ([`OmniVinciConfig`]): The config of the model.
        tokenizer (`PreTrainedTokenizerFast`): Its tokenizer.
        num_frames (`int`, *optional*, defaults to 16): Frames of a clip.
    """
    side = config.vision_config.image_size
    return OmniVinciProcessor(
        OmniVinciImageProcessor(s2_scales=config.s2_scales, max_tiles=1),
        OmniVinciVideoProcessor(size={"height": side, "width": side}, num_frames=num_frames),
        WhisperFeatureExtractor(feature_size=MEL_BINS, hop_length=HOP_LENGTH, padding_side="left"),
        tokenizer,
        group_duration=1.0,
        load_audio_from_video=True,
        **OmniVinciProcessor.settings_of(config),
    )


def build(folder: str | Path, seed: int = 0) -> None:
    """
    Writes nano with random bfloat16 weights, for `omnivinci train --recipe scratch` to start from.

    Args:
        folder (`str` or `Path`): The folder to write the checkpoint to.
        seed (`int`, *optional*, defaults to 0): Seed of the weights.
    """
    set_seed(seed)
    tokenizer = build_tokenizer()
    config = build_config(tokenizer)
    model = OmniVinciForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    build_processor(config, tokenizer).save_pretrained(folder)


def grow(run: str | Path, folder: str | Path, seed: int = 0) -> None:
    """
    Makes a trained nano deeper, and lets it see more frames. Behind every two layers of the language model comes a new
    one that adds nothing yet: the last matrix of its attention and that of its perceptron are zero. Answers stay those
    of before until it is trained.

    Args:
        run (`str` or `Path`): The output folder of `omnivinci train`.
        folder (`str` or `Path`): The folder to write the checkpoint to.
        seed (`int`, *optional*, defaults to 0): Seed of the new weights.
    """
    set_seed(seed)
    tokenizer = OmniVinciProcessor.from_pretrained(run).tokenizer
    small = OmniVinciForConditionalGeneration.from_pretrained(run, dtype=torch.float32)
    config = build_config(tokenizer, GROWN_LAYERS)
    grown = OmniVinciForConditionalGeneration(config)
    grown.generation_config = small.generation_config
    added = range(2, GROWN_LAYERS, 3)
    kept = [layer for layer in range(GROWN_LAYERS) if layer not in added]
    small_layers, grown_layers = (model.model.language_model.layers for model in (small, grown))
    prefix = "model.language_model.layers."
    weights = {name: value for name, value in small.state_dict().items() if not name.startswith(prefix)}
    grown.load_state_dict(weights, strict=False)
    for old, new in zip(small_layers, kept, strict=True):
        grown_layers[new].load_state_dict(old.state_dict())
    for new in added:
        torch.nn.init.zeros_(grown_layers[new].self_attn.o_proj.weight)
        torch.nn.init.zeros_(grown_layers[new].mlp.down_proj.weight)
    grown.to(torch.bfloat16).save_pretrained(folder)
    build_processor(config, tokenizer, GROWN_FRAMES).save_pretrained(folder)


def ship(run: str | Path, folder: str | Path = NANO) -> None:
    """
    Puts a trained nano into the package, in bfloat16.

    Args:
        run (`str` or `Path`): The output folder of `omnivinci train`.
        folder (`str` or `Path`, *optional*): Where to write it. Default: the folder of the package.
    """
    OmniVinciForConditionalGeneration.from_pretrained(run, dtype=torch.bfloat16).save_pretrained(folder)
    OmniVinciProcessor.from_pretrained(run).save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build").add_argument("folder", metavar="DIR", help="The checkpoint to write.")
    growing = commands.add_parser("grow")
    growing.add_argument("run", metavar="RUN", help="The run to start from.")
    growing.add_argument("folder", metavar="DIR", help="The checkpoint to write.")
    commands.add_parser("ship").add_argument("run", metavar="RUN", help="The run to ship.")
    arguments = vars(parser.parse_args())
    {"build": build, "grow": grow, "ship": ship}[arguments.pop("command")](**arguments)
