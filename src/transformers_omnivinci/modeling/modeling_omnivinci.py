"""
OmniVinci (arXiv 2510.15870): the forward pass reads as figure 2 of the paper.

Encoders → compression and projection → time (CRTE) → placed in temporal groups (TEG) → language model.
"""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import can_return_tuple, torch_compilable_check
from transformers.utils.generic import is_flash_attention_requested, merge_with_config_defaults

from ..checkpoint_formats import load_registered
from ..compat import CACHE, choose_cache, require
from ..configuration_omnivinci import OmniVinciConfig
from ..labels import learned_targets, share_of_targets
from ..processing.batch import CUT, NAMES_OF, MediaInputs, take_media
from ..remote_code import InstalledCode
from ..weight_files import check_files
from .cached_prompt import remember_pass
from .compressed import unpack_before_encoding
from .generation import GeneratesFromMedia
from .media_encoder import MediaEncoder, MediaKwargs, names_media_inputs
from .omni_align_net import OmniAlignNet, QueryPooling, pair_tracks
from .outputs import OmniVinciCausalLMOutputWithPast, OmniVinciModelOutputWithPast
from .quantized_loading import check_savable, choose_quantized, prepare_loaded, prepare_training, read_config

require(PreTrainedModel, "_init_weights", "_no_split_modules", "_skip_keys_device_placement", "_tied_weights_keys")
require(GenerationMixin, "_expand_inputs_for_generation", "prepare_inputs_for_generation")


