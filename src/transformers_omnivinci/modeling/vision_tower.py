"""The image encoder: SigLIP up to the layer that is read."""

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.siglip.modeling_siglip import SiglipVisionModel

from .chunks import encode_in_chunks


class OmniVinciVisionTower(SiglipVisionModel):
    """
    SigLIP without what nothing reads: layers above `num_layers`, the final layer norm and the pooling head.

    Args:
        config (`SiglipVisionConfig`): The whole encoder.
        num_layers (`int`): How many of its layers are built and run.
    """

    def __init__(self, config, num_layers: int):
        super().__init__(config)
        self.encoder.layers = self.encoder.layers[:num_layers]
        self.post_layernorm = nn.Identity()
        self.use_head, self.head = False, None

    def forward(
        self, pixel_values: torch.Tensor, chunk_size: int | None = None, num_passes: int | None = None, **kwargs
    ) -> BaseModelOutput:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch, 3, image_size, image_size)`): Images, tiles or frames.
            chunk_size (`int`, *optional*): How many of them are encoded at a time. `None`: all.
            num_passes (`int`, *optional*): How often it is run at least, see [`encode_in_chunks`].

        Returns:
            [`BaseModelOutput`] with `last_hidden_state` of shape `(batch, patches, hidden_size)` and, where asked for,
            `hidden_states` and `attentions`.
        """
        return encode_in_chunks(super().forward, pixel_values, chunk_size, num_passes, **kwargs)
