"""
OmniVinci as a model of vLLM: figure 2 of the paper, with the encoders of this package and vLLM's Qwen2.

Encoders, projectors and time embeddings are those of `modeling/`, so that what they compute is decided once. The
language model is vLLM's own, with its kernels, its parallelism, its adapters and its quantized layers.
"""

from collections.abc import Iterable

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsLoRA, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.transformers.utils import recursive_replace_linear
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    WeightsMapper,
    init_vllm_registered_model,
    maybe_prefix,
)
from vllm.model_executor.models.vision import run_dp_sharded_vision_model
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.sequence import IntermediateTensors

from ...configuration_omnivinci import OmniVinciConfig
from ...modeling.media_encoder import MediaEncoder
from ...processing.prompts import TOKENS
from .items import RUNS, TENSORS, in_order, media_of
from .processing import OmniVinciDummyInputsBuilder, OmniVinciMultiModalProcessor, OmniVinciProcessingInfo
from .weights import STORED, by_model_names, weight_sources, with_scales

TOWERS = ("vision_tower", "audio_tower")
CONNECTORS = (
    *("vision_projector", "video_time_embedding"),
    *("audio_compression", "audio_projector", "audio_time_embedding"),
)


@MULTIMODAL_REGISTRY.register_processor(
    OmniVinciMultiModalProcessor, info=OmniVinciProcessingInfo, dummy_inputs=OmniVinciDummyInputsBuilder
)
class OmniVinciForConditionalGeneration(MediaEncoder, nn.Module, SupportsMultiModal, SupportsPP, SupportsLoRA):
    """
    What vLLM runs for checkpoints of [`transformers_omnivinci.OmniVinciForConditionalGeneration`].

    The language model may be split by tensors and by layers. The encoders are whole in every process; with
    `mm_encoder_tp_mode="data"` each process encodes its share of the tiles, frames and windows.
    """

    supports_encoder_tp_data = True
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            "model.omni_align_net.": None,
            "model.language_model.": "language_model.model.",
            "lm_head.": "language_model.lm_head.",
            "model.": "",
        }
    )
    packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """What stands for a medium in a prompt."""
        return TOKENS[modality]

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__()
        config: OmniVinciConfig = vllm_config.model_config.hf_config
        self.config = config
        self.token_ids = {modality: getattr(config, f"{modality}_token_id") for modality in TOKENS}
        self.shares_encoding = vllm_config.model_config.multimodal_config.mm_encoder_tp_mode == "data"
        self.configure_mm_token_handling(config.text_config.vocab_size, [*self.token_ids.values()])
        with self._mark_tower_model(vllm_config, set(TOKENS)):
            self.build_media_parts(config, vllm_config.model_config.dtype)
            if vllm_config.quant_config is not None:
                for name in (*TOWERS, *CONNECTORS):
                    recursive_replace_linear(getattr(self, name), vllm_config.quant_config, maybe_prefix(prefix, name))
        with self._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=config.text_config,
                prefix=maybe_prefix(prefix, "language_model"),
                architectures=["Qwen2ForCausalLM"],
            )
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors
        self.checkpoint = (vllm_config.model_config.model, vllm_config.model_config.revision)
        self.allow_patterns_overrides, self.secondary_weights = weight_sources(*self.checkpoint)

    def _encode_images(self, pixel_values: torch.Tensor, **kwargs) -> tuple[BaseModelOutput, torch.Tensor]:
        if not self.shares_encoding:
            return super()._encode_images(pixel_values, **kwargs)

        def encode(share: torch.Tensor) -> torch.Tensor:
            return super(OmniVinciForConditionalGeneration, self)._encode_images(share, **kwargs)[1]

        patches = run_dp_sharded_vision_model(pixel_values, encode)
        return BaseModelOutput(last_hidden_state=patches.flatten(1, 2)), patches

    def _encode_windows(self, input_features: torch.Tensor, **kwargs) -> BaseModelOutput:
        if not self.shares_encoding:
            return super()._encode_windows(input_features, **kwargs)

        def encode(share: torch.Tensor) -> torch.Tensor:
            return super(OmniVinciForConditionalGeneration, self)._encode_windows(share, **kwargs).last_hidden_state

        return BaseModelOutput(last_hidden_state=run_dp_sharded_vision_model(input_features, encode))

    def embed_multimodal(self, **kwargs: object) -> list[torch.Tensor]:
        """
        Encodes media of one modality.

        Args:
            kwargs: The tensors of [`TENSORS`], for each name those of all media: a list, or a tensor with one more
                axis where they are equally large.

        Returns:
            `list[torch.Tensor]`: the embeddings `(num_embeddings, hidden_size)` of each medium, in the order of its
            placeholders.
        """
        modality = next((modality for modality, runs in RUNS.items() if runs in kwargs), None)
        if modality is None:
            return []
        items = {name: kwargs[name] for name in TENSORS[modality]}
        encoded = self.encode_media(**media_of(modality, items))
        embeddings = list(encoded[modality].pooler_output)
        if modality != "video":
            return embeddings
        tracks = iter(encoded["audio"].pooler_output if "audio" in encoded else ())
        sounds = [next(tracks) if len(windows) else None for windows in items["track_features"]]
        return [
            in_order(runs, self.token_ids, picture, sound)
            for runs, picture, sound in zip(items[RUNS["video"]], embeddings, sounds, strict=True)
        ]

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: object,
    ) -> torch.Tensor | IntermediateTensors:
        """The language model's hidden states. vLLM has put the embeddings of media in their places."""
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """(num_tokens, hidden_size) to (num_tokens, vocab_size)."""
        return self.language_model.compute_logits(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """
        Loads weights of either layout. Returns the names of those that were.

        Raises:
            ValueError: weights are missing, or scales of quantized ones; of these vLLM itself would not tell.
        """
        named = with_scales(by_model_names(weights, self.config, *self.checkpoint))
        loaded = AutoWeightsLoader(self).load_weights(named, mapper=self.hf_to_vllm_mapper)
        missing = [name for name, _ in self.named_parameters() if name not in loaded and name.endswith(STORED)]
        if missing:
            raise ValueError(f"{self.checkpoint[0]} lacks {len(missing)} weights of the model: {', '.join(missing)}.")
        return loaded

    def get_mm_mapping(self) -> MultiModelKeys:
        """Which modules are the language model, which adapters are for."""
        return MultiModelKeys.from_string_field(
            language_model="language_model", connector=list(CONNECTORS), tower_model=list(TOWERS)
        )
