"""SmolLM2-135M-Instruct and Whisper tiny.en, put together by `omnivinci assemble`."""

import json
import wave

import ctranslate2
import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor, AutoTokenizer, WhisperForConditionalGeneration
from typer.testing import CliRunner

from transformers_omnivinci.cli import app

from .ctranslate2_whisper import read_variables, save_whisper
from .parts import LANGUAGE_MODEL, WHISPER

QUESTIONS = ["What is the capital of France?", "How many legs has a spider?", "Translate 'thank you' into Spanish."]
OPTIONS = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout.strip()


@pytest.fixture(scope="session")
def whisper(tmp_path_factory):
    """The folder of Whisper tiny.en in transformers' layout, and the model."""
    folder = tmp_path_factory.mktemp("whisper") / "tiny.en"
    return folder, save_whisper(WHISPER, folder)


@pytest.fixture(scope="session")
def assembled(whisper, tmp_path_factory):
    """The folder of the assembled checkpoint."""
    folder = tmp_path_factory.mktemp("assembled") / "small"
    parts = ("--language-model", LANGUAGE_MODEL, "--audio", whisper[0], "--vision-from", "random")
    told = run("assemble", folder, *parts, "--audio-window", 10)
    assert "biases of zero" in told and "windows of 10 s" in told
    return folder


@pytest.fixture(scope="session")
def loaded(assembled):
    return AutoModel.from_pretrained(assembled).eval(), AutoProcessor.from_pretrained(assembled)


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """Three seconds of noise that swells, in a file."""
    samples = np.random.default_rng(0).standard_normal(48_000) * np.linspace(0, 8000, 48_000)
    path = tmp_path_factory.mktemp("sound") / "noise.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples.clip(-32_768, 32_767).astype(np.int16).tobytes())
    return path


def log_mel(processor, num_frames):
    noise = np.random.default_rng(1).standard_normal(480_000).astype(np.float32) / 8
    extractor = processor.feature_extractor
    features = extractor(noise, sampling_rate=16_000, padding=False, truncation=False, return_tensors="pt")
    return features["input_features"][..., :num_frames]


def test_the_file_of_ctranslate2_is_read_to_its_end(whisper, loaded):
    model = WhisperForConditionalGeneration.from_pretrained(whisper[0])
    engine = ctranslate2.models.Whisper(str(WHISPER), device="cpu", compute_type="float32")
    features = log_mel(loaded[1], 3000)
    with torch.no_grad():
        encoded = model.model.encoder(features).last_hidden_state
    expected = np.array(engine.encode(ctranslate2.StorageView.from_array(features.numpy())))
    # Noise, which the two add up in different orders.
    np.testing.assert_allclose(encoded.numpy(), expected, rtol=0, atol=5e-3)
    # Decoded from there, token by token.
    prompt = [50257, 50362]
    heard = engine.generate(
        ctranslate2.StorageView.from_array(features.numpy()), [prompt], beam_size=1, max_length=12,
        suppress_blank=False, suppress_tokens=[],
    )[0].sequences_ids[0]  # fmt: skip
    ids = prompt[:]
    with torch.no_grad():
        for _ in heard:
            logits = model(features, decoder_input_ids=torch.tensor([ids])).logits
            ids.append(logits[0, -1].argmax().item())
    assert ids[len(prompt) :] == heard and heard


@pytest.mark.parametrize("change", ["version", "cut"])
def test_a_damaged_file_of_ctranslate2_is_refused(tmp_path, change):
    content = (WHISPER / "model.bin").read_bytes()
    damaged = {"version": b"\x05" + content[1:], "cut": content[:100_000]}[change]
    (tmp_path / "model.bin").write_bytes(damaged)
    with pytest.raises(ValueError, match="model.bin"):
        read_variables(tmp_path / "model.bin")


def test_a_damaged_gguf_file_is_refused(whisper, tmp_path):
    (tmp_path / "cut.gguf").write_bytes(LANGUAGE_MODEL.read_bytes()[:100_000])
    parts = ("--language-model", tmp_path / "cut.gguf", "--audio", whisper[0], "--vision-from", "random")
    result = CliRunner().invoke(app, ["assemble", str(tmp_path / "made"), *map(str, parts)])
    assert result.exit_code == 1 and "cut.gguf cannot be read" in " ".join(result.output.split())
    assert not (tmp_path / "made").exists()


def test_text_gets_the_logits_and_answers_of_smollm2(loaded):
    model, processor = loaded
    where = {"gguf_file": LANGUAGE_MODEL.name}
    tokenizer = AutoTokenizer.from_pretrained(LANGUAGE_MODEL.parent, **where)
    language_model = AutoModelForCausalLM.from_pretrained(LANGUAGE_MODEL.parent, **where, dtype=torch.float32).eval()
    vocab_size = language_model.config.vocab_size
    for question in QUESTIONS:
        chat = [{"role": "user", "content": question}]
        inputs = processor.apply_chat_template(chat, **OPTIONS)
        own = tokenizer.apply_chat_template(chat, **OPTIONS)["input_ids"]
        assert torch.equal(inputs["input_ids"], own)
        with torch.no_grad():
            assert torch.equal(model(**inputs).logits[..., :vocab_size], language_model(own).logits)
            answers = [one.generate(own, max_new_tokens=20, do_sample=False) for one in (model, language_model)]
        assert torch.equal(*answers)
        if "France" in question:
            assert "Paris" in processor.decode(answers[0][0], skip_special_tokens=True)


def test_sounds_get_what_whisper_hears(whisper, loaded):
    model, processor = loaded
    encoder, tower = whisper[1].model.encoder, model.model.audio_tower
    assert tower.config.max_source_positions == 500 and processor.audio_pad_to_multiple_of == 10
    short = type(encoder)(type(encoder.config).from_dict(encoder.config.to_dict() | {"max_source_positions": 500}))
    state = encoder.state_dict()
    short.load_state_dict(state | {"embed_positions.weight": state["embed_positions.weight"][:500]})
    last = []
    short.eval().layers[-1].register_forward_hook(lambda module, args, output: last.append(output))
    features = log_mel(processor, 1000)
    with torch.no_grad():
        short(features)
        unpooled = last[0] if isinstance(last[0], torch.Tensor) else last[0][0]
        expected = short.layer_norm(unpooled.unflatten(1, (-1, 2)).mean(2))
        heard = tower(features).last_hidden_state
    torch.testing.assert_close(heard, expected, rtol=0, atol=1e-5)


def test_it_is_asked_and_trained(assembled, sound, tmp_path):
    asked = run("ask", sound, "What is said?", "--model", assembled, "--device", "cpu", "--max-new-tokens", 5)
    assert asked
    content = [{"type": "audio", "path": str(sound)}, {"type": "text", "text": "What is heard?"}]
    chat = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "Noise, louder."}]}
    (tmp_path / "data.jsonl").write_text(json.dumps(chat) + "\n")
    options = ("--max-steps", 8, "--learning-rate", 1e-4, "--warmup-steps", 0, "--logging-steps", 1, "--use-cpu")
    output = tmp_path / "run"
    data = ("--data", tmp_path / "data.jsonl", "--report-to", "none")
    run("train", "--recipe", "audio-1", "--model", assembled, "--output", output, *data, *options)
    state = json.loads((output / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert len(losses) == 8 and losses[-1] < 0.8 * losses[0]
