"""Chats to answers, in batches. Media that several chats begin with or hold alike are read and encoded once."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging

from ...pipelines.video_text_to_text import GENERATION_PARAMETERS
from ...processing.batch import take_media
from ...processing.tokenization import control_tokens, cut_control_tokens

logger = logging.get_logger(__name__)

DEFAULT_NEW_TOKENS = 1024
"""As of lmms-eval's own wrapper, where neither the task nor the checkpoint says more."""
FILLED_IN = "\n\n"
"""What lmms-eval fills in as `until` where a task names none. Its other models do not stop there either."""
OF_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p")
OF_OTHER_MODELS = {"image_aspect_ratio"}
"""What tasks set for LLaVA alone."""


@dataclass(frozen=True)
class Answer:
    """An answer, and how many tokens the prompt and it have."""

    text: str
    num_prompt_tokens: int
    num_tokens: int


def generation_options(given: Mapping) -> tuple[dict, list[str]]:
    """
    Options of `generate` from the `generation_kwargs` of a task, and the texts that end an answer. A temperature of 0
    means greedy decoding, and one above 0 sampling, unless `do_sample` is given.

    Raises:
        ValueError: `until` is no text or list of texts.
    """
    given = {name: value for name, value in given.items() if value is not None}
    until = given.pop("until", [])
    until = [until] if isinstance(until, str) else until
    if not isinstance(until, (list, tuple)) or not all(isinstance(word, str) for word in until):
        raise ValueError(f"`until` is a text or a list of texts, got {until!r:.80}")
    for other in ("max_gen_toks", "max_tokens"):
        if other in given:
            given.setdefault("max_new_tokens", given.pop(other))
    if given.get("temperature") == 0:
        given["do_sample"] = False
    given.setdefault("do_sample", given.get("temperature", 0) > 0)
    if not given["do_sample"]:
        given = {name: value for name, value in given.items() if name not in OF_SAMPLING}
    unknown = given.keys() - GENERATION_PARAMETERS
    for name in sorted(unknown - OF_OTHER_MODELS):
        logger.warning_once(f"`{name}` among the `generation_kwargs` of a task is no option of `generate`: ignored.")
    options = {name: value for name, value in given.items() if name not in unknown}
    return options, [word for word in until if word and word != FILLED_IN]


