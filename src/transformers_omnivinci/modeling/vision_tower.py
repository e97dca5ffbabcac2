"""The image encoder: SigLIP up to the layer that is read."""

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.siglip.modeling_siglip import SiglipVisionModel


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

    def forward(self, pixel_values: torch.Tensor, chunk_size: int | None = None, **kwargs) -> BaseModelOutput:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch, 3, image_size, image_size)`): Images, tiles or frames.
            chunk_size (`int`, *optional*): How many of them are encoded at a time. `None`: all.

        Returns:
            [`BaseModelOutput`] with `last_hidden_state` of shape `(batch, patches, hidden_size)`.
        """
        chunks = pixel_values.split(chunk_size or len(pixel_values))
        encoded = [super(OmniVinciVisionTower, self).forward(chunk, **kwargs).last_hidden_state for chunk in chunks]
        return BaseModelOutput(last_hidden_state=encoded[0] if len(encoded) == 1 else torch.cat(encoded))
