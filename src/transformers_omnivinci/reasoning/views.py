"""What a model sees alone, hears alone, and both: three views of the media of a chat, which are encoded once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from ..planning import MediumFacts, MediumPlan, PromptPlan, plan_medium
from ..processing.batch import OmniVinciBatchFeature, pad_seconds, select_media
from ..processing.conversation import read_conversations
from ..sessions.caches import CacheKind
from ..sessions.contents import Block, Content, Keys
from ..sessions.positions import spread
from ..sessions.prefix import Prefix, Prompt
from .contexts import BOTH, PICTURE, SOUND


@dataclass(frozen=True)
class ReadChat:
    """
    A chat whose media were decoded, which needs no model.

    Attributes:
        messages (`list[dict]`): Its messages; media are named by their kinds alone.
        plan ([`PromptPlan`]): Of its media with picture and sound.
        inputs (`Mapping`): What the processor has made of it.
        sanitizes (`bool`): Whether control tokens in its words are read as text.
    """

    messages: list[dict]
    plan: PromptPlan
    inputs: Mapping
    sanitizes: bool = False

    @classmethod
    def of(cls, processor, chat, sanitize_control_tokens: bool = False, **options) -> "ReadChat":
        """
        Decodes the media of a chat.

        Args:
            processor ([`OmniVinciProcessor`]): That of the model.
            chat (`list[dict]`): Its messages, of which the last one is the user's and asks the question.
            sanitize_control_tokens, options: Of `apply_chat_template`, such as `num_frames` and `return_evidence`.

        Raises:
            ValueError, TypeError, OSError: it has no media or no question, or something in it is not accepted.
        """
        messages = read_conversations(chat)
        if not isinstance(messages[-1], dict) or messages[-1].get("role") != "user":
            raise ValueError(
                "Contexts are unrolled before a question: the last message of the chat is to be a user's."
            )
        inputs = processor.apply_chat_template(
            messages,
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            return_tensors="pt",
            return_plan=True,
            sanitize_control_tokens=sanitize_control_tokens,
            **options,
        )
        [plan] = inputs.pop("plan")
        if not plan.media:
            raise ValueError("The chat has no media: there is nothing to see or hear that contexts could tell.")
        return cls([_bare(message) for message in messages], plan, inputs, sanitize_control_tokens)

    def context_chat(self, kinds: list[str], text: str) -> list[dict]:
        """What asks for a context: the system prompt, and media of these kinds with a text. No earlier turns."""
        system = [message for message in self.messages if message["role"] == "system"]
        items = [{"type": kind} for kind in kinds]
        return [*system, {"role": "user", "content": [*items, {"type": "text", "text": text}]}]

    def question_chat(self, written: str) -> list[dict]:
        """The chat with lines that were written: behind the media of the last message, or in front of its text."""
        *earlier, last = self.messages
        items = last["content"]
        if not written:
            return self.messages
        items = [{"type": "text", "text": items}] if isinstance(items, str) else items
        place = max((number + 1 for number, item in enumerate(items) if item["type"] != "text"), default=0)
        text = f"{written}\n" if place < len(items) else f"\n{written}"
        items = [*items[:place], {"type": "text", "text": text}, *items[place:]]
        return [*earlier, {**last, "content": items}]


def _bare(message: dict) -> dict:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [one if one["type"] == "text" else {"type": one["type"]} for one in content]}


@dataclass
class View:
    """
    Media with what is shown of them.

    Attributes:
        kinds (`list[str]`): What stands in a chat for each medium: a video of which only the sound is shown is audio.
        contents (`list[Content]`): Their embeddings, in order.
        prefix ([`Prefix`]): What the language model has read of prompts with them.
    """

    kinds: list[str] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)
    prefix: Prefix | None = None

    def prompt(self, processor, chat: list[dict], sanitizes: bool) -> Prompt:
        """A chat about these media as the language model reads it."""
        ids = processor.tokenize_chat(chat, sanitizes).ids
        return Prompt.of(ids, self.contents, self.kinds, processor.layout.token_ids)


def encode_views(model, processor, chat: ReadChat) -> dict[str, View]:
    """
    Encodes the media of a chat once for all views. Media stand in the view of the picture as without sound, and in
    that of the sound as sounds of their own, exactly as the processor writes them where the other sense is left out;
    a medium of which nothing is left is not in it.

    Args:
        model ([`OmniVinciForConditionalGeneration`]), processor ([`OmniVinciProcessor`]): What encodes.
        chat ([`ReadChat`]): The chat.

    Returns:
        `dict[str, View]`: `"picture"`, `"sound"` and `"both"`.
    """
    layout, keys = processor.layout, Keys()
    views = {name: View(prefix=Prefix(model, CacheKind())) for name in (PICTURE, SOUND, BOTH)}
    # A sound of its own has the vectors of all its windows, of which those of a track may be the first ones.
    sounds = [
        None
        if medium.windows is None
        else plan_medium(MediumFacts("audio", num_samples=medium.windows.num_samples), layout)
        for medium in chat.plan.media
    ]
    blocks = _encode(model, chat, sounds, keys)
    for medium, sound in zip(chat.plan.media, sounds, strict=True):
        found = {name: next(blocks[name]) for name in ("image", "video", "audio") if name in medium.modalities}
        shown = {BOTH: medium}
        if medium.modality != "audio":
            silent = MediumFacts("video", timestamps=medium.frame_seconds)
            shown[PICTURE] = medium if sound is None else plan_medium(silent, layout)
        if sound is not None:
            shown[SOUND] = sound
        for name, plan in shown.items():
            views[name].kinds.append(plan.modality)
            views[name].contents.append(_place(plan, found, layout))
    return views


def _encode(model, chat: ReadChat, sounds: list[MediumPlan | None], keys: Keys) -> dict[str, Iterator[Block]]:
    """The embeddings of the media of each modality, in order; of sounds all vectors."""
    media = select_media(chat.inputs)
    heard = [sound.sound_seconds for sound in sounds if sound is not None]
    if heard:
        media["audio_timestamps"] = pad_seconds(heard)
    with torch.no_grad():
        encoded = model.encode_media(**OmniVinciBatchFeature(dict(media)).to(model.device, model.dtype))
    return {
        name: iter([Block(keys.take(len(one)), one) for one in output.pooler_output])
        for name, output in encoded.items()
    }


def _place(plan: MediumPlan, found: Mapping[str, Block], layout) -> Content:
    """A medium as a plan shows it: of each block the first embeddings, as many as have a place."""
    positions, blocks = spread(plan, layout), {}
    for name, block in found.items():
        token = layout.token_ids[name]
        number = int((positions.ids == token).sum())
        if number:
            blocks[token] = [Block(block.keys[:number], block.embeddings[:number])]
    return Content(positions, blocks)
