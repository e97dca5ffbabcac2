"""Asks a model questions about media: in batches, each clip encoded once, with all of the senses or some."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
import PIL.Image
import torch

from ..modeling.outputs import OmniVinciMediaOutput
from ..processing.batch import NAMES_OF, MediaInputs, OmniVinciBatchFeature, join, select_media

SENSES = {"both": ("video", "sound"), "deaf": ("video",), "blind": ("sound",), "text only": ()}
"""What the model gets of a clip. A `"blind"` model gets the sound of a video as an audio clip."""


def check_senses(senses: Sequence[str]) -> tuple[str, ...]:
    """Senses without repetitions. Raises ValueError if there are none, or some are no keys of `SENSES`."""
    unknown = [name for name in senses if name not in SENSES]
    if unknown or not senses:
        raise ValueError(f"Unknown senses {unknown}: some of {list(SENSES)} are accepted.")
    return tuple(dict.fromkeys(senses))


def perceived(content: Sequence[dict], senses: str, is_silent: Callable[[object], bool] = lambda source: False):
    """
    The items of a message that are left with some of the senses.

    Args:
        content (`Sequence[dict]`): Items as of [`read_item`].
        senses (`str`): A key of `SENSES`. Without the picture, a video is an audio clip; without the sound, the
            chat must be read with `load_audio_from_video=False`.
        is_silent (`Callable`, *optional*): Tells whether the video of a source has no sound, or none that is wanted.

    Returns:
        `list[dict]`: the items.
    """
    sees, hears, items = "video" in SENSES[senses], "sound" in SENSES[senses], []
    for item in content:
        kind = item["type"]
        if kind == "text" or (hears if kind == "audio" else sees):
            items.append(item)
        elif kind == "video" and hears and not is_silent(source := item[kind]):
            items.append({"type": "audio", "audio": source})
    return items


@dataclass(frozen=True)
class Answer:
    """An answer, and how many tokens the prompt and it have."""

    text: str
    num_prompt_tokens: int
    num_tokens: int


class Asker:
    """
    Answers chats in batches. The media of a chat are decoded and encoded once for all chats with the same media, see
    [`media_key`], in a batch and the next one, or for longer. New media of a batch are encoded together.

    Args:
        model ([`OmniVinciForConditionalGeneration`]): The model.
        processor ([`OmniVinciProcessor`]): Its processor.
        max_new_tokens (`int`, *optional*, defaults to 16): Maximum length of an answer in tokens, see [`answer`].
        num_kept (`int`, *optional*, defaults to 0): Of how many chats the media are kept, at least those of a batch.
        options: Of `apply_chat_template` and `plan` of the processor, such as `load_audio_from_video`, `num_frames`,
            `fps` and `sanitize_control_tokens`.
    """

    def __init__(self, model, processor, max_new_tokens: int = 16, num_kept: int = 0, **options):
        self.model, self.processor, self.max_new_tokens, self.options = model, processor, max_new_tokens, options
        self.num_kept = num_kept
        self.kept: OrderedDict[tuple, _Clip] = OrderedDict()

    def __call__(self, chats: Sequence[list[dict]]) -> list[str]:
        """The answers to a batch of chats by greedy decoding; errors are those of [`prepare`]."""
        return self.answer(self.prepare(chats))

    def prepare(self, chats: Sequence[list[dict]]) -> list["Prompt"]:
        """
        Decodes the media of a batch that are not kept: what is done without the model, for example while it answers
        the batch before.

        Args:
            chats (`Sequence[list[dict]]`): Each ends with a message of the user; contents are lists of items.

        Raises:
            ValueError, TypeError, OSError: a chat or an option is not accepted, or a medium cannot be read.
        """
        keys = [media_key(chat) for chat in chats]
        prompts = [self._prepare(chat, key) for chat, key in zip(chats, keys, strict=True)]
        longest, most = max(len(one.ids) for one in prompts), self.model.config.text_config.max_position_embeddings
        if longest >= most:
            raise ValueError(f"the prompt has {longest} tokens, where the model reads {most}: ask with fewer frames")
        while len(self.kept) > max(self.num_kept, len({*keys} - {None})):
            self.kept.popitem(last=False)
        return prompts

    def answer(self, prompts: Sequence["Prompt"]) -> list[str]:
        """The answers to a batch that [`prepare`] has made, by greedy decoding."""
        answers = self.generate(prompts, max_new_tokens=self.max_new_tokens, do_sample=False)
        return [answer.text for answer in answers]

    @torch.no_grad()
    def generate(self, prompts: Sequence["Prompt"], stop: Sequence[str] = (), **options) -> list[Answer]:
        """
        The answers to a batch.

        Args:
            prompts (`Sequence[Prompt]`): From [`prepare`].
            stop (`Sequence[str]`, *optional*): Texts at which an answer ends; they are no part of it.
            options: Of `generate`.
        """
        self._encode([prompt.clip for prompt in prompts])
        tokenizer = self.processor.tokenizer
        rows = {"input_ids": [prompt.ids for prompt in prompts]}
        inputs = tokenizer.pad(rows, padding_side="left", return_attention_mask=True, return_tensors="pt")
        inputs = inputs.to(self.model.device)
        media = {name: [one for prompt in prompts for one in prompt.clip.encoded.get(name, [])] for name in NAMES_OF}
        encoded = {name: OmniVinciMediaOutput(pooler_output=found) for name, found in media.items() if found}
        if encoded:
            options["mm_encoder_outputs"] = encoded
        if stop:
            options |= {"stop_strings": list(stop), "tokenizer": tokenizer}
        output = self.model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(output, skip_special_tokens=True)
        lengths = (output != tokenizer.pad_token_id).sum(1).tolist()
        return [
            Answer(_cut_at(text, stop).strip(), len(prompt.ids), length)
            for prompt, text, length in zip(prompts, texts, lengths, strict=True)
        ]

    def _prepare(self, chat: list[dict], key: tuple | None) -> "Prompt":
        known = self.kept.pop(key, None)
        clip = known or self._decode(chat)
        if key is not None:
            self.kept[key] = clip  # behind those that were needed less recently
        if known is None:
            return Prompt(clip.ids, clip)
        if clip.is_as_planned is None:
            clip.is_as_planned = self._plan(clip.chat) == clip.ids
        return Prompt(self._plan(chat) if clip.is_as_planned else self._decode(chat).ids, clip)

    def _decode(self, chat: list[dict]) -> "_Clip":
        inputs = self.processor.apply_chat_template(
            chat, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt", **self.options
        )
        return _Clip(chat, inputs["input_ids"][0].tolist(), select_media(inputs))

    def _plan(self, chat: list[dict]) -> list[int]:
        return self.processor.plan(chat, **self.options).ids()

    def _encode(self, clips: Sequence["_Clip"]) -> None:
        """Encodes the media that are not yet, and sorts the embeddings by chat."""
        new = list({id(clip): clip for clip in clips if clip.media}.values())
        if not new:
            return
        media = OmniVinciBatchFeature(join([clip.media for clip in new])).to(self.model.device, self.model.dtype)
        encoded = self.model.encode_media(**media)
        remaining = {name: iter(output.pooler_output) for name, output in encoded.items()}
        for clip in new:
            for name, found in remaining.items():
                # The second tensor of a modality has a row for each medium.
                clip.encoded[name] = list(islice(found, len(clip.media.get(NAMES_OF[name][1], ()))))
            clip.media = {}


@dataclass(eq=False)
class _Clip:
    """
    The media of a chat, as several chats may have them.

    Attributes:
        chat (`list[dict]`): The first chat with them.
        ids (`list[int]`): Its token ids, by what was decoded.
        media ([`MediaInputs`]): What is to be encoded; empty when it is.
        encoded (`dict[str, list[torch.Tensor]]`): The embeddings of each medium, by modality.
        is_as_planned (`bool`, *optional*): Whether the headers tell the same token ids, so that prompts of other chats
            need no decoding. A header may announce sound or frames that cannot be decoded.
    """

    chat: list[dict]
    ids: list[int]
    media: MediaInputs
    encoded: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    is_as_planned: bool | None = None


class Prompt(NamedTuple):
    """The token ids of a chat, with placeholders, and its media."""

    ids: list[int]
    clip: _Clip


def media_key(chat: Sequence[dict]) -> tuple | None:
    """
    What is equal for chats with the same media in the same order: files by their paths, everything else by its
    content. `None` where there are no media, or one cannot be compared, such as a decoder.
    """
    key = tuple(
        tuple((name, _comparable(value)) for name, value in sorted(item.items()))
        for message in chat
        for item in message["content"]
        if item["type"] != "text"
    )
    return key if key and all(value is not None for item in key for _, value in item) else None


def _comparable(value) -> Hashable:
    """A value of a content item, large ones as a digest; `None` if it cannot be compared."""
    if isinstance(value, (str, bytes, int, float, os.PathLike)):
        return value
    if isinstance(value, PIL.Image.Image):
        digest = hashlib.sha256(value.tobytes()).digest()
        return value.mode, value.size, value.getbands(), str(value.getpalette()), digest
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).digest()
    if isinstance(value, Mapping) and value.get("array") is not None:
        return value.get("sampling_rate"), _comparable(np.asarray(value["array"]))
    return None


def _cut_at(text: str, stop: Sequence[str]) -> str:
    return text[: min([text.index(word) for word in stop if word in text], default=None)]


def batches(chats: Sequence[list[dict]], batch_size: int) -> Iterator[list[int]]:
    """The indices of chats in batches, those about the same media one after another."""
    groups: dict[tuple | None, list[int]] = {}
    for index, chat in enumerate(chats):
        groups.setdefault(media_key(chat), []).append(index)
    order = [index for group in groups.values() for index in group]
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]


def answer(
    model, processor, chats: list[list[dict]], max_new_tokens: int = 16, load_audio_from_video: bool = True
) -> list[str]:
    """
    Answers a batch of chats by greedy decoding.

    Args:
        model, processor, max_new_tokens: As of [`Asker`].
        chats (`list[list[dict]]`): The chats, each one message of the user.
        load_audio_from_video (`bool`, *optional*, defaults to `True`): Whether to use the sound of videos.

    Returns:
        `list[str]`: an answer for each chat.
    """
    return Asker(model, processor, max_new_tokens, load_audio_from_video=load_audio_from_video)(chats)
