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
        width = self.block**2 * len(config.s2_scales) * config.vision_config.hidden_size
        self.norm = nn.LayerNorm(width)
        self.linear_1 = nn.Linear(width, config.text_config.hidden_size)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(config.text_config.hidden_size, config.text_config.hidden_size)

    def forward(self, features: torch.Tensor, chunk_size: int | None = None) -> torch.Tensor:
        """
        Args:
            features (`torch.Tensor` of shape `(batch, height, width, C)`):
                Patch features of images or tiles. C is `num_scales · hidden_size` of merged tiles, or `hidden_size` of
                images that are the same at every scale.
            chunk_size (`int`, *optional*): How many of them are projected at a time. `None`: all.

        Returns:
            `torch.Tensor` of shape `(batch, height / block, width / block, text hidden_size)`.
        """
        width = self.block**2 * features.shape[-1]
        repeats = self.norm.normalized_shape[0] // width
        fold = self._fold(repeats) if repeats > 1 and len(features) > 1 else None  # takes as long as it saves of one
        projected = []
        for chunk in features.split(chunk_size or len(features)):
            if fold is not None:
                normed = nn.functional.layer_norm(space_to_depth(chunk, self.block), (width,), eps=self.norm.eps)
                hidden_states = nn.functional.linear(normed, *(weight.to(normed.dtype) for weight in fold))
            else:
                repeated = chunk.repeat(1, 1, 1, repeats) if repeats > 1 else chunk
                hidden_states = self.linear_1(self.norm(space_to_depth(repeated, self.block)))
            projected.append(self.linear_2(self.act(hidden_states)))
        return projected[0] if len(projected) == 1 else torch.cat(projected)

    def _fold(self, repeats: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """
        Weight and bias that give `linear_1(norm(x))` for x that repeats the channels of each block, from one copy
        normalised without scale and shift. `None` where the layer has no plain weight to add up: quantized, adapted,
        offloaded.
        """
        if type(self.linear_1) is not nn.Linear or self.linear_1.weight.is_meta or self.norm.weight.is_meta:
            return None
        shift = self.norm.bias.float()
        scale = self.norm.weight.float().view(self.block**2, repeats, -1)
        weights, biases = [], []
        for rows in self.linear_1.weight.split(512):  # which are small in float32 beside the whole
            rows = rows.float()
            biases.append(rows @ shift)
            rows = rows.view(len(rows), *scale.shape)
            folded = rows[:, :, 0] * scale[:, 0]
            for repeat in range(1, repeats):
                folded = torch.addcmul(folded, rows[:, :, repeat], scale[:, repeat])
            weights.append(folded.flatten(1))
        return torch.cat(weights), self.linear_1.bias.float() + torch.cat(biases)


class AudioProjector(nn.Module):
    """`mlp`: Linear, activation, Linear; from (..., audio width) to (..., text hidden_size)."""

    def __init__(self, config):
        super().__init__()
        self.linear_1 = nn.Linear(config.audio_config.d_model, config.text_config.hidden_size)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(config.text_config.hidden_size, config.text_config.hidden_size)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.linear_2(self.act(self.linear_1(vectors)))
