"""Asks a model questions about media: in batches, each clip encoded once, with all of the senses or some."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ..modeling.outputs import OmniVinciMediaOutput
from ..processing.batch import NAMES_OF, select_media

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


class Asker:
    """
    Answers chats by greedy decoding. The media of a chat are decoded and encoded once, however many of the chats of
    one batch, and of the next one, begin with them.

    Args:
        model ([`OmniVinciForConditionalGeneration`]): The model.
        processor ([`OmniVinciProcessor`]): Its processor.
        max_new_tokens (`int`, *optional*, defaults to 16): Maximum length of an answer in tokens.
        options: Of the processor, such as `load_audio_from_video`, `num_frames` and `fps`.
    """

    def __init__(self, model, processor, max_new_tokens: int = 16, **options):
        self.model, self.processor, self.max_new_tokens, self.options = model, processor, max_new_tokens, options
        self._prompts: dict[tuple, _Prompt] = {}
        self._encoded: dict[tuple, dict[str, list[torch.Tensor]]] = {}

    def __call__(self, chats: Sequence[list[dict]]) -> list[str]:
        """
        Answers a batch.

        Args:
            chats (`Sequence[list[dict]]`): Each one message of the user: media, then text.

        Returns:
            `list[str]`: an answer for each chat.
        """
        return self.answer(self.prepare(chats))

    def prepare(self, chats: Sequence[list[dict]]) -> "Prepared":
        """
        Decodes the media of a batch that the one before does not have: what is done without the model, for example
        while it answers the batch before. Batches are answered in the order in which they are prepared.
        """
        keys = [media_key(chat[0]["content"]) for chat in chats]
        self._prompts = {key: prompt for key, prompt in self._prompts.items() if key in keys}
        ids: list = [None] * len(chats)
        # Chats without media have nothing in common.
        new = [
            index for index, key in enumerate(keys) if key not in self._prompts and key not in keys[:index] or not key
        ]
        inputs = {}
        if new:
            inputs = self.processor.apply_chat_template(
                [chats[index] for index in new],
                tokenize=True,
                return_dict=True,
                add_generation_prompt=True,
                return_tensors="pt",
                **self.options,
            )
            for row, index in enumerate(new):
                ids[index] = inputs["input_ids"][row][inputs["attention_mask"][row].bool()].tolist()
                self._prompts[keys[index]] = _Prompt(chats[index], ids[index])
        for index, chat in enumerate(chats):
            if ids[index] is None:
                ids[index] = self._prompts[keys[index]].for_chat(chat, self._plan)
        return Prepared(ids, keys, new, inputs)

    @torch.no_grad()
    def answer(self, prepared: "Prepared") -> list[str]:
        """The answers to a batch, see [`prepare`]."""
        keys = prepared.keys
        self._encoded = {key: media for key, media in self._encoded.items() if key in keys}
        self._encode(prepared)
        inputs = self.processor.tokenizer.pad(
            {"input_ids": prepared.ids}, padding_side="left", return_tensors="pt", return_attention_mask=True
        ).to(self.model.device)
        media = [self._encoded[key] if key else {} for key in keys]
        joined = {name: [one for sample in media for one in sample.get(name, [])] for name in NAMES_OF}
        encoded = {name: OmniVinciMediaOutput(pooler_output=found) for name, found in joined.items() if found}
        if encoded:
            inputs["mm_encoder_outputs"] = encoded
        output = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        texts = self.processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _encode(self, prepared: "Prepared") -> None:
        """Encodes the media of the chats that are new, and sorts the embeddings by chat."""
        if not select_media(prepared.inputs):
            return
        inputs = prepared.inputs.to(self.model.device, self.model.dtype)
        encoded = self.model.encode_media(**select_media(inputs))
        remaining = {name: iter(output.pooler_output) for name, output in encoded.items()}
        for index in prepared.new:
            sample = self._encoded[prepared.keys[index]] = {}
            for name in encoded:
                left, sample[name] = prepared.ids[index].count(getattr(self.model.config, f"{name}_token_id")), []
                while left > 0:
                    sample[name].append(next(remaining[name]))
                    left -= len(sample[name][-1])

    def _plan(self, chat: list[dict]):
        return self.processor.plan([chat], **self.options)[0]


@dataclass(frozen=True)
class Prepared:
    """
    A batch without its embeddings.

    Attributes:
        ids (`list[list[int]]`): The token ids of each chat.
        keys (`list[tuple]`): Of each chat, see [`media_key`].
        new (`list[int]`): The chats whose media are in `inputs`; those of the others are those of one of them, or of
            the batch before.
        inputs (`dict`): What the processor returned.
    """

    ids: list[list[int]]
    keys: list[tuple]
    new: list[int]
    inputs: dict


class _Prompt:
    """A chat with its token ids, from which those of other chats about the same media are made."""

    def __init__(self, chat: list[dict], ids: list[int]):
        self.chat, self.ids, self._ends = chat, ids, None

    def for_chat(self, chat: list[dict], plan: Callable) -> list[int]:
        """
        The token ids of another chat, by its plan. What stands for the media is taken from what was decoded: sound
        that cannot be decoded is not in it, though a header may announce it.
        """
        if self._ends is None:
            own = plan(self.chat)
            self._ends = own.slots[0], len(own.text_ids) - own.slots[-1] - 1
        before, after = self._ends
        other = plan(chat)
        media = self.ids[before : len(self.ids) - after]
        return [*other.text_ids[: other.slots[0]], *media, *other.text_ids[other.slots[-1] + 1 :]]


def media_key(content: Sequence[dict]) -> tuple:
    """What is equal for messages with the same media in the same order; empty without media."""
    return tuple(
        tuple(
            (name, value if isinstance(value, (str, bytes, int, float)) else id(value)) for name, value in item.items()
        )
        for item in content
        if item["type"] != "text"
    )


def batches(contents: Sequence[Sequence[dict]], batch_size: int) -> Iterator[list[int]]:
    """The indices of messages in batches, those about the same media one after another."""
    groups: dict[tuple, list[int]] = {}
    for index, content in enumerate(contents):
        groups.setdefault(media_key(content), []).append(index)
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
