"""Small random parts of a model, in folders as transformers saves them."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nIt\\'s you.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT |= {"num_key_value_heads": 2, "max_position_embeddings": 2048, "bos_token_id": None, "eos_token_id": 2}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
VISION |= {"image_size": 32, "patch_size": 8}
AUDIO = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "num_mel_bins": 80}
WHISPER = AUDIO | {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "vocab_size": 60}
WHISPER |= {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 1}
WHISPER |= {"max_target_positions": 20, "begin_suppress_tokens": None}


def build_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 259 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([], trainer)
    built = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[2], pad_token=SPECIAL[0])
    built.chat_template = chat_template
    return built


def _random(model):
    """With weights that differ from those of other layers, biases and norms too."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    return model.eval()


def save_qwen2(folder, vocab_size=259, dtype=torch.float32, **changes):
    """A Qwen2 with its tokenizer."""
    model = _random(Qwen2ForCausalLM(Qwen2Config(**TEXT | {"vocab_size": vocab_size} | changes))).to(dtype)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return model


def save_llama(folder, **changes):
    """A Llama with its tokenizer."""
    model = _random(LlamaForCausalLM(LlamaConfig(**TEXT | {"vocab_size": 259} | changes)))
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return model


def save_whisper(folder, with_extractor=True, **changes):
    """A Whisper of 30 s, or of `max_source_positions`."""
    model = _random(WhisperForConditionalGeneration(WhisperConfig(**WHISPER | changes)))
    model.save_pretrained(folder)
    if with_extractor:
        WhisperFeatureExtractor(feature_size=model.config.num_mel_bins).save_pretrained(folder)
    return model


def save_qwen2_audio(folder):
    """A Qwen2-Audio of 128 mel bins."""
    config = Qwen2AudioConfig(
        audio_config=AUDIO | {"num_mel_bins": 128},
        text_config=TEXT | {"model_type": "qwen2", "vocab_size": 60},
        audio_token_index=3,
    )
    model = _random(Qwen2AudioForConditionalGeneration(config))
    model.save_pretrained(folder)
    return model


def save_audio_flamingo(folder):
    """An Audio Flamingo 3 of 128 mel bins, whose encoder is AF-Whisper."""
    audio = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    text = TEXT | {"model_type": "qwen2", "vocab_size": 60}
    config = AudioFlamingo3Config(audio_config=audio, text_config=text, audio_token_id=3)
    model = _random(AudioFlamingo3ForConditionalGeneration(config))
    model.save_pretrained(folder)
    return model


def save_siglip(folder, **changes):
    """A whole SigLIP with its preprocessor."""
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1}
    model = _random(SiglipModel(SiglipConfig(vision_config=VISION | changes, text_config=text)))
    model.save_pretrained(folder)
    side = model.config.vision_config.image_size
    SiglipImageProcessor(size={"height": side, "width": side}, image_mean=[0.4] * 3).save_pretrained(folder)
    return model


def save_siglip_vision(folder, **changes):
    """The image encoder of a SigLIP alone."""
    model = _random(SiglipVisionModel(SiglipVisionConfig(**VISION | changes)))
    model.save_pretrained(folder)
    return model


def save_parts(root):
    """One part of each kind, and another language model."""
    save_qwen2(root / "qwen2")
    save_llama(root / "llama")
    save_whisper(root / "whisper")
    save_siglip(root / "siglip")
    return root


def parts_of(root):
    """Options of `assemble`: the parts of a folder, and short windows."""
    chosen = {"language_model": "qwen2", "audio": "whisper", "vision": "siglip"}
    return {name: root / part for name, part in chosen.items()} | {"audio_window": 2.0}
