"""What the encoders and the model return."""

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, CausalLMOutputWithPast

from ..compat import CacheByBothNames


@dataclass
class OmniVinciMediaOutput(BaseModelOutputWithPooling):
    r"""
    pooler_output (`list[torch.Tensor]`): Embeddings of each medium as they stand in the sequence.
    projected_embeddings (`list[torch.Tensor]`, *optional*):
        Embeddings of each medium as the projector gives them, before pooling and time: E_v and E_a of section 2.1,
        `(num_embeddings, hidden_size)`. On request.
    """

    projected_embeddings: list[torch.FloatTensor] | None = None


@dataclass
class MediaHiddenStates:
    """Mixin of outputs of the model, which say what they are."""

    image_hidden_states: torch.FloatTensor | None = None
    video_hidden_states: torch.FloatTensor | None = None
    audio_hidden_states: torch.FloatTensor | None = None
    image_outputs: BaseModelOutputWithPooling | None = None
    video_outputs: BaseModelOutputWithPooling | None = None
    audio_outputs: BaseModelOutputWithPooling | None = None

    def __setattr__(self, name: str, value):
        # The library lists all fields anew for each that is set. Most are empty, in each step of a generation.
        if value is None and name in self.__dataclass_fields__:
            object.__setattr__(self, name, None)
        else:
            super().__setattr__(name, value)


@dataclass
class OmniVinciModelOutputWithPast(CacheByBothNames, MediaHiddenStates, BaseModelOutputWithPast):
    r"""
    image_hidden_states, video_hidden_states, audio_hidden_states (`torch.Tensor`, *optional*):
        Embeddings of the media as they stand in the sequence, `(num_embeddings, hidden_size)`.
    image_outputs, video_outputs, audio_outputs ([`OmniVinciMediaOutput`], *optional*):
        The same, medium by medium, as [`OmniVinciModel.encode_media`] gives them.
    align_loss (`torch.Tensor` of shape `(1,)`, *optional*): That of OmniAlignNet, equation 1. On request.
    """

    align_loss: torch.FloatTensor | None = None


@dataclass
class OmniVinciCausalLMOutputWithPast(CacheByBothNames, MediaHiddenStates, CausalLMOutputWithPast):
    r"""
    loss (`torch.Tensor` of shape `(1,)`, *optional*):
        Next-token loss over text positions; in training with OmniAlignNet, that and `align_loss_weight * align_loss`.
    logits (`torch.Tensor` of shape `(batch_size, sequence_length, vocab_size)`): Scores of the next token.
    past_key_values, cache (`Cache`, *optional*): Keys and values of the language model, by either name.
    hidden_states, attentions (`tuple(torch.Tensor)`, *optional*): Of the language model.
    language_loss, align_loss (`torch.Tensor` of shape `(1,)`, *optional*):
        In training with OmniAlignNet, what `loss` is made of: the next-token loss, and equation 1 without its weight.
    others: As of [`OmniVinciModelOutputWithPast`].
    """

    language_loss: torch.FloatTensor | None = None
    align_loss: torch.FloatTensor | None = None
