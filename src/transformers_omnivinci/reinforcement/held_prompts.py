"""
Prompts that stand in a trainer's batches as single tokens.

A trainer of text shuffles, splits and repeats rows of token ids, and knows nothing of media. So it is given a
negative number for a whole prompt, and the model's reader puts the prompt back: its tokens, and the embeddings of its
media, which are encoded once for all completions and all policies.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..modeling.sharding import is_sharded
from ..processing.batch import NAMES_OF, MediaInputs, join, select_media

Embeddings = dict[str, list[torch.Tensor]]
"""Those of each medium by modality, `(num_embeddings, hidden_size)`."""


@dataclass(eq=False)
class HeldPrompt:
    """
    A prompt as the model reads it.

    Attributes:
        input_ids (`torch.Tensor` of shape `(length,)`): Tokens and placeholders.
        media ([`MediaInputs`]): Its media, on the CPU.
        embeddings (`dict[str, list[torch.Tensor]]`): Those of its media, once they are encoded.
    """

    input_ids: torch.Tensor
    media: MediaInputs = field(default_factory=dict)
    embeddings: Embeddings | None = None

    @classmethod
    def of(cls, processor, messages: list[dict], **options) -> "HeldPrompt":
        """
        Reads a chat and decodes its media.

        Args:
            processor ([`OmniVinciProcessor`]): What expands, decodes and tokenizes.
            messages (`list[dict]`): The chat up to a question.
            options: Of `apply_chat_template`, such as `num_frames` and `load_audio_from_video`.
        """
        inputs = processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt", **options
        )
        return cls(inputs["input_ids"][0], select_media(inputs))

    def count(self, modality: str) -> int:
        """How many media of a modality it has."""
        told_by = NAMES_OF[modality][1]
        return len(self.media[told_by]) if told_by in self.media else 0


class PromptShelf:
    """Holds prompts under negative numbers. Those of training and evaluation are put away and dropped apart."""

    def __init__(self):
        self._shelves: dict[str, dict[int, HeldPrompt]] = {}
        self._last = 0

    def hold(self, shelf: str, prompts: Iterable[HeldPrompt]) -> list[int]:
        """Puts prompts on a shelf, in the place of those that were there; the handle of each."""
        held = {}
        for prompt in prompts:
            self._last -= 1
            held[self._last] = prompt
        self._shelves[shelf] = held
        return list(held)

    def __getitem__(self, handle: int) -> HeldPrompt:
        for held in self._shelves.values():
            if handle in held:
                return held[handle]
        raise KeyError(f"No prompt is held as {handle}: its completions belong to an earlier rollout.")


def encode(model, prompts: Iterable[HeldPrompt]) -> list[Embeddings]:
    """
    The embeddings of the media of prompts, encoded together. Where weights are sharded, every process makes the call.

    Args:
        model ([`OmniVinciModel`]): What encodes.
        prompts (`Iterable[HeldPrompt]`): The prompts.
    """
    prompts = list(prompts)
    media = {name: value.to(model.device) for name, value in join([prompt.media for prompt in prompts]).items()}
    if not media and not is_sharded(model):
        return [{} for _ in prompts]
    encoded = {modality: iter(output.pooler_output) for modality, output in model.encode_media(**media).items()}
    return [
        {name: [next(rows) for _ in range(prompt.count(name))] for name, rows in encoded.items() if prompt.count(name)}
        for prompt in prompts
    ]


def gather(embeddings: Iterable[Embeddings]) -> dict[str, BaseModelOutputWithPooling]:
    """The embeddings of the prompts of a batch, row after row, as `mm_encoder_outputs`."""
    embeddings = list(embeddings)
    rows = {name: [one for row in embeddings for one in row.get(name, ())] for name in NAMES_OF}
    return {name: BaseModelOutputWithPooling(pooler_output=media) for name, media in rows.items() if media}


class PromptReader:
    """
    Lets a model read batches in which a negative number stands for a prompt, by hooks around the forward pass of its
    [`OmniVinciModel`]. Hidden states come back in the shape of the batch: that of the number is the one of the
    prompt's last position. Other batches are read as ever.

    Args:
        model ([`OmniVinciForConditionalGeneration`]): The model, or one around it, such as one of PEFT.
        shelf ([`PromptShelf`]): Where the prompts are.
        embeds (`Callable`, *optional*):
            Whether the embeddings that prompts hold are this model's. If not, or where it is `None`, media are
            encoded in each pass, with a gradient if there is one: once for a prompt of the batch.
        each_row (`bool`, *optional*, defaults to `False`): To encode for each row of the batch anew, as others do.
    """

    def __init__(self, model, shelf: PromptShelf, embeds: Callable[[], bool] | None = None, each_row: bool = False):
        self.model = model
        self._shelf, self._embeds, self._each_row = shelf, embeds or (lambda: False), each_row
        self._places: list[torch.Tensor | None] = []
        self._hooks = [
            model.register_forward_pre_hook(self._expand, with_kwargs=True),
            model.register_forward_hook(self._shrink),
        ]

    def remove(self) -> None:
        """Lets the model read as before."""
        for hook in self._hooks:
            hook.remove()

    def _expand(self, model, args: tuple, kwargs: dict):
        input_ids = kwargs.get("input_ids", args[0] if args else None)
        is_handle = None if input_ids is None else input_ids < 0
        if is_handle is None or not bool(is_handle.any()):
            self._places.append(None)
            return None
        if not bool((is_handle.sum(1) == 1).all()):
            raise ValueError("Each row of a batch has one held prompt, or none of them has.")
        starts = is_handle.long().argmax(1)  # the number of each row; before it is padding
        prompts = [self._shelf[handle] for handle in input_ids[is_handle].tolist()]
        batch = _lay_out(prompts, input_ids, kwargs["attention_mask"], starts.tolist())
        ends = torch.tensor([len(prompt.input_ids) for prompt in prompts], device=input_ids.device)
        columns = torch.arange(input_ids.shape[1], device=input_ids.device)
        # The hidden state of a column is that of the same token among the expanded ones.
        self._places.append((ends - 1 - starts)[:, None] + columns)
        others = {name: value for name, value in kwargs.items() if name not in ("input_ids", "attention_mask")}
        return (), {**others, **batch, "mm_encoder_outputs": gather(self._embeddings(prompts))}

    def _shrink(self, model, args: tuple, output):
        places = self._places.pop()
        if places is not None:
            hidden = output.last_hidden_state
            places = places.clamp(0, hidden.shape[1] - 1).to(hidden.device)
            output.last_hidden_state = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))
        return output

    def _embeddings(self, prompts: list[HeldPrompt]) -> list[Embeddings]:
        if self._embeds() and all(prompt.embeddings is not None for prompt in prompts):
            return [prompt.embeddings for prompt in prompts]
        if self._each_row:
            return encode(self.model, prompts)
        unique = list(dict.fromkeys(prompts))
        encoded = dict(zip(unique, encode(self.model, unique), strict=True))
        return [encoded[prompt] for prompt in prompts]


def _lay_out(
    prompts: list[HeldPrompt], input_ids: torch.Tensor, attention_mask: torch.Tensor, starts: list[int]
) -> Mapping[str, torch.Tensor]:
    """Ids and mask with the prompts in the place of their numbers, padded on the right."""
    ids, masks = [], []
    for prompt, row, mask, start in zip(prompts, input_ids, attention_mask, starts, strict=True):
        tokens = prompt.input_ids.to(row.device)
        ids.append(torch.cat([tokens, row[start + 1 :]]))
        masks.append(torch.cat([torch.ones_like(tokens, dtype=mask.dtype), mask[start + 1 :]]))
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence(masks, batch_first=True),
    }
