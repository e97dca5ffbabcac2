"""
Further turns with the cache of those before.

`generate` takes the whole conversation again. What the cache holds of it is not computed again: its media are not
encoded, and only what follows is read. A cache knows nothing of what it was made from, and a prompt may change where
it was read already, as when a second image is added and the first one is not tiled any more. So a cache gets along
what its positions stood for, and is cut back to where the new prompt agrees.
"""

import math
from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache, QuantizedCache
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from ..planning import count_image_embeddings, pooled_frames
from ..processing.batch import MEDIA_INPUTS, NAMES_OF, MediaInputs, join, select_media, split

ATTRIBUTE = "omnivinci_prompt"
MODALITIES = tuple(NAMES_OF)
PADDING = -1
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Dtypes of as many bytes, which show the bits of another dtype."""


@dataclass(frozen=True)
class Medium:
    """
    Attributes:
        digest (`torch.Tensor`): A number made of its values, as it was given.
        num_embeddings (`int`): Its placeholders.
    """

    digest: torch.Tensor
    num_embeddings: int


@dataclass(frozen=True)
class CachedPrompt:
    """
    What the positions of a cache stood for.

    Attributes:
        input_ids (`torch.Tensor` of shape `(batch_size, length)`): Tokens and placeholders.
        contents (`torch.Tensor` of shape `(batch_size, length)`):
            The same, but what a placeholder stood for is a number made of the values of its medium, and padding is -1.
    """

    input_ids: torch.Tensor
    contents: torch.Tensor

    def first(self, length: int) -> "CachedPrompt":
        """What the first positions stood for."""
        return CachedPrompt(self.input_ids[:, :length], self.contents[:, :length])

    def followed_by(self, other: "CachedPrompt") -> "CachedPrompt":
        """This prompt and, behind it, another one."""
        return CachedPrompt(
            torch.cat((self.input_ids, other.input_ids), 1), torch.cat((self.contents, other.contents), 1)
        )

    def for_rows(self, num_rows: int) -> "CachedPrompt | None":
        """With rows repeated as beams and several answers repeat them; `None` where that does not give as many."""
        if num_rows % len(self.input_ids):
            return None
        times = num_rows // len(self.input_ids)
        return CachedPrompt(self.input_ids.repeat_interleave(times, 0), self.contents.repeat_interleave(times, 0))


def describe(
    config, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, media: dict[str, list[Medium]]
) -> CachedPrompt:
    """
    What the positions of a prompt stand for, given its media as of [`media_of`]; the mask is (batch_size,
    sequence_length), as `input_ids`.
    """
    contents = input_ids.clone()
    for modality, known in media.items():
        codes = [
            _mix(medium.digest + torch.arange(medium.num_embeddings, device=medium.digest.device)) for medium in known
        ]
        mask = input_ids == getattr(config, f"{modality}_token_id")
        if codes and int(mask.sum()) == sum(map(len, codes)):
            contents[mask] = torch.cat(codes).to(contents.device)
    if isinstance(attention_mask, torch.Tensor) and attention_mask.shape == contents.shape:
        contents = contents.masked_fill(attention_mask.to(contents.device) == 0, PADDING)
    return CachedPrompt(input_ids, contents)


def remember_pass(config, cache, input_ids: torch.Tensor | None, attention_mask, media: dict) -> None:
    """Notes on the cache, as it is after a forward pass, what it holds; `media` are inputs of [`media_of`]."""
    if not isinstance(cache, Cache):
        return
    before, prompt = getattr(cache, ATTRIBUTE, None), None
    if input_ids is not None:
        start = int(cache.get_seq_length()) - input_ids.shape[1]
        if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
            attention_mask = attention_mask[:, -input_ids.shape[1] :]
        prompt = describe(config, input_ids, attention_mask, media_of(config, media))
        if start > 0:
            is_known = before is not None and before.input_ids.shape[1] >= start
            is_known = is_known and len(before.input_ids) == len(input_ids)
            prompt = before.first(start).followed_by(prompt) if is_known else None
    setattr(cache, ATTRIBUTE, prompt)


def remember_generation(config, input_ids: torch.Tensor, inputs: dict, outputs) -> None:
    """Notes on the cache of a generation, if anyone has it, what it holds after `generate` gave `outputs`."""
    sequences, cache = outputs, _cache_of(inputs)
    if isinstance(outputs, ModelOutput):
        sequences, cache = outputs.sequences, _cache_of(outputs)
    if not isinstance(cache, Cache):
        return
    mask, length = inputs.get("attention_mask"), input_ids.shape[1]
    before = None
    if _is_continuation(input_ids, mask):
        before, mask = getattr(cache, ATTRIBUTE, None), mask[:, -length:]
    prompt = describe(config, input_ids, mask, media_of(config, inputs))
    prompt = prompt if before is None else before.followed_by(prompt)
    # Beams and several answers to a prompt are rows of the cache that have the prompt alone in common.
    if len(sequences) == len(input_ids) == len(cache.layers[0].keys):
        prompt = prompt.followed_by(CachedPrompt(sequences[:, length:], sequences[:, length:]))
    setattr(cache, ATTRIBUTE, prompt.first(int(cache.get_seq_length())))


def _cache_of(named) -> Cache | None:
    return next((named[name] for name in ("past_key_values", "cache") if named.get(name) is not None), None)


def _is_continuation(input_ids: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Whether a prompt is only what follows a cache, as the mask tells, which is that of everything."""
    return mask is not None and mask.ndim == 2 and mask.shape[1] > input_ids.shape[1]


