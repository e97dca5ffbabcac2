"""`omnivinci assemble`: parts compute in the new model what they compute alone, and it is a checkpoint."""

import json
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoProcessor
from typer.testing import CliRunner

from transformers_omnivinci.assembly import assemble
from transformers_omnivinci.cli import app
from transformers_omnivinci.conversion import convert
from transformers_omnivinci.processing.prompts import TOKENS

from . import assembly_parts as parts
from .checkpoints import files_of, tensors_of

CHAT = [{"role": "user", "content": "What is said?"}]
OPTIONS = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Parts on disk, and an assembled checkpoint."""
    root = parts.save_parts(tmp_path_factory.mktemp("parts"))
    build(root, root / "whole")
    return root


def build(root, destination, **changes):
    """An assembled checkpoint of the parts in a folder."""
    return assemble(destination, **parts.parts_of(root) | changes)


@pytest.fixture
def make(folder, tmp_path):
    """Assembles parts with changes of options; gives the model and its processor."""

    def make(**changes):
        build(folder, tmp_path / "made", **changes)
        return AutoModel.from_pretrained(tmp_path / "made"), AutoProcessor.from_pretrained(tmp_path / "made")

    return make


def logits_of(model, processor):
    inputs = processor.apply_chat_template(CHAT, **OPTIONS)
    with torch.no_grad():
        return inputs["input_ids"], model(**inputs).logits


# -------------------------------------------------------------------------------------- the parts compute the same


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_text_gets_the_logits_of_the_language_model(make, tmp_path, kind, is_tied):
    save = {"qwen2": parts.save_qwen2, "llama": parts.save_llama}[kind]
    language_model = save(tmp_path / "language", tie_word_embeddings=is_tied, rms_norm_eps=1e-5)
    model, processor = make(language_model=tmp_path / "language")
    ids, logits = logits_of(model, processor)
    with torch.no_grad():
        expected = language_model(ids).logits
    assert torch.equal(logits[..., :259], expected)
    assert model.config.tie_word_embeddings is is_tied
    # Prompts are those of its own tokenizer, down to what its template says first.
    own = parts.build_tokenizer().apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert "It's you." in own and processor.apply_chat_template(CHAT, add_generation_prompt=True) == own


@pytest.mark.parametrize("rope", [{"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}, {"rope_theta": 1e4}])
def test_the_rotation_of_a_llama_is_kept(make, tmp_path, rope):
    rope = {"rope_type": "default"} | rope
    language_model = parts.save_llama(tmp_path / "language", rope_parameters=rope)
    model, processor = make(language_model=tmp_path / "language")
    ids, logits = logits_of(model, processor)
    with torch.no_grad():
        assert torch.equal(logits[..., :259], language_model(ids).logits)


def windows(model, extractor, seconds):
    """Log-mel frames of noise, as long as a window of the model."""
    noise = np.random.default_rng(0).standard_normal(round(seconds * 16_000)).astype(np.float32) / 4
    features = extractor(noise, sampling_rate=16_000, padding=False, truncation=False, return_tensors="pt")
    return features["input_features"][..., : 2 * model.config.audio_config.max_source_positions]


@pytest.mark.parametrize("window", [None, 2.0])
def test_sounds_get_the_hidden_states_of_whisper(make, tmp_path, window):
    """Whisper itself does not pool: its layers give the same, and what they give is pooled before the last norm."""
    whisper = parts.save_whisper(tmp_path / "alone", max_source_positions=200)
    if window is not None:  # it is its own encoder of shorter windows
        encoder = parts.save_whisper(tmp_path / "short", max_source_positions=100).model.encoder
        state = whisper.model.encoder.state_dict()
        state["embed_positions.weight"] = state["embed_positions.weight"][:100]
        encoder.load_state_dict(state)
    else:
        encoder = whisper.model.encoder
    model, processor = make(audio=tmp_path / "alone", audio_window=window)
    features = windows(model, processor.feature_extractor, window or 4.0)
    last = []
    encoder.layers[-1].register_forward_hook(lambda module, args, output: last.append(output))
    tower = model.model.audio_tower
    with torch.no_grad():
        encoder(features)
        unpooled = last[0] if isinstance(last[0], torch.Tensor) else last[0][0]
        heard = tower(features, output_hidden_states=True)
    assert torch.equal(heard.last_hidden_state, encoder.layer_norm(unpooled.unflatten(1, (-1, 2)).mean(2)))
    assert processor.audio_pad_to_multiple_of == (window or 4.0)


@pytest.mark.parametrize("save", [parts.save_qwen2_audio, parts.save_audio_flamingo])
def test_sounds_get_the_vectors_of_encoders_that_pool(make, tmp_path, save):
    whole = save(tmp_path / "alone")
    model, processor = make(audio=tmp_path / "alone", audio_window=None)
    assert processor.feature_extractor.feature_size == 128
    features = windows(model, processor.feature_extractor, 30)
    encoder = next(module for name, module in whole.named_modules() if name.endswith("audio_tower"))
    heard = {"input_features_mask": torch.ones(1, 3000)} if save is parts.save_audio_flamingo else {}
    with torch.no_grad():
        expected = encoder(features, **heard).last_hidden_state
        assert torch.equal(model.model.audio_tower(features).last_hidden_state, expected)


@pytest.mark.parametrize("save", [parts.save_siglip, parts.save_siglip_vision])
def test_pictures_get_the_hidden_states_of_siglip(make, tmp_path, save):
    siglip = save(tmp_path / "alone")
    siglip = getattr(siglip, "vision_model", siglip)
    model, processor = make(vision=tmp_path / "alone")
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = siglip(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
        assert torch.equal(model.model.vision_tower(pixels).last_hidden_state, expected)
    mean = 0.4 if save is parts.save_siglip else 0.5  # of its preprocessor, where it has one
    assert {*processor.image_processor.image_mean, *processor.video_processor.image_mean} == {mean}


def test_larger_pictures_get_the_positions_that_siglip_interpolates(make, tmp_path):
    siglip = parts.save_siglip_vision(tmp_path / "alone", image_size=28)  # which is no multiple of its patches
    model, processor = make(vision=tmp_path / "alone", image_size=48, s2_scales=[48])
    pixels = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = siglip(pixel_values=pixels, output_hidden_states=True, interpolate_pos_encoding=True)
        tower = model.model.vision_tower(pixels).last_hidden_state
    torch.testing.assert_close(tower, expected.hidden_states[-2], rtol=0, atol=1e-6)
    assert processor.video_processor.size["height"] == 48 and model.config.s2_scales == [48]


# ------------------------------------------------------------------------------------------------- what is new


def test_placeholders_have_the_mean_of_all_embeddings(folder):
    before, after = load_file(folder / "qwen2" / "model.safetensors"), tensors_of(folder / "whole")
    processor = AutoProcessor.from_pretrained(folder / "whole")
    ids = [processor.tokenizer.convert_tokens_to_ids(token) for token in TOKENS.values()]
    assert ids == [259, 260, 261]
    config = AutoConfig.from_pretrained(folder / "whole")
    assert config.text_config.vocab_size == 320  # for 262 tokens, a multiple of 64
    names = {
        "model.embed_tokens.weight": "model.language_model.embed_tokens.weight",
        "lm_head.weight": "lm_head.weight",
    }
    for old, new in names.items():
        mean = before[old].double().mean(0).float()
        assert torch.equal(after[new][:259], before[old])
        torch.testing.assert_close(after[new][259:], mean.expand(61, -1))


def test_rows_that_no_token_has_are_taken_first(make, tmp_path):
    parts.save_qwen2(tmp_path / "spare", vocab_size=290)
    before = load_file(tmp_path / "spare" / "model.safetensors")["lm_head.weight"]
    model, _ = make(language_model=tmp_path / "spare")
    assert model.config.text_config.vocab_size == 290
    assert torch.equal(model.lm_head.weight[262:], before[262:])
    torch.testing.assert_close(model.lm_head.weight[259:262], before[:259].double().mean(0).float().expand(3, -1))


def test_a_random_image_encoder_needs_no_weights(make, tmp_path, folder):
    model, _ = make(vision=None, vision_from="random")
    assert model.config.vision_config.hidden_size == 384 and model.config.s2_scales == [224, 448, 672]
    (tmp_path / "config").mkdir()
    shutil.copy(folder / "siglip" / "config.json", tmp_path / "config")
    shutil.rmtree(tmp_path / "made")
    model, _ = make(vision=tmp_path / "config", vision_from="random")
    assert model.config.vision_config.hidden_size == 16
    weight = model.model.vision_tower.encoder.layers[0].mlp.fc1.weight
    assert 0 < weight.std() < 1 and not torch.equal(weight, tensors_of(folder / "whole")[VISION_WEIGHT])


VISION_WEIGHT = "model.vision_tower.encoder.layers.0.mlp.fc1.weight"


def test_new_weights_are_those_of_a_new_model_and_of_the_seed(folder, tmp_path):
    one, other = (tmp_path / name for name in ("one", "other"))
    build(folder, one, max_shard_size="40KB")
    build(folder, other, seed=1)
    index = json.loads((one / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3 and index["weight_map"].keys() == tensors_of(one).keys()
    whole, one, other = (tensors_of(place) for place in (folder / "whole", one, other))
    assert whole.keys() == one.keys() and all(torch.equal(whole[name], one[name]) for name in one)
    changed = {name for name in one if not torch.equal(one[name], other[name])}
    assert changed == {f"model.{name}_projector.linear_{n}.weight" for name in ("vision", "audio") for n in (1, 2)}
    assert one["model.audio_projector.linear_2.weight"].std().item() == pytest.approx(0.02, rel=0.1)
    assert not one["model.vision_projector.linear_1.bias"].any()


def test_options_of_the_model(make):
    model, processor = make(audio_pooling="conv", align_loss_weight=0.1, dtype="bfloat16")
    assert model.config.audio_pooling == processor.audio_pooling == "conv"
    assert model.model.omni_align_net is not None and model.dtype == torch.bfloat16
    assert all(weight.isfinite().all() for weight in model.state_dict().values())


def test_a_dtype_is_that_of_the_language_model(make, tmp_path):
    parts.save_qwen2(tmp_path / "half", dtype=torch.bfloat16)
    model, _ = make(language_model=tmp_path / "half")
    assert model.dtype == torch.bfloat16
    card = ModelCard.load(tmp_path / "made" / "README.md").text
    assert "cast from float32" in card and "in bfloat16" in card


def test_the_card_names_the_origin_of_each_weight(folder):
    card = ModelCard.load(folder / "whole" / "README.md").text
    rows = [line for line in card.splitlines() if line.startswith("|")][2:]
    told = (
        ("language model", "`qwen2`"),
        ("audio encoder", "`whisper`"),
        ("image encoder", "`siglip`"),
        ("audio pr", "new"),
    )
    assert all(name in row and source in row for row, (name, source) in zip(rows, told, strict=True))
    assert "windows of 2 s" in rows[1] and "seed 0" in rows[3]
    numbers = [int(row.split("|")[2].replace(",", "")) for row in rows]
    assert sum(numbers) == sum(tensor.numel() for tensor in tensors_of(folder / "whole").values())
    for name, content in files_of(folder / "whole").items():
        assert str(folder).encode() not in content, name


def test_a_conversion_keeps_its_card(folder, tmp_path):
    convert(folder / "whole", tmp_path / "half", dtype="float16")
    assert (tmp_path / "half" / "README.md").read_text() == (folder / "whole" / "README.md").read_text()


# ------------------------------------------------------------------------------------------------- it is a checkpoint


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    import wave

    path = tmp_path_factory.mktemp("sound") / "noise.wav"
    samples = np.random.default_rng(0).integers(-8000, 8000, 24_000, dtype=np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())
    return path


@pytest.mark.compat
def test_the_command_makes_what_other_commands_take(folder, sound, tmp_path):
    made = tmp_path / "made"
    sources = ("--language-model", folder / "llama", "--audio", folder / "whisper", "--vision", folder / "siglip")
    told = run("assemble", made, *sources, "--audio-window", 2, "--s2-scales", "32,64")
    assert f"Assembled {made}" in told and "language model" in told and "biases of zero" in told
    assert AutoConfig.from_pretrained(made).s2_scales == [32, 64]
    run("ask", sound, "What is said?", "--model", made, "--device", "cpu", "--max-new-tokens", 3)
    content = [{"type": "audio", "path": str(sound)}, {"type": "text", "text": "What is said?"}]
    chat = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "Noise."}]}
    (tmp_path / "data.jsonl").write_text(json.dumps(chat) + "\n")
    for recipe, changed, kept in (
        ("audio-1", "audio_projector", "language_model"),
        ("omni", "language_model", "audio_t"),
    ):
        options = ("--max-steps", 2, "--learning-rate", 0.01, "--use-cpu", "--report-to", "none", "--warmup-steps", 0)
        output = tmp_path / recipe
        data = ("--data", tmp_path / "data.jsonl")
        run("train", "--recipe", recipe, *data, "--model", made, "--output", output, *options)
        before, after = tensors_of(made), tensors_of(output)
        differ = {name for name in before if not torch.equal(before[name], after[name])}
        assert any(changed in name for name in differ) and not any(kept in name for name in differ)


def test_a_part_may_come_from_the_hub(hub, make, folder, tmp_path):
    hub.create_repo("tester/whisper")
    commit = hub.add_commit("tester/whisper", folder / "whisper")
    for name in ("tester/whisper", f"tester/whisper@{commit}"):
        make(audio=name)
        card = ModelCard.load(tmp_path / "made" / "README.md")
        assert f"(https://huggingface.co/tester/whisper) (whisper), revision `{commit}`" in card.text
        assert card.data.base_model == ["tester/whisper"]
        shutil.rmtree(tmp_path / "made")
    with pytest.raises(OSError, match="tester/none"):
        make(audio="tester/none")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("made", ".made"))]


def test_a_checkpoint_is_replaced_only_by_force(folder, tmp_path):
    build(folder, tmp_path / "made")
    before = files_of(tmp_path / "made")
    with pytest.raises(OSError, match="is there already"):
        build(folder, tmp_path / "made")
    with pytest.raises(ValueError, match="language model .* overlap"):
        build(folder, folder / "qwen2" / "made")
    with pytest.raises(ValueError, match="audio_window"):
        build(folder, tmp_path / "made", audio_window=99, force=True)
    assert files_of(tmp_path / "made") == before
    build(folder, tmp_path / "made", seed=1, force=True)
    assert files_of(tmp_path / "made").keys() == before.keys() and files_of(tmp_path / "made") != before
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_breaks_off_leaves_nothing(folder, tmp_path, monkeypatch):
    from transformers_omnivinci import weight_shards

    def fail(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(weight_shards, "write_shard", fail)
    sources = ("--language-model", folder / "qwen2", "--audio", folder / "whisper", "--vision", folder / "siglip")
    assert "error: No space left on device" in run("assemble", tmp_path / "made", *sources, code=1)
    assert not list(tmp_path.iterdir())


MEDIA_TEMPLATE = (
    "{% set tokens = {'image': '<image>', 'video': '<vila/video>', 'audio': '<sound>'} %}"
    "{% for m in messages %}[{{ m['role'] }}]{% generation %}{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for i in m['content'] %}{{ tokens[i['type']] or i['text'] }}{% endfor %}{% endif %}"
    "{% endgeneration %}{% endfor %}"
)


def test_templates_of_other_models_can_be_given(make, tmp_path):
    parts.save_qwen2(tmp_path / "qwen2")
    (tmp_path / "qwen2" / "chat_template.jinja").write_text("[{{ messages }}]")
    (tmp_path / "media.jinja").write_text(MEDIA_TEMPLATE)
    options = {"language_model": tmp_path / "qwen2", "chat_template": str(tmp_path / "media.jinja")}
    model, processor = make(**options)
    assert processor.chat_template == MEDIA_TEMPLATE
    chat = [{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "Two?"}]}]
    assert processor.apply_chat_template(chat) == "[user]<sound>Two?"
    assert model.generation_config.eos_token_id == 2
    shutil.rmtree(tmp_path / "made")
    model, processor = make(**options | {"chat_template": "chatml"})
    assert processor.apply_chat_template(chat).startswith("<|im_start|>system\nYou are a helpful assistant<|im_end|>")


def test_scales_on_the_command_line_are_numbers(folder, tmp_path):
    sources = ("--language-model", folder / "qwen2", "--audio", folder / "whisper", "--vision", folder / "siglip")
    assert "448,896,1344 are" in run("assemble", tmp_path / "made", *sources, "--s2-scales", "big", code=1)
