"""OmniAlignNet: draws picture and sound of the same clip together in one space. Section 2.1, figure 3, equation 1."""

from collections.abc import Sequence

import torch
from torch import distributed, nn
from transformers import SiglipVisionConfig
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.siglip.modeling_siglip import SiglipEncoderLayer
from transformers.utils.generic import maybe_autocast

from ..processing.batch import MediaInputs

MAX_LOGIT_SCALE = 100.0  # as CLIP bounds it


def align_loss(vision: torch.Tensor, audio: torch.Tensor, logit_scale: torch.Tensor | float = 1.0) -> torch.Tensor:
    """
    Equation 1: the mean of the cross-entropies from picture to sound and from sound to picture.

    Args:
        vision, audio (`torch.Tensor` of shape `(num_clips, C)`): V and A, of length 1.
        logit_scale (`torch.Tensor` or `float`, *optional*, defaults to 1.0): What similarities are multiplied by.

    Returns:
        `torch.Tensor`: a scalar in float32; exactly zero, with zero gradients, for fewer than two clips.
    """
    with maybe_autocast(vision.device.type, enabled=False):
        similarities = logit_scale * (vision.float() @ audio.float().T)  # s_ij, (num_clips, num_clips)
        if len(similarities) < 2:
            return 0.0 * similarities.sum()
        own = torch.arange(len(similarities), device=similarities.device)
        return (nn.functional.cross_entropy(similarities, own) + nn.functional.cross_entropy(similarities.T, own)) / 2