def continue_generation(model, input_ids: torch.Tensor, inputs: dict) -> dict:
    """As [`resume`], where there is a cache to go on from; else the inputs as they are."""
    cache = _cache_of(inputs)
    is_new = not isinstance(cache, Cache) or not cache.get_seq_length()
    if is_new or _is_continuation(input_ids, inputs.get("attention_mask")):
        return inputs
    return resume(model, input_ids, cache, inputs)


def resume(model, input_ids: torch.Tensor, cache: Cache, inputs: dict) -> dict:
    """
    The `inputs` of a generation that goes on from what `cache` holds of the prompt: all media of the prompt, or those
    that follow the cache. The cache is cut back, in place, where the prompt differs from what it was made from.

    Raises:
        ValueError: the media are neither, or the prompt cannot be gone on with.
    """
    config, length = model.config, cache.get_seq_length()
    media = media_of(config, inputs)
    masks = {name: input_ids == getattr(config, f"{name}_token_id") for name in MODALITIES}
    given = {name: sum(medium.num_embeddings for medium in media.get(name, ())) for name in MODALITIES}
    in_all = {name: int(mask.sum()) for name, mask in masks.items()}
    behind = {name: int(mask[:, length:].sum()) for name, mask in masks.items()}
    known: CachedPrompt | None = getattr(cache, ATTRIBUTE, None)
    known = known and known.for_rows(len(input_ids))
    if given == in_all:
        agreed = count_agreed(describe(config, input_ids, inputs.get("attention_mask"), media), known, length)
        if known is None and any(in_all[name] - behind[name] for name in MODALITIES):
            agreed = 0  # what it was made from is not known
        cut_back(cache, min(agreed, input_ids.shape[1] - 1))
        return _without_cached(model, inputs, media, masks, cache.get_seq_length())
    for name in MODALITIES:
        if given[name] != behind[name]:
            raise ValueError(
                f"The prompts have {in_all[name]} {name} placeholders, {behind[name]} of them behind the {length:,} "
                f"positions of the cache, but there are {given[name]} {name} embeddings: give all media again, or "
                "those behind the cache."
            )
    tokens = known and CachedPrompt(known.input_ids, known.input_ids)  # what media they stood for is not known here
    agreed = count_agreed(CachedPrompt(input_ids, input_ids), tokens, length)
    if known is None or agreed < length:
        raise ValueError(
            f"The prompts go on otherwise than the cache, which holds {length:,} positions, from position {agreed:,} "
            "on, as where a further image changes how the first one is tiled. Give all media again, or a new cache."
        )
    return inputs


def media_of(config, inputs: dict) -> dict[str, list[Medium]]:
    """
    The media of each modality, in order, without encoding them. `inputs` are those of [`encode_media`], among others,
    or hold what it returned as `mm_encoder_outputs`.
    """
    found = {
        name: [Medium(_digest(embeddings), len(embeddings)) for embeddings in output.pooler_output]
        for name, output in (inputs.get("mm_encoder_outputs") or {}).items()
        if output is not None
    }
    side = config.vision_config.image_size // config.vision_config.patch_size
    side = math.ceil(side / config.spatial_merge_size)
    for modality, media in split(select_media(inputs), config.s2_scales).items():
        found[modality] = [_describe_medium(config, modality, medium, side) for medium in media]
    return found


def _describe_medium(config, modality: str, medium: MediaInputs, side: int) -> Medium:
    if modality == "image":
        [(rows, columns)] = medium["image_grid_hw"].tolist()
        count = count_image_embeddings(config.s2_scales, config.s2_output_scale_index, side, rows, columns)
        return Medium(_digest(medium["pixel_values"]), count)
    seen, seconds = (medium[name] for name in NAMES_OF[modality][:2])
    count = seconds.shape[1]
    if modality == "video":
        count = sum(map(math.prod, pooled_frames(config.video_pool_sizes, side, count)))
    return Medium(_digest(seen) + _digest(seconds[0]).to(seen.device), count)


