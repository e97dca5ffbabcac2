"""
Reads the weights of a Whisper from a file of CTranslate2, as packages carry them, into transformers' own model.

    python -m engines.assemble.ctranslate2_whisper FOLDER DESTINATION

The file `model.bin`, version 6: name and revision of the model, then the number of variables, and of each its name,
rank, dimensions, dtype, bytes and values; then names that are others' aliases. Strings have their length in front and
a zero behind. In self-attention, queries, keys and values are one matrix; the bias of keys, which no Whisper has, is
zero.
"""

import io
import json
import re
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

VERSION = 6
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
"""As the file numbers them, without bfloat16, which NumPy lacks."""

ENGLISH_TOKENS, ENGLISH_END = 51864, 50256
"""The vocabulary of the English models, and the token that ends a text there; it is the next one in the others."""


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """
    The variables of a `model.bin` by their names, those that are aliases too.

    Raises:
        ValueError: it is of another version, or cut off.
    """
    file = io.BytesIO(path.read_bytes())

    def number(kind: str) -> int:
        return struct.unpack(f"<{kind}", file.read(struct.calcsize(kind)))[0]

    def text() -> str:
        return file.read(number("H"))[:-1].decode()

    try:
        version = number("I")
        if version != VERSION:
            raise ValueError(f"{path} is of version {version} of CTranslate2's format: {VERSION} is accepted.")
        name, _revision, variables = text(), number("I"), {}
        if name != "WhisperSpec":
            raise ValueError(f"{path} holds a {name}: a WhisperSpec is accepted.")
        for _ in range(number("I")):
            name, shape = text(), [number("I") for _ in range(number("B"))]
            dtype, size = DTYPES[number("B")], number("I")
            content = file.read(size)
            if len(content) < size:
                raise ValueError(f"{path} is cut off within {name}.")
            variables[name] = np.frombuffer(content, dtype).reshape(shape)
        for _ in range(number("I")):
            alias, name = text(), text()
            variables[alias] = variables[name]
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a file of CTranslate2: {error}.") from error
    return variables


def _layer_names(place: str, has_cross_attention: bool) -> dict[str, str]:
    """The modules of a layer of transformers by their names in the file, but for attention's inputs."""
    names = {
        "self_attention/layer_norm": "self_attn_layer_norm",
        "self_attention/linear_1": "self_attn.out_proj",
        "ffn/layer_norm": "final_layer_norm",
        "ffn/linear_0": "fc1",
        "ffn/linear_1": "fc2",
    }
    if has_cross_attention:
        names |= {
            "attention/layer_norm": "encoder_attn_layer_norm",
            "attention/linear_0": "encoder_attn.q_proj",
            "attention/linear_2": "encoder_attn.out_proj",
        }
    return {f"{place}/{old}": new for old, new in names.items()}


