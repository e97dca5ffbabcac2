"""`omnivinci assemble` refuses what does not fit, in a sentence, and leaves nothing behind."""

import shutil

import pytest
import torch

from transformers_omnivinci.assembly import assemble, part_sources

from . import assembly_parts as parts
from .checkpoints import edit, edit_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Parts on disk."""
    return parts.save_parts(tmp_path_factory.mktemp("parts"))


def copy_of(name, change):
    """A damaged copy of a part, as the option that it is for."""
    option = {"qwen2": "language_model", "llama": "language_model", "whisper": "audio", "siglip": "vision"}[name]

    def damaged(folder, tmp_path):
        shutil.copytree(folder / name, tmp_path / name)
        change(tmp_path / name)
        return {option: tmp_path / name}

    return damaged


def config(**changes):
    return lambda place: edit(place / "config.json", **changes)


def preprocessor(**changes):
    return lambda place: edit(place / "preprocessor_config.json", **changes)


def weights(change):
    return lambda place: edit_weights(place / "model.safetensors", change)


def template(text):
    def change(place):
        (place / "chat_template.jinja").unlink(missing_ok=True)
        edit(place / "tokenizer_config.json", chat_template=text)

    return change


def file(text, option="chat_template"):
    def written(folder, tmp_path):
        (tmp_path / "template.jinja").write_text(text)
        return {option: str(tmp_path / "template.jinja")}

    return written


def gguf(option, *names):
    def written(folder, tmp_path):
        (tmp_path / "gguf").mkdir()
        for name in names:
            (tmp_path / "gguf" / f"{name}.gguf").write_bytes(b"GGUF")
        return {option: tmp_path / "gguf"}

    return written


def lies_at(name, option):
    return lambda folder, tmp_path: {option: folder / name}


def given(**options):
    return lambda folder, tmp_path: options


def swap(old, new):
    return lambda tensors: tensors.update({new: tensors.pop(old)})


PARTIAL = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
HALF = "model.layers.0.mlp.up_proj.weight"
MISFITS = {
    "an encoder where a decoder is wanted": (
        lies_at("whisper", "language_model"),
        "whisper/config.json is that of a model of type 'whisper', which is no language model",
    ),
    "a decoder where an encoder is wanted": (lies_at("qwen2", "audio"), "qwen2/config.json .* no audio encoder"),
    "no part at all": (copy_of("siglip", config(model_type="vit")), "siglip/config.json .*'vit'.* image encoder"),
    "a config that says nothing": (copy_of("whisper", config(model_type=None)), "of type None"),
    "no config": (copy_of("whisper", lambda place: (place / "config.json").unlink()), "whisper has no config.json"),
    "no folder": (given(audio="nowhere"), "There is no folder 'nowhere'"),
    "no weights": (
        copy_of("siglip", lambda place: (place / "model.safetensors").unlink()),
        "siglip lacks safetensors",
    ),
    "a damaged file": (
        copy_of("siglip", lambda place: (place / "model.safetensors").write_bytes(b"\xff" * 99)),
        "model.safetensors cannot be read",
    ),
    "a quantized model": (
        copy_of("qwen2", config(quantization_config={"quant_method": "gptq"})),
        "qwen2/config.json is that of a quantized",
    ),
    "integers": (
        copy_of("qwen2", weights(lambda tensors: tensors.update({HALF: tensors[HALF].to(torch.int8)}))),
        "model.safetensors holds .*up_proj.weight as I8",
    ),
    "other sizes": (
        copy_of("qwen2", config(intermediate_size=40)),
        "qwen2 do not fit config.json: of another shape: .*mlp.* and 2 more",
    ),
    "fewer layers": (
        copy_of("whisper", config(encoder_layers=3)),
        "whisper do not fit config.json: missing: model.encoder.layers.2",
    ),
    "more layers": (copy_of("whisper", config(encoder_layers=1)), "unexpected: model.encoder.layers.1"),
    "no head": (
        copy_of("qwen2", weights(lambda tensors: tensors.pop("lm_head.weight"))),
        "qwen2 do not fit config.json: missing: lm_head.weight",
    ),
    "another model's weights": (
        lambda folder, tmp_path: (
            copy_of("whisper", config(**parts.AUDIO, model_type="qwen2_audio_encoder"))(folder, tmp_path)
            | {"audio": shutil.copytree(folder / "siglip", tmp_path / "x") and _without_audio(tmp_path)}
        ),
        "no audio encoder among them",
    ),
    "other mel bins": (
        copy_of("whisper", preprocessor(feature_size=128)),
        "preprocessor_config.json makes .* 128 mel bins, but .*whisper/config.json says `num_mel_bins=80`",
    ),
    "another extractor": (
        copy_of("whisper", preprocessor(feature_extractor_type="Wav2Vec2FeatureExtractor")),
        "preprocessor_config.json is that of a Wav2Vec2FeatureExtractor",
    ),
    "pictures of another size": (
        copy_of("siglip", preprocessor(size={"height": 64, "width": 64})),
        "preprocessor_config.json makes images of .*64.*`image_size=32`",
    ),
    "raw pixels": (copy_of("siglip", preprocessor(do_normalize=False)), "says `do_normalize=false`"),
    "grey pictures": (copy_of("siglip", config(vision_config=parts.VISION | {"num_channels": 1})), "num_channels=1"),
    "half patches": (given(image_size=36), "36 pixels .*siglip/config.json .*such as 32 or 40"),
    "scales of half tiles": (given(s2_scales=[32, 48]), "s2_scales"),
    "a longer window": (
        given(audio_window=31.0),
        "`audio_window=31` .*whisper: a multiple of 0.04 seconds is, up to 30",
    ),
    "half a vector": (given(audio_window=2.02), "`audio_window=2.02`"),
    "no window": (given(audio_window=0.0), "`audio_window=0`"),
    "biases": (copy_of("llama", config(attention_bias=True)), "llama/config.json has `attention_bias=True`"),
    "biases of the feed-forward": (copy_of("llama", config(mlp_bias=True)), "`mlp_bias=True`"),
    "wide heads": (copy_of("llama", config(head_dim=16)), "`head_dim=16`.* needs 8"),
    "half a rotation": (
        copy_of(
            "llama", config(rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5})
        ),
        "partial_rotary_factor=0.5",
    ),
    "tokens without embeddings": (
        copy_of("qwen2", config(vocab_size=200)),
        "tokenizer in .*qwen2 has 259 tokens, but config.json says `vocab_size=200`",
    ),
    "no tokenizer": (
        copy_of("qwen2", lambda place: [path.unlink() for path in place.glob("tokenizer*")]),
        "qwen2 has no tokenizer",
    ),
    "no chat template": (copy_of("qwen2", template(None)), "tokenizer in .*qwen2 has no chat template"),
    "another chat template": (
        copy_of("qwen2", template("{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}")),
        "tokenizer in .*qwen2 has a chat template that is not ChatML",
    ),
    "a chat template that fails": (copy_of("qwen2", template("{{ raise_exception('no system') }}")), "not ChatML"),
    "no template file": (given(chat_template="none.jinja"), "none.jinja cannot be read"),
    "a template without media": (file("{% for m in messages %}{{ m['role'] }}{% endfor %}"), "does not write <image>"),
    "a template without answers": (
        file("{% for m in messages %}<image><vila/video><sound>{% break %}{% endfor %}"),
        "template.jinja has no .* generation",
    ),
    "a template that fails": (file("{% for"), "template.jinja cannot write a chat"),
    "no image encoder": (given(vision=None), "`vision` is needed"),
    "an unknown start": (given(vision_from="nothing"), "`vision_from='nothing'`"),
    "an unknown dtype": (given(dtype="int8"), "`dtype='int8'`"),
    "an unknown pooling": (given(audio_pooling="sum"), "audio_pooling"),
    "a GGUF file as an encoder": (gguf("audio", "a"), "a.gguf is a GGUF file, .* not as the audio encoder"),
    "several GGUF files": (gguf("language_model", "a", "b"), "has several GGUF files, a.gguf, b.gguf"),
}


def _without_audio(tmp_path):
    """A folder whose config is that of an audio encoder, and whose weights are those of a SigLIP."""
    shutil.copy(tmp_path / "whisper" / "config.json", tmp_path / "x" / "config.json")
    (tmp_path / "x" / "preprocessor_config.json").unlink()
    return tmp_path / "x"


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_is_refused_in_a_sentence(folder, tmp_path, misfit):
    change, message = MISFITS[misfit]
    options = parts.parts_of(folder) | change(folder, tmp_path)
    with pytest.raises((OSError, ValueError), match=message) as caught:
        assemble(tmp_path / "out" / "made", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_gguf_file_needs_its_package(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(part_sources, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="a.gguf needs the package gguf: pip install gguf"):
        assemble(tmp_path / "made", **parts.parts_of(folder) | gguf("language_model", "a")(folder, tmp_path))