class OmniVinciPreTrainedModel(InstalledCode, PreTrainedModel):
    """What both models share: loading, new weights, and what they support."""

    config: OmniVinciConfig
    base_model_prefix = "model"
    input_modalities = ("image", "video", "audio", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = [
        "Qwen2DecoderLayer",
        "SiglipVisionEmbeddings",
        "SiglipEncoderLayer",
        "Qwen2AudioEncoderLayer",
        "VisionProjector",
        "LearnedTimeEmbedding",
        "OmniAlignNet",
    ]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True
    _supports_attention_backend = True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """
        Loads what [`save_pretrained`] wrote, or a checkpoint in a registered format. Pickles are not loaded. A
        `quantization_config` is for the layers of the language model, unless it names modules itself.
        """
        model = load_registered("model", cls, pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        if model is not None:
            return model
        if pretrained_model_name_or_path is not None:
            check_files(
                Path(pretrained_model_name_or_path, kwargs.get("subfolder", "")), kwargs.get("use_safetensors")
            )
            kwargs["use_safetensors"] = True
        if kwargs.get("quantization_config") is not None:
            known = read_config(config, pretrained_model_name_or_path, **kwargs)
            kwargs["quantization_config"] = choose_quantized(
                kwargs["quantization_config"], known, str(pretrained_model_name_or_path)
            )
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with `output_loading_info`
        prepare_loaded(model)
        unpack_before_encoding(model)
        return loaded

    def save_pretrained(self, save_directory, *args, **kwargs):
        """As in transformers, but for weights that bitsandbytes would write wrongly."""
        check_savable(self)
        return super().save_pretrained(save_directory, *args, **kwargs)

    def train(self, mode: bool = True):
        """As in torch, and with weights in 4 bits prepared for it."""
        if mode:
            prepare_training(self)
        return super().train(mode)

    @staticmethod
    def flatten_embeddings(output: BaseModelOutputWithPooling) -> torch.Tensor:
        """The embeddings of all media of a modality, one after another: (num_embeddings, hidden_size)."""
        embeddings = output.pooler_output
        return embeddings.flatten(0, -2) if isinstance(embeddings, torch.Tensor) else torch.cat(list(embeddings))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, QueryPooling):
            init.normal_(module.query, std=self.config.initializer_range)
        elif isinstance(module, OmniAlignNet) and module.temperature is not None:
            init.constant_(module.logit_scale, -math.log(module.temperature))


class OmniVinciModel(MediaEncoder, OmniVinciPreTrainedModel):
    """OmniVinci without the language modeling head: encoders, projectors, time embeddings and language model."""

    def __init__(self, config: OmniVinciConfig):
        super().__init__(config)
        self.build_media_parts(config)
        self.omni_align_net = OmniAlignNet(config) if config.align_loss_weight else None
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The embeddings of the language model's tokens."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        """Replaces the embeddings of the language model's tokens."""
        self.language_model.set_input_embeddings(value)

    def get_placeholder_mask(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.FloatTensor,
        image_features: torch.FloatTensor | None = None,
        video_features: torch.FloatTensor | None = None,
        audio_features: torch.FloatTensor | None = None,
    ) -> tuple[torch.BoolTensor, torch.BoolTensor, torch.BoolTensor]:
        """
        Where the embeddings of each modality stand.

        Args:
            input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                `None`: placeholders are found by their embeddings.
            inputs_embeds (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`): Embeddings of ids.
            image_features, video_features, audio_features (`torch.Tensor`, *optional*):
                `(num_embeddings, hidden_size)`, checked against the number of placeholders.

        Returns:
            `tuple[torch.Tensor, torch.Tensor, torch.Tensor]`: for image, video and audio, expanded to the shape of
            `inputs_embeds`.

        Raises:
            ValueError: there are more or fewer features than placeholders.
        """
        masks = []
        features = {"image": image_features, "video": video_features, "audio": audio_features}
        for modality, embeddings in features.items():
            token_id = getattr(self.config, f"{modality}_token_id")
            if input_ids is None:
                token = torch.tensor(token_id, dtype=torch.long, device=inputs_embeds.device)
                mask = (inputs_embeds == self.get_input_embeddings()(token)).all(-1)
            else:
                mask = (input_ids == token_id).to(inputs_embeds.device)
            if embeddings is not None:
                torch_compilable_check(
                    mask.sum() == len(embeddings),
                    lambda: (
                        f"The prompts have {int(mask.sum())} {modality} placeholders, but there are "  # noqa: B023
                        f"{len(embeddings)} {modality} embeddings. {CUT}"  # noqa: B023
                    ),
                )
            masks.append(mask.unsqueeze(-1).expand_as(inputs_embeds))
        return tuple(masks)

    def get_inputs_embeds(
        self,
        input_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **media: Unpack[MediaInputs],
    ) -> torch.FloatTensor:
        """
        The sequence that the language model reads: embeddings of the text, with those of the media in the place of
        their placeholders. The processor has laid the placeholders out in temporal groups (TEG), so that the features
        of each modality are placed in order.

        Args:
            input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`): Text and placeholders.
            inputs_embeds (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`, *optional*):
                In the place of `input_ids`, embeddings of text and placeholders.
            mm_encoder_outputs (`dict`, *optional*): What [`encode_media`] returned, in the place of the media.
            media: See [`MediaInputs`]; other inputs of `forward` are ignored.

        Returns:
            `torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`.
        """
        encoded = self.encode(media, mm_encoder_outputs)
        return self._place(encoded, input_ids, self._embed(input_ids, inputs_embeds))

    def _embed(self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")
        return self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds

    def _place(
        self,
        encoded: dict[str, BaseModelOutputWithPooling],
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor,
        is_prompt: bool = True,
    ) -> torch.Tensor:
        """
        Embeddings of media in the place of their placeholders. In a prompt, placeholders of a modality without
        embeddings are refused; a token that was generated is no placeholder, whatever it is.
        """
        if not encoded and not is_prompt:
            return inputs_embeds
        features = dict.fromkeys(NAMES_OF, inputs_embeds[0, :0]) if is_prompt else {}
        features |= {name: self.flatten_embeddings(output) for name, output in encoded.items()}
        masks = self.get_placeholder_mask(
            input_ids, inputs_embeds, **{f"{name}_features": embeddings for name, embeddings in features.items()}
        )
        if encoded:
            inputs_embeds = inputs_embeds.clone()
        for name, mask in zip(NAMES_OF, masks, strict=True):
            if name in encoded:
                inputs_embeds[mask[..., 0]] = features[name].to(inputs_embeds.device, inputs_embeds.dtype)
        return inputs_embeds

    @merge_with_config_defaults
    @can_return_tuple
    @names_media_inputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        mm_token_type_ids: torch.LongTensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        cache: Cache | None = None,
        output_align_loss: bool = False,
        **kwargs: Unpack[MediaKwargs],
    ) -> OmniVinciModelOutputWithPast:
        r"""
        Figure 2: text is embedded; media are encoded, projected and given their seconds (CRTE, equations 4 and 5), on
        request aligned (OmniAlignNet, equation 1), and placed in temporal groups (TEG, equations 2 and 3), which the
        processor has laid out; the language model reads on. See [`OmniVinciForConditionalGeneration.forward`].
        """
        media, cache = take_media(kwargs), choose_cache(past_key_values, cache)
        inputs_embeds = self._embed(input_ids, inputs_embeds)
        encoded = self.encode(media, mm_encoder_outputs, output_projected_embeddings=output_align_loss)
        align_loss = self.omni_align_net(*pair_tracks(encoded, media)) if output_align_loss else None
        # `generate` says by an empty dictionary that it goes on.
        goes_on = cache is not None and (
            inputs_embeds.shape[1] == 1 or (mm_encoder_outputs == {} and cache.get_seq_length() > 0)
        )
        inputs_embeds = self._place(encoded, input_ids, inputs_embeds, is_prompt=not goes_on)
        attention = self._attend(attention_mask, position_ids, inputs_embeds)
        outputs = self.language_model(inputs_embeds=inputs_embeds, **attention, **{CACHE: cache}, **kwargs)
        return OmniVinciModelOutputWithPast(
            **outputs,
            **{f"{name}_hidden_states": self.flatten_embeddings(output) for name, output in encoded.items()},
            **{f"{name}_outputs": output for name, output in encoded.items()},
            align_loss=align_loss,
        )

    def _attend(self, attention_mask, position_ids: torch.Tensor | None, inputs_embeds: torch.Tensor) -> dict:
        """Positions and mask as the language model takes them. Transformers hands 4D masks on as they are."""
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            # A padded sample is read at the positions that it has alone.
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -inputs_embeds.shape[1] :]
        if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 4:
            self.check_attends_by_mask()
            if attention_mask.dtype == torch.bool and self.language_model.config._attn_implementation != "sdpa":
                least = torch.finfo(inputs_embeds.dtype).min
                attention_mask = torch.zeros_like(attention_mask, dtype=inputs_embeds.dtype).masked_fill(
                    ~attention_mask, least
                )
        return {"attention_mask": attention_mask, "position_ids": position_ids}

    def check_attends_by_mask(self) -> None:
        """
        Raises:
            ValueError: the attention of the language model does not take a mask of who attends to whom.
        """
        if is_flash_attention_requested(self.language_model.config):
            raise ValueError(
                f"The attention {self.language_model.config._attn_implementation!r} takes no mask of who attends to "
                "whom, which samples with shared media need: use `attn_implementation='sdpa'` or 'eager'."
            )


def _of_model(name: str) -> Callable:
    """A method of [`OmniVinciModel`] for the model with a head."""

    @functools.wraps(getattr(OmniVinciModel, name))
    def method(self, *args, **kwargs):
        return getattr(self.model, name)(*args, **kwargs)

    return method


class OmniVinciForConditionalGeneration(GeneratesFromMedia, OmniVinciPreTrainedModel, GenerationMixin):
    """OmniVinci: sees, listens and reads, and answers in text."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: OmniVinciConfig):
        super().__init__(config)
        self.model = OmniVinciModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The embeddings of the language model's tokens."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        """Replaces the embeddings of the language model's tokens."""
        self.model.set_input_embeddings(value)

    encode_media = _of_model("encode_media")
    encode_frames = _of_model("encode_frames")
    place_frames = _of_model("place_frames")
    encode_windows = _of_model("encode_windows")
    place_windows = _of_model("place_windows")
    get_image_features = _of_model("get_image_features")
    get_video_features = _of_model("get_video_features")
    get_audio_features = _of_model("get_audio_features")
    get_placeholder_mask = _of_model("get_placeholder_mask")
    get_inputs_embeds = _of_model("get_inputs_embeds")
    get_alignment_embeddings = _of_model("get_alignment_embeddings")

    @can_return_tuple
    @names_media_inputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        mm_token_type_ids: torch.LongTensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        labels: torch.LongTensor | None = None,
        cache: Cache | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[MediaKwargs],
    ) -> OmniVinciCausalLMOutputWithPast:
        r"""
        Args:
            input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                Text and placeholders, as [`OmniVinciProcessor`] returns them.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                0 at padding. Also `(batch_size, 1, sequence_length, sequence_length)`, where a token attends to
                another, with `position_ids`; FlashAttention takes no such mask.
            position_ids, past_key_values, use_cache, logits_to_keep:
                As in [`Qwen2ForCausalLM`]. With a cache, tokens and media are those that it does not hold yet.
            cache: The other name of `past_key_values`, which transformers prefers from 5.24 on.
            inputs_embeds (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`, *optional*):
                In the place of `input_ids`.
            pixel_values, image_grid_hw, pixel_values_videos, video_timestamps, input_features, audio_timestamps,
            audio_num_windows, video_has_audio, audio_from_video:
                The media, see [`MediaInputs`]. The last two are read in training with OmniAlignNet.
            mm_token_type_ids: Accepted because the processor may return it; not read.
            mm_encoder_outputs (`dict`, *optional*): What [`encode_media`] returned, in the place of the media.
            labels (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                Next-token targets; -100 is left out, and so are placeholders. With `logits_to_keep` those of the
                positions that are kept, as in [`Qwen2ForCausalLM`], unless there are `shift_labels` beside them. With
                `config.align_loss_weight` and in training, the loss of OmniAlignNet is added. In evaluation it is not:
                the loss stays comparable with that of models without OmniAlignNet, and no process waits for another.

        Example:

        ```python
        >>> from transformers import AutoModel, AutoProcessor
        >>> import transformers_omnivinci

        >>> processor = AutoProcessor.from_pretrained("nvidia/omnivinci")
        >>> model = AutoModel.from_pretrained("nvidia/omnivinci", device_map="auto")
        >>> conversation = [
        ...     {
        ...         "role": "user",
        ...         "content": [{"type": "video", "path": "clip.mp4"}, {"type": "text", "text": "What happens?"}],
        ...     }
        ... ]
        >>> inputs = processor.apply_chat_template(
        ...     conversation, tokenize=True, return_dict=True, add_generation_prompt=True, load_audio_from_video=True,
        ...     num_frames=64, return_tensors="pt",
        ... ).to(model.device, model.dtype)
        >>> output = model.generate(**inputs, max_new_tokens=128)
        >>> processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ```"""
        with_alignment = self.model.omni_align_net is not None and self.training and labels is not None
        media = take_media(kwargs)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=choose_cache(past_key_values, cache),
            inputs_embeds=inputs_embeds,
            mm_encoder_outputs=mm_encoder_outputs,
            output_align_loss=with_alignment,
            return_dict=True,
            **media,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep  # all of them if 0
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        # `generate` does so at its end, and gives what is encoded.
        if labels is None and mm_encoder_outputs is None and not (self.training or torch.compiler.is_compiling()):
            remember_pass(self.config, outputs.get(CACHE), input_ids, attention_mask, media)
        loss = language_loss = None
        if labels is not None:
            counted = {name: kwargs.pop(name, None) for name in ("num_items_in_batch", "shift_labels")}
            placeholders = (self.config.image_token_id, self.config.video_token_id, self.config.audio_token_id)
            if input_ids is not None and input_ids.shape != labels.shape:
                input_ids = input_ids[:, kept]
            targets = learned_targets(labels, placeholders, input_ids, **counted)
            vocab_size = self.config.text_config.vocab_size
            loss = self.loss_function(logits=logits, vocab_size=vocab_size, **targets, **kwargs)
        if with_alignment:
            language_loss, weight = loss, self.config.align_loss_weight * share_of_targets(**targets)
            loss = language_loss + weight * outputs.align_loss.to(language_loss.device)
        named = {name: outputs[name] for name in outputs if name != "last_hidden_state"}
        return OmniVinciCausalLMOutputWithPast(loss=loss, logits=logits, language_loss=language_loss, **named)


__all__ = ["OmniVinciForConditionalGeneration", "OmniVinciModel", "OmniVinciPreTrainedModel"]