def to_state_dict(variables: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The variables as float32 weights of [`WhisperForConditionalGeneration`]."""
    state = {}

    def put(name: str, values: np.ndarray) -> None:
        state[f"model.{name}"] = torch.from_numpy(values.astype(np.float32))

    def put_module(new: str, old: str) -> None:
        kinds = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
        for kind, name in kinds.items():
            if f"{old}/{kind}" in variables:
                put(f"{new}.{name}", variables[f"{old}/{kind}"])

    def put_split(new: list[str], old: str) -> None:
        weights, biases = (np.split(variables[f"{old}/{kind}"], len(new)) for kind in ("weight", "bias"))
        for name, weight, bias in zip(new, weights, biases, strict=True):
            put(f"{name}.weight", weight)
            if not name.endswith("k_proj"):
                put(f"{name}.bias", bias)
            elif bias.any():
                raise ValueError(f"{old} has a bias of keys, which no Whisper has.")

    for part in ("encoder", "decoder"):
        put(f"{part}.embed_positions.weight", variables[f"{part}/position_encodings/encodings"])
        put_module(f"{part}.layer_norm", f"{part}/layer_norm")
        for layer in range(count_layers(variables, part)):
            old, new = f"{part}/layer_{layer}", f"{part}.layers.{layer}"
            put_split([f"{new}.self_attn.{name}_proj" for name in "qkv"], f"{old}/self_attention/linear_0")
            if part == "decoder":
                put_split([f"{new}.encoder_attn.{name}_proj" for name in "kv"], f"{old}/attention/linear_1")
            for place, module in _layer_names(old, part == "decoder").items():
                put_module(f"{new}.{module}", place)
    for name in ("conv1", "conv2"):
        put_module(f"encoder.{name}", f"encoder/{name}")
    put("decoder.embed_tokens.weight", variables["decoder/embeddings/weight"])
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    return state


def count_layers(variables: dict[str, np.ndarray], part: str) -> int:
    """How many layers the encoder or the decoder has."""
    return len({name.split("/")[1] for name in variables if re.match(rf"{part}/layer_\d+/", name)})


def load_whisper(folder: Path) -> WhisperForConditionalGeneration:
    """The Whisper in a folder of CTranslate2, in float32."""
    variables = read_variables(folder / "model.bin")
    vocab_size, width = variables["decoder/embeddings/weight"].shape
    end_of_text = ENGLISH_END if vocab_size == ENGLISH_TOKENS else ENGLISH_END + 1
    config = WhisperConfig(
        vocab_size=vocab_size,
        num_mel_bins=variables["encoder/conv1/weight"].shape[1],
        d_model=width,
        encoder_layers=count_layers(variables, "encoder"),
        decoder_layers=count_layers(variables, "decoder"),
        encoder_attention_heads=int(variables["encoder/num_heads"]),
        decoder_attention_heads=int(variables["decoder/num_heads"]),
        encoder_ffn_dim=variables["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        decoder_ffn_dim=variables["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        max_source_positions=len(variables["encoder/position_encodings/encodings"]),
        max_target_positions=len(variables["decoder/position_encodings/encodings"]),
        decoder_start_token_id=end_of_text + 1,
        **{f"{name}_token_id": end_of_text for name in ("bos", "eos", "pad")},
    )
    model = WhisperForConditionalGeneration(config)
    model.load_state_dict(to_state_dict(variables))
    return model.eval()


def generation_config(folder: Path, tokenizer: WhisperTokenizer) -> GenerationConfig:
    """How the Whisper in a folder writes, as its own `generation_config.json` would say."""
    told = json.loads((folder / "config.json").read_text())
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("startoftranscript", "notimestamps")}
    end = tokenizer.eos_token_id
    return GenerationConfig(
        decoder_start_token_id=ids["startoftranscript"],
        no_timestamps_token_id=ids["notimestamps"],
        prev_sot_token_id=tokenizer.convert_tokens_to_ids("<|startofprev|>"),
        suppress_tokens=told["suppress_ids"],
        begin_suppress_tokens=told["suppress_ids_begin"],
        alignment_heads=told["alignment_heads"],
        is_multilingual=end != ENGLISH_END,
        max_initial_timestamp_index=50,
        max_length=448,
        **{f"{name}_token_id": end for name in ("bos", "eos", "pad")},
    )


def save_whisper(folder: Path, destination: Path) -> WhisperForConditionalGeneration:
    """Writes the Whisper of a folder of CTranslate2 as transformers does, with tokenizer and feature extractor."""
    model = load_whisper(folder)
    WhisperFeatureExtractor(feature_size=model.config.num_mel_bins).save_pretrained(destination)
    if (folder / "tokenizer.json").is_file():
        tokenizer = WhisperTokenizer.from_pretrained(folder)
        model.generation_config = generation_config(folder, tokenizer)
        tokenizer.save_pretrained(destination)
    model.save_pretrained(destination)
    return model


if __name__ == "__main__":
    saved = save_whisper(Path(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps({"parameters": saved.num_parameters(), "destination": sys.argv[2]}))
