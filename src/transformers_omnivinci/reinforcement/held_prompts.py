"""
Prompts that stand in a trainer's batches as single tokens.

A trainer of text shuffles, splits and repeats rows of token ids, and knows nothing of media. So it is given a
negative number for a whole prompt, and the model's reader puts the prompt back: its tokens, and the embeddings of its
media, which are encoded once for all completions and all policies.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import is_flash_attention_requested

from ..modeling.sharding import is_sharded
from ..processing.batch import NAMES_OF, MediaInputs, join, select_media
from ..training.collator import OmniVinciCollator

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
        encoded (`dict[str, torch.Tensor]`):
            By modality what an encoder gave that does not learn, `(frames, tiles or windows, vectors, width)`.
    """

    input_ids: torch.Tensor
    media: MediaInputs = field(default_factory=dict)
    embeddings: Embeddings | None = None
    encoded: dict[str, torch.Tensor] = field(default_factory=dict)

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

    def count_rows(self, modality: str) -> int:
        """How many frames, tiles or windows of a modality an encoder sees."""
        seen = NAMES_OF[modality][0]
        return len(self.media[seen]) if seen in self.media else 0


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


def encode(model, prompts: Iterable[HeldPrompt], still: Collection[str] = ()) -> list[Embeddings]:
    """
    The embeddings of the media of prompts, encoded together. Where weights are sharded, every process makes the call.

    Args:
        model ([`OmniVinciModel`]): What encodes.
        prompts (`Iterable[HeldPrompt]`): The prompts.
        still (`Collection[str]`, *optional*):
            Modalities whose encoder is run once: prompts keep what it gives, and from there projectors go on.
    """
    prompts = list(prompts)
    sharded = is_sharded(model)  # then processes with fewer media take part in every pass of an encoder
    still = () if sharded else still
    known = {}
    for name in still:
        owners = [prompt for prompt in prompts if prompt.count(name)]
        if owners and all(name in prompt.encoded for prompt in owners):
            known[name] = torch.cat([prompt.encoded[name] for prompt in owners])
    unseen = {NAMES_OF[name][0] for name in known}
    media = {
        name: value if name in unseen else value.to(model.device)
        for name, value in join([prompt.media for prompt in prompts]).items()
    }
    if not media and not sharded:
        return [{} for _ in prompts]
    outputs = model.encode_media(output_encoded=bool(still), encoder_outputs=known, **media)
    for name in set(still) & outputs.keys() - known.keys():
        rows = outputs[name].last_hidden_state.detach().split([prompt.count_rows(name) for prompt in prompts])
        for prompt, encoded in zip(prompts, rows, strict=True):
            if prompt.count(name):
                prompt.encoded[name] = encoded
    encoded = {name: iter(output.pooler_output) for name, output in outputs.items()}
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
    [`OmniVinciModel`]. Rows with the same prompt become one, in which it stands once and each completion attends to it
    and to itself, as samples with shared media do in training. Hidden states come back in the shape of the batch: that
    of the number is the one of the prompt's last position. Other batches are read as ever.

    FlashAttention takes no mask of who attends to whom: with it, each row has its own copy of the prompt.

    Args:
        model ([`OmniVinciModel`]): What reads.
        shelf ([`PromptShelf`]): Where the prompts are.
        embeds (`Callable`, *optional*):
            Whether the embeddings that prompts hold are this model's. If not, or where it is `None`, media are
            encoded in each pass, with a gradient if there is one: once for a prompt of the batch.
        still (`Callable`, *optional*): Modalities whose encoder is run once, see [`encode`]; the outputs that prompts
            hold are its own.
    """

    def __init__(
        self,
        model,
        shelf: PromptShelf,
        embeds: Callable[[], bool] | None = None,
        still: Callable[[], Collection[str]] | None = None,
    ):
        self.model = model
        self._shelf, self._embeds, self._still = shelf, embeds or (lambda: False), still or (lambda: ())
        self._places: list[tuple[torch.Tensor, torch.Tensor] | None] = []
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
        prompts = [self._shelf[handle] for handle in input_ids[is_handle].tolist()]
        starts = is_handle.long().argmax(1).tolist()  # the number of each row; before it is padding
        completions = [
            row[start + 1 :][mask[start + 1 :].bool()]
            for row, mask, start in zip(input_ids, kwargs["attention_mask"], starts, strict=True)
        ]
        groups = self._group(prompts)
        batch, firsts = _lay_out([(prompts[rows[0]], [completions[row] for row in rows]) for rows in groups])
        self._places.append(_find(prompts, starts, groups, firsts, input_ids.shape[1], input_ids.device))
        others = {name: value for name, value in kwargs.items() if name not in ("input_ids", "attention_mask")}
        embeddings = self._embeddings([prompts[rows[0]] for rows in groups])
        return (), {**others, **batch, "mm_encoder_outputs": gather(embeddings)}

    def _shrink(self, model, args: tuple, output):
        places = self._places.pop()
        if places is not None:
            rows, columns = places
            hidden = output.last_hidden_state
            output.last_hidden_state = hidden[rows[:, None], columns.clamp(0, hidden.shape[1] - 1)]
        return output

    def _group(self, prompts: list[HeldPrompt]) -> list[list[int]]:
        """The rows of a batch that are read as one."""
        if is_flash_attention_requested(self.model.language_model.config):
            return [[row] for row in range(len(prompts))]
        rows: dict[HeldPrompt, list[int]] = {}
        for row, prompt in enumerate(prompts):
            rows.setdefault(prompt, []).append(row)
        return list(rows.values())

    def _embeddings(self, prompts: list[HeldPrompt]) -> list[Embeddings]:
        if self._embeds() and all(prompt.embeddings is not None for prompt in prompts):
            return [prompt.embeddings for prompt in prompts]
        unique = list(dict.fromkeys(prompts))
        encoded = dict(zip(unique, encode(self.model, unique, self._still()), strict=True))
        return [encoded[prompt] for prompt in prompts]


def _lay_out(groups: list[tuple[HeldPrompt, list[torch.Tensor]]]) -> tuple[dict[str, torch.Tensor], list[list[int]]]:
    """Inputs in which each prompt is followed by its completions, and where each of these begins."""
    samples, firsts = [], []
    for prompt, completions in groups:
        tokens = prompt.input_ids.to(completions[0].device)
        start, lengths = len(tokens), [len(one) for one in completions]
        firsts.append([start + sum(lengths[:place]) for place in range(len(lengths))])
        positions = [torch.arange(start), *(torch.arange(start, start + length) for length in lengths)]
        segments = torch.arange(len(lengths) + 1).repeat_interleave(torch.tensor([start, *lengths]))
        ids = torch.cat([tokens, *completions])
        shared = {"position_ids": torch.cat(positions), "segment_ids": segments} if len(lengths) > 1 else {}
        samples.append({"input_ids": ids, "labels": ids, "sample_ids": []} | _to(shared, ids.device))
    batch = OmniVinciCollator(pad_token_id=0)(samples)
    names = ("input_ids", "attention_mask", "position_ids")
    return {name: batch[name] for name in names if name in batch}, firsts


def _find(
    prompts: list[HeldPrompt], starts: list[int], groups: list[list[int]], firsts: list[list[int]], width: int, device
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Where the tokens of a batch are read: the row, (batch_size,), and the columns, (batch_size, width), of which those
    of padding may lie outside.
    """
    rows, columns = [0] * len(prompts), [torch.empty(0)] * len(prompts)
    for index, (members, begins) in enumerate(zip(groups, firsts, strict=True)):
        for row, first in zip(members, begins, strict=True):
            rows[row], columns[row] = index, torch.arange(width) + first - starts[row] - 1
            columns[row][starts[row]] = len(prompts[row].input_ids) - 1
    return torch.tensor(rows, device=device), torch.stack(columns).to(device)


def _to(tensors: dict[str, torch.Tensor], device) -> dict[str, torch.Tensor]:
    return {name: value.to(device) for name, value in tensors.items()}