def count_agreed(prompt: CachedPrompt, known: CachedPrompt | None, length: int) -> int:
    """How many of the first `length` positions of a cache hold what the prompt has there; `known` is what it holds."""
    if known is None:
        return length
    length = min(length, known.contents.shape[1], prompt.contents.shape[1])
    same = (prompt.contents[:, :length] == known.contents[:, :length].to(prompt.contents.device)).all(0)
    return int(same.long().cumprod(0).sum())


def cut_back(cache: Cache, length: int) -> None:
    """Leaves the first positions of a cache. Of one that cannot be cut nothing is left."""
    removed = cache.get_seq_length() - length
    if removed <= 0:
        return
    known = getattr(cache, ATTRIBUTE, None)
    left = None
    if not isinstance(cache, QuantizedCache):  # what is quantized together cannot be taken apart
        try:
            cache.crop(-removed)
        except (AttributeError, NotImplementedError, RuntimeError, ValueError):
            cache.reset()
        left = cache.get_seq_length()
    if left not in (0, length):
        raise ValueError(
            f"The prompts differ from what the cache holds from position {length:,} on, and a {type(cache).__name__} "
            "cannot be cut back to there: give a new cache."
        )
    setattr(cache, ATTRIBUTE, None if known is None else known.first(int(left)))


def _without_cached(model, inputs: dict, media: dict, masks: dict, length: int) -> dict:
    """The inputs without media whose placeholders all lie in the cache; of those partly in it, what lies behind."""
    skipped = {name: mask[:, :length].sum(1).tolist() for name, mask in masks.items()}
    if not any(map(sum, skipped.values())):
        return inputs
    shares = {name: _share(media.get(name, ()), mask.sum(1).tolist(), skipped[name]) for name, mask in masks.items()}
    whole = split(select_media(inputs), model.config.s2_scales)
    rest = [
        medium for name in whole for medium, share in zip(whole[name], shares[name], strict=True) if share is not None
    ]
    with torch.no_grad():
        encoded = model.encode_media(**join(rest))
    given = inputs.get("mm_encoder_outputs") or {}
    outputs = {}
    for name in MODALITIES:
        kept = [share for share in shares[name] if share is not None]
        if given.get(name) is not None:
            pairs = zip(given[name].pooler_output, shares[name], strict=True)
            rest = [embeddings for embeddings, share in pairs if share is not None]
        elif kept:
            rest = list(encoded[name].pooler_output)
        else:
            continue
        if kept:
            outputs[name] = RestOfMedia(
                pooler_output=[embeddings[start:] for embeddings, start in zip(rest, kept, strict=True)],
                per_prompt=[
                    int(total) - before for total, before in zip(masks[name].sum(1), skipped[name], strict=True)
                ],
            )
    return {name: inputs[name] for name in inputs if name not in MEDIA_INPUTS} | {"mm_encoder_outputs": outputs}


@dataclass
class RestOfMedia(BaseModelOutputWithPooling):
    """
    pooler_output (`list[torch.Tensor]`): As in [`OmniVinciMediaOutput`], without what a cache holds.
    per_prompt (`list[int]`): How many embeddings belong to each prompt of the batch.
    """

    per_prompt: list[int] | None = None


def _share(media, per_prompt: list[int], skipped: list[int]) -> list[int | None]:
    """How many embeddings of each medium a cache holds; `None`: all of them."""
    shares, row, position = [], 0, 0
    for medium in media:
        while position == per_prompt[row]:
            row, position = row + 1, 0
        before = min(max(skipped[row] - position, 0), medium.num_embeddings)
        shares.append(None if before == medium.num_embeddings else before)
        position += medium.num_embeddings
    return shares


def _digest(values: torch.Tensor) -> torch.Tensor:
    """A number of 64 bits made of the bits of values, some rows at a time."""
    bits = values.detach().contiguous().view(INTEGERS[values.element_size()])
    rows = bits.reshape(len(bits), -1) if bits.ndim > 1 and len(bits) else bits.reshape(1, -1)
    weights = _mix(torch.arange(rows.shape[1], device=rows.device))
    blocks = rows.split(max(1, 2**20 // max(1, rows.shape[1])))  # which bounds the memory
    sums = torch.cat([(block.long() * weights).sum(1) for block in blocks])
    return _mix((_mix(sums) * _mix(torch.arange(1, len(sums) + 1, device=rows.device))).sum())


def _mix(numbers: torch.Tensor) -> torch.Tensor:
    """Scatters integers over 64 bits, odd ones; products wrap around."""
    numbers = (numbers + 1) * -7046029254386353131
    numbers = (numbers ^ (numbers >> 29)) * -4658895280553007687
    return (numbers ^ (numbers >> 32)) | 1