class Answerer:
    """
    Answers chats.

    Args:
        model ([`OmniVinciForConditionalGeneration`]): The model.
        processor ([`OmniVinciProcessor`]): Its processor.
        options (`dict`): Of calls of the processor: `num_frames`, `fps`, `max_frames`, `load_audio_from_video`.
        num_kept (`int`): Of how many chats the encoded media are kept for later questions about them.

    Attributes:
        num_encoded (`int`): Of how many chats the media were encoded so far.
    """

    def __init__(self, model, processor, options: dict, num_kept: int = 8):
        self.model, self.processor, self.options, self.num_kept = model, processor, options, num_kept
        self.kept: OrderedDict[str, dict] = OrderedDict()
        self.num_encoded = 0
        self.max_length = model.config.text_config.max_position_embeddings
        template = processor.chat_template
        words = "".join(template.values()) if isinstance(template, dict) else template
        self.control_tokens = control_tokens(processor.tokenizer, words)

    @torch.no_grad()
    def answer(self, chats: Sequence[list[dict]], generation: Mapping) -> list[Answer]:
        """
        Answers a batch of chats, each with the media that it has.

        Args:
            chats (`Sequence[list[dict]]`): Each ends with a message of the user.
            generation (`Mapping`): See [`generation_options`].

        Raises:
            ValueError, TypeError, OSError: a chat or an option is not accepted, or a medium cannot be read.
        """
        prepared = [self.prepare(chat) for chat in chats]
        return self.generate([ids for ids, _ in prepared], [encoded for _, encoded in prepared], generation)

    def prepare(self, chat: list[dict]) -> tuple[list[int], dict]:
        """
        The token ids of a chat, with placeholders, and its encoded media by modality.

        Raises:
            ValueError, TypeError, OSError: as of [`answer`].
        """
        key = media_key(chat)
        encoded = self.kept.get(key) if key is not None else None
        if encoded is not None:
            self.kept.move_to_end(key)
            ids = self._plan(chat)
            if ids is not None and len(ids) < self.max_length and self._fits(ids, encoded):
                return ids, encoded
        inputs = self.processor.apply_chat_template(
            chat,
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            sanitize_control_tokens=True,
            return_tensors="pt",
            **self.options,
        ).to(self.model.device, self.model.dtype)
        ids, tensors = inputs["input_ids"][0].tolist(), take_media(inputs)
        if len(ids) >= self.max_length:
            raise ValueError(
                f"the prompt has {len(ids)} tokens, where the model reads {self.max_length}: ask with fewer frames"
            )
        if not tensors:
            return ids, {}
        if encoded is None or not self._fits(ids, encoded):
            encoded = self.model.encode_media(**tensors)
            self.num_encoded += 1
            if key is not None:
                self.kept[key] = encoded
                while len(self.kept) > self.num_kept:
                    self.kept.popitem(last=False)
        return ids, encoded

    @torch.no_grad()
    def generate(self, rows: Sequence[list[int]], encoded: Sequence[dict], generation: Mapping) -> list[Answer]:
        """The answers to prompts that [`prepare`] has made; errors are those of [`answer`]."""
        options, stop = generation_options(generation)
        usual = self.model.generation_config
        if "max_length" not in options:
            options.setdefault("max_new_tokens", usual.max_new_tokens or DEFAULT_NEW_TOKENS)
        if stop:
            options |= {"stop_strings": stop, "tokenizer": self.processor.tokenizer}
        joined = join_encoded(encoded)
        if joined:
            options["mm_encoder_outputs"] = joined
        device, pad = self.model.device, self.processor.tokenizer.pad_token_id
        pad_token = usual.pad_token_id if pad is None else pad
        tensors = [torch.tensor(ids, device=device) for ids in rows]
        masks = [torch.ones_like(ids) for ids in tensors]
        input_ids = pad_sequence(tensors, batch_first=True, padding_value=pad_token, padding_side="left")
        mask = pad_sequence(masks, batch_first=True, padding_value=0, padding_side="left")
        output = self.model.generate(input_ids=input_ids, attention_mask=mask, **options)
        answers = []
        for ids, row in zip(rows, output[:, input_ids.shape[1] :].tolist(), strict=True):
            text = self.processor.decode(row, skip_special_tokens=True)
            num_tokens = sum(token != pad_token for token in row)
            answers.append(Answer(_cut_at(text, stop).strip(), len(ids), num_tokens))
        return answers

    def _plan(self, chat: list[dict]) -> list[int] | None:
        """The token ids of a chat by the headers of its media; `None` if its words hold control tokens."""
        for message in chat:
            for item in message["content"]:
                if item["type"] == "text" and cut_control_tokens(item["text"], self.control_tokens) != item["text"]:
                    return None
        return self.processor.plan(chat, **self.options).ids()

    def _fits(self, ids: list[int], encoded: dict) -> bool:
        """Whether a prompt has as many placeholders as there are embeddings."""
        return all(
            ids.count(getattr(self.processor, f"{modality}_token_id"))
            == (sum(map(len, encoded[modality].pooler_output)) if modality in encoded else 0)
            for modality in ("image", "video", "audio")
        )


def join_encoded(encoded: Sequence[dict]) -> dict:
    """What `encode_media` returned for several chats, as it would return it for all of them."""
    return {
        modality: BaseModelOutputWithPooling(
            pooler_output=[medium for one in encoded if modality in one for medium in one[modality].pooler_output]
        )
        for modality in ("image", "video", "audio")
        if any(modality in one for one in encoded)
    }


def media_key(chat: list[dict]) -> str | None:
    """
    What is the same for chats with the same media: files by their paths, everything else by its content.

    Returns:
        `str`, *optional*: `None` where there are no media, or one cannot be compared, such as a decoder.
    """
    key = hashlib.sha256()
    media = [item for message in chat for item in message["content"] if item["type"] != "text"]
    for item in media:
        for name in sorted(item):
            content = _content_of(item[name])
            if content is None:
                return None
            for part in (name.encode(), *content):
                key.update(len(part).to_bytes(8, "little") + part)
    return key.hexdigest() if media else None


def _content_of(value) -> list[bytes] | None:
    """A value of a content item as bytes."""
    if isinstance(value, (bytes, str, int, float)):
        return [type(value).__name__.encode(), value if isinstance(value, bytes) else str(value).encode()]
    if isinstance(value, PIL.Image.Image):
        return [f"image {value.mode} {value.size} {value.getbands()}".encode(), value.tobytes()]
    if isinstance(value, Mapping) and value.get("array") is not None:
        array = np.asarray(value["array"])
        return [f"sound {array.dtype} {array.shape} {value.get('sampling_rate')}".encode(), array.tobytes()]
    return None


def _cut_at(text: str, stop: Sequence[str]) -> str:
    places = [text.find(word) for word in stop if word in text]
    return text[: min(places)] if places else text