class QueryPooling(nn.Module):
    """
    A learnable query (1, C), Q_v or Q_a, that cross-attends to the embeddings of a clip. It has no projection of its
    own, which would be one trained vector made of another.

    Args:
        hidden_size (`int`): C.
        num_heads (`int`): Heads of the attention.
    """

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.empty(1, hidden_size))
        self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        Args:
            embeddings (`torch.Tensor` of shape `(num_clips, most embeddings of a clip, C)`): Of clips, padded.
            mask (`torch.Tensor` of shape `(num_clips, most embeddings of a clip)`): False at padding.

        Returns:
            `torch.Tensor` of shape `(num_clips, C)`.
        """
        key, value = self.k_proj(embeddings), self.v_proj(embeddings)
        query = self.query.to(key).expand(len(key), -1, -1)
        # (num_clips, heads, 1 or most embeddings, head size)
        query, key, value = (
            states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for states in (query, key, value)
        )
        pooled = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        return self.out_proj(pooled.transpose(1, 2).flatten(1))


class OmniAlignNet(nn.Module):
    """
    Maps the projected embeddings of the picture and of the sound of clips to one vector each, V and A, and rewards
    clips whose two vectors are closer to each other than to those of other clips.

    The paper: "the projected features are then processed through three layers of self-attention modules". A layer is
    read as one of a transformer encoder, attention and perceptron, each after a layer norm and with a residual. The
    three are the same for picture and sound, which share a space, but neither attends to the other: it would see what
    it is to be matched with. What they attend over, `config.align_attention` says:

    - `"batch"`, the paper's words: the features are those that the queries have made of "K videos", so the layers see
      the K features of a batch as one sequence. V and A of a clip depend on the other clips.
    - `"clip"`: the feature of a clip and the clip's embeddings, of which the feature is read again. V and A of a clip
      are the same in any batch, which retrieval over collections needs, and the layers have more to attend to; the
      price is attention over all embeddings of a clip.

    In training with several processes, the batch is that of all of them (of `process_group`, where that is set, as
    where ranks of tensor parallelism hold the same clips).

    Args:
        config (`OmniVinciConfig`): With `align_attention`, `align_num_layers` and `align_temperature`.
    """

    def __init__(self, config):
        super().__init__()
        hidden_size, num_heads = config.text_config.hidden_size, config.text_config.num_attention_heads
        self.layer_config = SiglipVisionConfig(
            hidden_size=hidden_size,
            intermediate_size=4 * hidden_size,
            num_attention_heads=num_heads,
            attn_implementation=config._attn_implementation,
        )
        self.attention = config.align_attention
        self.temperature = config.align_temperature
        self.process_group = None
        self.vision_pooling = QueryPooling(hidden_size, num_heads)
        self.audio_pooling = QueryPooling(hidden_size, num_heads)
        self.layers = nn.ModuleList([SiglipEncoderLayer(self.layer_config) for _ in range(config.align_num_layers)])
        if self.temperature is not None:
            self.logit_scale = nn.Parameter(torch.empty(1))  # FSDP shards no scalars

    def forward(
        self, videos: Sequence[torch.Tensor], sounds: Sequence[torch.Tensor], return_loss: bool = True
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """
        The loss over the clips of all processes, or the vectors of those of this one.

        Args:
            videos, sounds (`list[torch.Tensor]`):
                E_v and E_a of each clip, (num_embeddings, C): what the projectors give, before time and groups.
            return_loss (`bool`, *optional*, defaults to `True`):
                Whether the loss is computed. Then every process must make the call, also without clips.

        Returns:
            `torch.Tensor`: the loss, a scalar in float32; exactly zero, with zero gradients, for fewer than two clips.
            All processes get the same. Gradients are to be averaged over them, as data parallelism does.
            `tuple[torch.Tensor, torch.Tensor]`: without it, V and A, `(num_clips, C)` each and of length 1.
        """
        features = self._features(videos, sounds)  # (2, num_clips, C)
        if not return_loss:
            vision, audio = self._embeddings(features)[:, : len(videos)]
            return vision, audio
        counts = _count_clips(len(videos), features.device, self.process_group)
        if sum(counts):  # else the stand-in stays: every parameter has a gradient in every process
            features = _gather_clips(features[:, : len(videos)], counts, self.process_group)
        vision, audio = self._embeddings(features)
        return align_loss(vision, audio, self._logit_scale())

    def _features(self, videos: Sequence[torch.Tensor], sounds: Sequence[torch.Tensor]) -> torch.Tensor:
        """What is gathered: (2, num_clips, C). Without clips of one that stands in, so that all weights are used."""
        stand_in = [self.vision_pooling.query.new_ones(1, self.vision_pooling.query.shape[1])]
        features = []
        for pooling, clips in ((self.vision_pooling, videos or stand_in), (self.audio_pooling, sounds or stand_in)):
            embeddings = nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
            lengths = torch.tensor([len(clip) for clip in clips], device=embeddings.device)
            mask = torch.arange(embeddings.shape[1], device=embeddings.device) < lengths[:, None]
            pooled = pooling(embeddings, mask)
            if self.attention == "clip":
                sequence = torch.cat((pooled[:, None], embeddings.to(pooled.dtype)), dim=1)
                pooled = self._attend(sequence, nn.functional.pad(mask, (1, 0), value=True))[:, 0]
            features.append(pooled)
        return torch.stack(features)

    def _embeddings(self, features: torch.Tensor) -> torch.Tensor:
        """V and A, (2, num_clips, C), of length 1."""
        if self.attention == "batch":
            features = self._attend(features)
        return nn.functional.normalize(features.float(), dim=-1)

    def _attend(self, states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        if mask is not None:
            mask = create_bidirectional_mask(self.layer_config, states, mask)
        for layer in self.layers:
            states = layer(states, mask)
        return states

    def _logit_scale(self) -> torch.Tensor | float:
        return 1.0 if self.temperature is None else self.logit_scale.float().exp().clamp(max=MAX_LOGIT_SCALE)

    def extra_repr(self) -> str:
        return f"attention={self.attention!r}, temperature={self.temperature}"


def pair_tracks(encoded: dict, media: MediaInputs) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """
    E_v and E_a of each video that has sound.

    Args:
        encoded (`dict`): What [`OmniVinciModel.encode_media`] gave, with `projected_embeddings`.
        media ([`MediaInputs`]): `video_has_audio` and `audio_from_video` are read. Both follow each other in the
            order of the prompts.

    Raises:
        ValueError: these are missing, or do not match each other or the media.
    """
    if any(name not in encoded or not len(encoded[name].pooler_output) for name in ("video", "audio")):
        return [], []
    chosen = []
    for modality, name in (("video", "video_has_audio"), ("audio", "audio_from_video")):
        flags = media.get(name)
        clips = encoded[modality].get("projected_embeddings")
        if clips is None or flags is None or len(flags) != len(clips):
            raise ValueError(
                f"OmniAlignNet needs the media and, as the processor returns it, `{name}` with an entry for each "
                f"{modality}: got {'no media' if clips is None else f'{len(clips)} media'} and "
                f"{'no entries' if flags is None else f'{len(flags)} entries'}."
            )
        chosen.append([clip for clip, flag in zip(clips, flags.tolist(), strict=True) if flag])
    if len(chosen[0]) != len(chosen[1]):
        raise ValueError(
            f"`video_has_audio` names {len(chosen[0])} videos with sound, but `audio_from_video` {len(chosen[1])} "
            "sounds of videos: the numbers must be equal."
        )
    pairs = [pair for pair in zip(*chosen, strict=True) if all(map(len, pair))]
    return [video for video, _ in pairs], [sound for _, sound in pairs]


def _count_clips(num_clips: int, device: torch.device, group) -> list[int]:
    """How many clips each process has, in the order of ranks."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [num_clips]
    counts = torch.zeros(distributed.get_world_size(group), dtype=torch.long, device=device)
    counts[distributed.get_rank(group)] = num_clips
    distributed.all_reduce(counts, group=group)
    return counts.tolist()


def _gather_clips(features: torch.Tensor, counts: list[int], group) -> torch.Tensor:
    """(2, num_clips, C) of every process as (2, clips of all, C), in the order of ranks."""
    if len(counts) == 1:
        return features
    before = sum(counts[: distributed.get_rank(group)])
    after = sum(counts) - before - features.shape[1]
    # Each process fills in its own clips, of which there may be none.
    return _SumOverProcesses.apply(nn.functional.pad(features, (0, 0, before, after)), group)


class _SumOverProcesses(torch.autograd.Function):
    """
    The sum of a tensor over processes. The gradient is that of the sum of what all of them compute from it.

    `torch.distributed.nn.functional.all_reduce` does the same, but is deprecated in torch 2.13, whose replacement for
    it is in a private module.
    """

    @staticmethod
    def forward(ctx, tensor: torch.Tensor, group) -> torch.Tensor:
        ctx.group = group
        total = tensor.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        return _SumOverProcesses.apply(gradient, ctx.group), None
