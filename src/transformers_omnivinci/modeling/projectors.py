"""The projectors between the encoders and the language model (figure 2)."""

import torch
from torch import nn
from transformers.activations import ACT2FN

from .chunks import join, split


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

    An image that is not tiled has the same features at every scale, and is projected as that many copies of them.
    [`fuse`] makes one copy do, for inference.
    """

    def __init__(self, config):
        super().__init__()
        self.block = config.spatial_merge_size
        width = self.block**2 * len(config.s2_scales) * config.vision_config.hidden_size
        self.norm = nn.LayerNorm(width)
        self.linear_1 = nn.Linear(width, config.text_config.hidden_size)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(config.text_config.hidden_size, config.text_config.hidden_size)
        self.num_scales = len(config.s2_scales)
        self.register_buffer("fused_weight", None, persistent=False)
        self.register_buffer("fused_bias", None, persistent=False)
        self.register_load_state_dict_pre_hook(_unfuse)

    def forward(
        self, features: torch.Tensor, chunk_size: int | None = None, num_passes: int | None = None
    ) -> torch.Tensor:
        """
        Args:
            features (`torch.Tensor` of shape `(batch, height, width, C)`):
                Patch features of images or tiles. C is `num_scales · hidden_size` of merged tiles, or `hidden_size` of
                images that are the same at every scale.
            chunk_size (`int`, *optional*): How many of them are projected at a time. `None`: all.
            num_passes (`int`, *optional*): How often it is run at least, see [`split`].

        Returns:
            `torch.Tensor` of shape `(batch, height / block, width / block, text hidden_size)`.
        """
        repeats = self.norm.normalized_shape[0] // (self.block**2 * features.shape[-1])
        fused = repeats > 1 and self._is_fused()
        projected = []
        for chunk in split(features, chunk_size, num_passes):
            if not fused and repeats > 1:
                chunk = chunk.repeat(1, 1, 1, repeats)
            blocks = space_to_depth(chunk, self.block)
            rows, columns = blocks.shape[1:3]
            blocks = blocks.flatten(1, 2)  # (batch, positions, width): quantized layers expect no more axes
            if fused:
                blocks = nn.functional.layer_norm(blocks, blocks.shape[-1:], eps=self.norm.eps)
                hidden_states = nn.functional.linear(blocks, self.fused_weight, self.fused_bias)
            else:
                hidden_states = self.linear_1(self.norm(blocks))
            projected.append(self.linear_2(self.act(hidden_states)).unflatten(1, (rows, columns)))
        return join(projected, len(features))

    @torch.no_grad()
    def fuse(self) -> None:
        """
        Adds up, for inference, what `norm` and `linear_1` do to the copies of an image that is not tiled: the layer
        norm of a repeated vector is the repeated layer norm, and the blocks of the linear layer that meet equal
        channels add up. Frames are then projected in about half the time, to the same numbers; images in tiles as
        before. It takes weights as they are now and another third of the memory of `linear_1`. The two modules are not
        called any more for frames, nor are hooks on them. [`unfuse`], training mode and new weights undo it.

        Raises:
            ValueError: the weights are not plain ones, as where they are quantized, adapted, sharded or offloaded; or
                the module is in training mode.
        """
        if self.training:
            raise ValueError("The vision projector is in training mode: call `eval()` before `fuse()`.")
        reason = self._why_not_plain()
        if reason:
            raise ValueError(f"The vision projector cannot be fused: {reason}. Without `fuse()` it works as it is.")
        if self.num_scales == 1:
            return
        shift = self.norm.bias.float()
        scale = self.norm.weight.float().view(self.block**2, self.num_scales, -1)
        weights, biases = [], []
        for rows in self.linear_1.weight.split(512):  # which are small in float32 beside the whole
            rows = rows.float()
            biases.append(rows @ shift)
            weights.append((rows.view(len(rows), *scale.shape) * scale).sum(2).flatten(1))
        dtype = self.linear_1.weight.dtype
        self.fused_weight = torch.cat(weights).to(dtype)
        self.fused_bias = (self.linear_1.bias.float() + torch.cat(biases)).to(dtype)

    def unfuse(self) -> None:
        """Undoes [`fuse`]."""
        self.fused_weight = self.fused_bias = None

    def train(self, mode: bool = True) -> "VisionProjector":
        if mode:
            self.unfuse()
        return super().train(mode)

    def _is_fused(self) -> bool:
        """Also whether the two modules are as they were, and no gradient of theirs is wanted."""
        if self.fused_weight is None or self._why_not_plain():
            return False
        return not (torch.is_grad_enabled() and self.linear_1.weight.requires_grad)

    def _why_not_plain(self) -> str | None:
        """What is special about a weight that [`fuse`] reads."""
        for name, module, expected in (("norm", self.norm, nn.LayerNorm), ("linear_1", self.linear_1, nn.Linear)):
            if type(module) is not expected:
                return f"`{name}` is a {type(module).__name__}"
            for weight in (module.weight, module.bias):
                if type(weight) not in (nn.Parameter, torch.Tensor):
                    return f"a weight of `{name}` is a {type(weight).__name__}"
                if weight.is_meta:
                    return f"a weight of `{name}` is offloaded"
                if not weight.is_floating_point() or not weight.numel():
                    return f"a weight of `{name}` is quantized or sharded"
        return None


def _unfuse(projector: VisionProjector, *_) -> None:
    projector.unfuse()


class AudioProjector(nn.Module):
    """`mlp`: Linear, activation, Linear; from (..., audio width) to (..., text hidden_size)."""

    def __init__(self, config):
        super().__init__()
        self.linear_1 = nn.Linear(config.audio_config.d_model, config.text_config.hidden_size)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(config.text_config.hidden_size, config.text_config.hidden_size)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """(..., audio hidden_size) to (..., text hidden_size)."""
        return self.linear_2(self.act(self.linear_1(vectors)))
