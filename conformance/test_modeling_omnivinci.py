"""`ModelTesterMixin` of transformers on a small random OmniVinci, with an image, a video and sound."""

import random
import unittest
import unittest.mock

import torch
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor

from transformers_omnivinci import OmniVinciConfig, OmniVinciForConditionalGeneration, OmniVinciModel

IMAGE, VIDEO, AUDIO = 3, 4, 5
TEXT = AUDIO + 1  # ids below are special or placeholders


def text_tensor(*args, **kwargs):
    return ids_tensor(*args, **kwargs).clamp(min=TEXT)


class OmniVinciModelTester:
    """Small configurations, and prompts with a tiled image, two frames and two windows of sound each."""

    is_training = True
    batch_size = 3
    num_frames = 2
    num_windows = 2
    tile_grid = (1, 2)
    text_length = 8

    vocab_size = 99
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4
    text_config = {
        "model_type": "qwen2",
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": 37,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }
    vision_config = {
        "model_type": "siglip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
        "vision_use_head": False,
    }
    audio_config = {
        "model_type": "qwen2_audio_encoder",
        "d_model": 24,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 28,
        "num_mel_bins": 10,
        "max_source_positions": 6,
    }

    def __init__(self, parent, **options):
        self.parent = parent
        self.options = options
        self.rng = random.Random(0)
        side = self.vision_config["image_size"] // self.vision_config["patch_size"] // 2
        rows, columns = self.tile_grid
        self.num_tiles = 1 + rows * columns
        self.num_image_tokens = rows * columns * side**2
        self.num_video_tokens = self.num_frames * side**2
        if "video_pool_sizes" in options:
            self.num_video_tokens = sum(
                -(-self.num_frames // t) * -(-side // h) * -(-side // w) for t, h, w in options["video_pool_sizes"]
            )
        self.num_audio_tokens = self.num_windows * (self.audio_config["max_source_positions"] // 2)
        if "audio_pooling" in options:
            self.num_audio_tokens //= 2
        self.seq_length = self.text_length + self.num_image_tokens + self.num_video_tokens + self.num_audio_tokens
        self.encoder_seq_length = self.key_length = self.seq_length

    def get_config(self) -> OmniVinciConfig:
        return OmniVinciConfig(
            text_config=self.text_config,
            vision_config=self.vision_config,
            audio_config=self.audio_config,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            audio_token_id=AUDIO,
            s2_scales=[16, 32],
            vision_chunk_size=4,
            audio_chunk_size=4,
            **self.options,
        )

    def prepare_config_and_inputs_for_common(self):
        batch, tile = self.batch_size, self.vision_config["image_size"]
        text = TEXT + ids_tensor([batch, self.text_length], self.vocab_size - TEXT, rng=self.rng)
        media = [IMAGE] * self.num_image_tokens + [VIDEO] * self.num_video_tokens + [AUDIO] * self.num_audio_tokens
        media = torch.tensor([media], device=text.device).expand(batch, -1)
        half = self.text_length // 2
        input_ids = torch.cat((text[:, :half], media, text[:, half:]), dim=1)
        window = [
            batch * self.num_windows,
            self.audio_config["num_mel_bins"],
            2 * self.audio_config["max_source_positions"],
        ]
        seconds = torch.arange(self.num_audio_tokens, device=text.device) * 0.04 + 0.02
        inputs = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "pixel_values": floats_tensor([batch * self.num_tiles, 3, tile, tile], rng=self.rng),
            "image_grid_hw": torch.tensor([self.tile_grid] * batch, device=text.device),
            "pixel_values_videos": floats_tensor([batch * self.num_frames, 3, tile, tile], rng=self.rng),
            "video_timestamps": torch.arange(self.num_frames, device=text.device).float().expand(batch, -1),
            "input_features": floats_tensor(window, rng=self.rng),
            "audio_timestamps": seconds.expand(batch, -1),
            "audio_num_windows": torch.full((batch,), self.num_windows, device=text.device),
            "video_has_audio": torch.ones(batch, dtype=torch.bool, device=text.device),
            "audio_from_video": torch.ones(batch, dtype=torch.bool, device=text.device),
        }
        return self.get_config(), {name: value.contiguous() for name, value in inputs.items()}


class OmniVinciModelTest(ModelTesterMixin, unittest.TestCase):
    """The common tests of a model, on the parts that the published checkpoint has."""

    options: dict = {}

    all_model_classes = (OmniVinciModel, OmniVinciForConditionalGeneration)
    _is_composite = True
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = OmniVinciModelTester(self, **self.options)
        # `AutoModel` gives the model that generates, as the release does. The tests look for the base model there.
        mapping = unittest.mock.patch.dict(MODEL_MAPPING_NAMES, {OmniVinciConfig.model_type: "OmniVinciModel"})
        # Random text of the tests has no placeholders: those would stand for media that are not given.
        text = unittest.mock.patch("transformers_tests.test_modeling_common.ids_tensor", text_tensor)
        for patch in (mapping, text):
            patch.start()
            self.addCleanup(patch.stop)
        self.config_tester = ConfigTester(self, config_class=OmniVinciConfig, has_text_modality=False)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """Tests that take the text alone of what was prepared get no placeholders, either."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if "input_ids" in inputs and "pixel_values" not in inputs:
            inputs["input_ids"] = inputs["input_ids"].clamp(min=TEXT)
        return inputs

    def test_config(self):
        self.config_tester.run_common_tests()

    def _image_features_get_expected_num_attentions(self, model_tester=None):
        return self.model_tester.get_config().num_vision_layers  # others are not built

    _video_features_get_expected_num_attentions = _image_features_get_expected_num_attentions

    def _audio_features_get_expected_num_attentions(self, model_tester=None):
        return self.model_tester.audio_config["encoder_layers"]


class OmniVinciVariantModelTest(OmniVinciModelTest):
    """The same on what may be chosen: OmniAlignNet, trained time embeddings, compression, pooling, tied embeddings."""

    options = {
        "align_loss_weight": 0.1,
        "align_temperature": 0.07,
        "audio_pooling": "conv",
        "audio_time_embedding": "learned",
        "audio_max_time": 30,
        "video_time_embedding": "learned",
        "video_max_time": 30,
        "video_pool_sizes": [[1, 1, 1], [2, 2, 1]],
        "tie_word_embeddings": True,
    }
