"""The projectors between the encoders and the language model (figure 2)."""

import torch
from torch import nn
from transformers.activations import ACT2FN


def space_to_depth(features: torch.Tensor, block: int) -> torch.Tensor:
    """
    Folds blocks of neighbouring patches into channels, in the order (block row, block column, channel). A grid that is
    no multiple of the block is padded with zeros at the right and the bottom.

    Args:
        features (`torch.Tensor` of shape `(batch, height, width, C)`): Patch features.
        block (`int`): Side of a block.

    Returns:
        `torch.Tensor` of shape `(batch, height / block, width / block, block² · C)`.
    """
    batch, height, width, channels = features.shape
    if height % block or width % block:
        features = nn.functional.pad(features, (0, 0, 0, -width % block, 0, -height % block))
        height, width = features.shape[1:3]
    blocks = features.view(batch, height // block, block, width // block, block, channels)
    return blocks.permute(0, 1, 3, 2, 4, 5).reshape(batch, height // block, width // block, -1)


class VisionProjector(nn.Module):
    """
    `mlp_downsample`: space-to-depth, LayerNorm, Linear, activation, Linear.

    An image that is not tiled has the same features at every scale. Its layer norm and first linear layer are then
    computed on one copy: the layer norm of a repeated vector is the repeated layer norm, and the blocks of the linear
    layer that meet equal channels add up. The numbers are those of the repeated input.
    """

    def __init__(self, config):
        super().__init__()
        self.block = config.spatial_merge_size
        self.num_scales = len(config.s2_scales)
        width = self.block**2 * self.num_scales * config.vision_config.hidden_size
        self.norm = nn.LayerNorm(width)
        self.linear_1 = nn.Linear(width, config.text_config.hidden_size)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(config.text_config.hidden_size, config.text_config.hidden_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """
        Args:
            features (`torch.Tensor` of shape `(batch, height, width, C)`):
                Patch features of images or tiles. C is `num_scales · hidden_size` of merged tiles, or `hidden_size` of
                images that are the same at every scale.

        Returns:
            `torch.Tensor` of shape `(batch, height / block, width / block, text hidden_size)`.
        """
        blocks = self.block**2
        once = self.num_scales > 1 and features.shape[-1] * self.num_scales * blocks == self.norm.normalized_shape[0]
        if once and not self._can_fold():
            features, once = features.repeat(1, 1, 1, self.num_scales), False
        features = space_to_depth(features, self.block)
        hidden_states = self._folded_linear(features) if once else self.linear_1(self.norm(features))
        return self.linear_2(self.act(hidden_states))

    def _can_fold(self) -> bool:
        # A quantized or adapted layer has no plain weight to add up, an offloaded one has none yet.
        return type(self.linear_1) is nn.Linear and not self.linear_1.weight.is_meta and not self.norm.weight.is_meta

    def _folded_linear(self, features: torch.Tensor) -> torch.Tensor:
        """`linear_1(norm(x))` for x that repeats the channels of each block `num_scales` times, from one copy."""
        shape = (self.block**2, self.num_scales, -1)
        weight, scale = self.linear_1.weight.float(), self.norm.weight.float()
        folded_weight = (weight * scale).view(len(weight), *shape).sum(2).flatten(1)  # (hidden, block² · C)
        folded_bias = self.linear_1.bias.float() + weight @ self.norm.bias.float()
        normed = nn.functional.layer_norm(features, features.shape[-1:], eps=self.norm.eps)
        return nn.functional.linear(normed, folded_weight.to(normed.dtype), folded_bias.to(normed.dtype))


class AudioProjector(nn.Module):
    """`mlp`: Linear, activation, Linear; from (..., audio width) to (..., text hidden_size)."""

    def __init__(self, config):
        super().__init__()
        self.linear_1 = nn.Linear(config.audio_config.d_model, config.text_config.hidden_size)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(config.text_config.hidden_size, config.text_config.hidden_size)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.linear_2(self.act(self.linear_1(vectors)))
