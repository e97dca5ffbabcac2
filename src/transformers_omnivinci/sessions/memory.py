"""Media that were encoded and prompts that were read, kept for the prompts to come."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..compat import CACHE
from ..planning import Evidence, MediumEvidence, MediumPlan, PromptPlan
from ..processing.batch import MEDIA_INPUTS, MediaInputs, select_media, split
from .caches import CacheKind
from .contents import Block, Content, Keys, encode
from .positions import spread
from .prefix import ASSISTANTS, Prefix, Prompt
from .prefix_tree import PrefixTree, join_layers, size_of
from .recognition import Asked, digest_inputs, model_state, recognise

MOST_SEEN = 1024
"""Files and other sources, with their options, of which is known what they become."""


@dataclass(eq=False)
class Kept:
    """A medium that was encoded, what it takes in memory, and when it was last asked about."""

    content: Content
    num_bytes: int
    used: int = 0


@dataclass(frozen=True)
class Piece:
    """
    A medium of a prompt.

    Attributes:
        modality (`str`): `"image"`, `"video"` or `"audio"`.
        digest (`str`): From [`digest_inputs`].
        content ([`Content`], *optional*): It as it was encoded before. `None`: it is encoded of
        plan ([`MediumPlan`], *optional*), inputs ([`MediaInputs`], *optional*): what the processor has read.
    """

    modality: str
    digest: str
    content: Content | None = None
    plan: MediumPlan | None = None
    inputs: MediaInputs | None = None


class Memory:
    """
    What was encoded and read, of bounded bytes, for one prompt at a time.

    A medium is recognised by the content of its file, the options that it is read with and the settings of the
    processor, without decoding it; anything else by the tensors that it becomes. A prompt is recognised, position by
    position, by its tokens and by the media that stand in it: the longest beginning that was read before is not read
    again. What a model has given is forgotten once its weights or adapters change.

    It may be used by several threads. A copy of it is empty.

    Args:
        model ([`OmniVinciForConditionalGeneration`]), processor ([`OmniVinciProcessor`]): What encodes and reads.
        max_bytes (`int`): The most that embeddings, keys and values take, on the devices that they are on. What was
            not asked about for longest is forgotten first. 0: nothing is kept.

    Attributes:
        is_model_fixed (`bool`): Whether nothing ever changes the model, which then is not looked at for each prompt.

    Raises:
        ValueError: `max_bytes` is negative.
    """

    def __init__(self, model, processor, max_bytes: int):
        _check_bytes(max_bytes)
        self.model, self.processor, self._max_bytes = model, processor, max_bytes
        self.is_model_fixed = False
        self._lock, self._encoding = threading.RLock(), threading.Lock()
        self._keys, self._now, self._state = Keys(), 0, None
        self.clear()

    def __reduce__(self):
        return Memory, (self.model, self.processor, self.max_bytes)

    def clear(self) -> None:
        """Forgets everything, which frees its memory."""
        with self._lock:
            self._kept: dict[str, Kept] = {}
            self._seen: OrderedDict[str, tuple[str, MediumEvidence | None]] = OrderedDict()
            self._tree = PrefixTree()

    @property
    def max_bytes(self) -> int:
        """The most that is kept. A smaller number forgets at once."""
        return self._max_bytes

    @max_bytes.setter
    def max_bytes(self, max_bytes: int) -> None:
        _check_bytes(max_bytes)
        with self._lock:
            self._max_bytes = max_bytes
            self._make_room(0, self._now + 1)

    @property
    def num_bytes(self) -> int:
        """What embeddings, keys and values take at the moment."""
        with self._lock:
            return self._tree.num_bytes + sum(kept.num_bytes for kept in self._kept.values())

    def usage(self) -> dict[str, int]:
        """What is held: `bytes`, of at most `max_bytes`, `media` and `positions` of prompts."""
        with self._lock:
            positions = sum(len(node.keys) for node in self._tree.nodes())
            told = {"media": len(self._kept), "positions": positions}
            return {"bytes": self.num_bytes, "max_bytes": self.max_bytes, **told}

    # ---------------------------------------------------------------------------------------------- before a prompt

    def recognise(self, messages: list[dict], options: Mapping) -> Asked:
        """Recognises the media of a chat, see [`recognise`]. Forgets what another state of the model has given."""
        state = model_state(self.model) if self._state is None or not self.is_model_fixed else self._state
        with self._lock:
            if state != self._state:
                self.clear()
                self._state = state
        return replace(recognise(self.processor, messages, options), state=state)

    def recall(self, asked: Asked, with_evidence: bool, **template) -> "tuple[Draft, Evidence | None] | None":
        """
        The prompt of a chat without decoding anything, and what its answer rests on if that is asked for; `None`
        unless all of its media are known. `template`: options of [`OmniVinciProcessor.tokenize_chat`].
        """
        pieces, evidence = [], []
        with self._lock:
            if asked.state != self._state:
                return None
            for mark in asked.marks:
                digest, told = self._seen.get(mark.digest, (None, None))
                kept = self._kept.get(digest)
                if kept is None or (with_evidence and told is None):
                    return None
                self._seen.move_to_end(mark.digest)
                pieces.append(Piece(mark.modality, digest, kept.content))
                evidence.append(told)
        if not pieces:
            return None
        draft = Draft(self, asked.state, self.processor.tokenize_chat(asked.messages, **template).ids, pieces)
        length = len(draft.ids)
        # Of what is too long the processor warns.
        if length > self.processor.tokenizer.model_max_length:
            return None
        if not with_evidence:
            return draft, None
        tokens = {name: sum(one.tokens[name] for one in evidence) for name in self.processor.layout.token_ids}
        return draft, Evidence(tuple(evidence), {"text": length - sum(tokens.values()), **tokens})

    def learn(self, asked: Asked, plan: PromptPlan, inputs: Mapping, evidence: Evidence | None) -> "Draft | None":
        """
        The prompt of what the processor has read; `None` if it has not written what was planned, as where it pads.

        Args:
            asked ([`Asked`]): What was recognised before.
            plan ([`PromptPlan`]), inputs (`Mapping`), evidence ([`Evidence`], *optional*): What the processor gave.
        """
        if inputs["input_ids"].tolist() != [plan.ids()] or not inputs["attention_mask"].all():
            return None
        waiting = {name: list(media) for name, media in split(select_media(inputs), self._scales).items()}
        marks = {name: [mark for mark in asked.marks if mark.modality == name] for name in waiting}
        pieces = []
        for number, medium in enumerate(plan.media):
            tensors = waiting[medium.modality].pop(0)
            if medium.modality == "video" and medium.windows is not None:
                tensors = {**tensors, **waiting["audio"].pop(0)}
            digest = digest_inputs(tensors, spread(medium, self.processor.layout).ids)
            pieces.append(Piece(medium.modality, digest, plan=medium, inputs=tensors))
            mark = marks[medium.modality].pop(0) if marks[medium.modality] else None
            if mark is not None and mark.still_holds():
                with self._lock:
                    self._seen[mark.digest] = digest, None if evidence is None else evidence.media[number]
                    self._seen.move_to_end(mark.digest)
                    while len(self._seen) > MOST_SEEN:
                        self._seen.popitem(last=False)
        return Draft(self, asked.state, plan.text_ids, pieces)

    @property
    def _scales(self) -> Sequence[int]:
        return self.model.config.s2_scales

    # ----------------------------------------------------------------------------------------------------- a prompt

    def generate(self, model, draft: "Draft", options: dict) -> torch.Tensor:
        """As [`Draft.generate`]."""
        options = {name: value for name, value in options.items() if name not in MEDIA_INPUTS}
        try:
            started = self._start(model, draft, options)
        except torch.OutOfMemoryError:
            started = None
            if not self.num_bytes:
                raise
        if started is None:  # no answer is to fail for what others have left
            self.clear()
            started = self._start(model, draft, options)
        prompt, prefix, now = started
        if prefix is None:
            return model.generate(mm_encoder_outputs=prompt.media(0), **options)
        length = len(prompt.ids)
        num_rows = max(_told(model, options, name) or 1 for name in ("num_beams", "num_return_sequences"))
        if num_rows > 1:
            prefix.cache.batch_repeat_interleave(num_rows)
        rows = model.generate(mm_encoder_outputs=prompt.media(length - 1), **{CACHE: prefix.cache}, **options)
        keys = prompt.keys[:-1]
        if num_rows == 1:  # otherwise the prompt is what the rows have in common
            keys = np.concatenate([prompt.keys, rows[0, length:].cpu().numpy()])[: len(prefix)]
        self._keep(draft, prompt, keys, prefix, now)
        return rows

    def _start(self, model, draft: "Draft", options: dict) -> tuple[Prompt, Prefix | None, int]:
        """
        The prompt, its cache up to the last position, and the time of it: what is used then is not forgotten for what
        comes then. No cache where a call of `generate` cannot go on from one.
        """
        with self._lock:
            self._now += 1
            now = self._now
        prompt = draft.prompt([self._encode(model, draft, piece, now) for piece in draft.pieces])
        prefix, last = Prefix(model, CacheKind()), len(prompt.ids) - 1
        if not _goes_on(model, options) or any(layer.is_sliding for layer in prefix.cache.layers):
            return prompt, None, now
        self._resume(draft, prompt, prefix, now)
        draft.cached_tokens = len(prefix)
        prefix.read(prompt, last)
        # By itself: other questions are about the same media, and the answer to this one may never come.
        self._keep(draft, prompt, prompt.keys[: min(prompt.settled, last)], prefix, now)
        return prompt, prefix, now

    def _encode(self, model, draft: "Draft", piece: Piece, now: int) -> Content:
        """A medium as it stands in a prompt, encoded if it is not known."""
        with self._encoding:
            kept = self._kept.get(piece.digest) if draft.state == self._state else None
            if kept is None:
                content = piece.content
                if content is None:
                    content = _owned(encode(model, self.processor, piece.plan, piece.inputs, self._keys))
                kept = Kept(content, _bytes_of(content))
            with self._lock:
                kept.used = max(kept.used, now)
                is_new = piece.digest not in self._kept and draft.state == self._state
                if is_new and self._make_room(kept.num_bytes, now):
                    self._kept[piece.digest] = kept
            return kept.content

    def _resume(self, draft: "Draft", prompt: Prompt, prefix: Prefix, now: int) -> None:
        """Fills a prefix with what was read of a prompt before, but for its last position."""
        with self._lock:
            path, length = self._tree.find(prompt.keys[:-1], now) if draft.state == self._state else ([], 0)
        if length:
            for number, (keys, values) in enumerate(join_layers(path)):
                prefix.cache.update(keys, values, number)
            prefix.note(prompt.noted())

    def _keep(self, draft: "Draft", prompt: Prompt, keys: np.ndarray, prefix: Prefix, now: int) -> None:
        """Keeps what was read of a prompt, given what stands at its first positions, beside its media."""
        layers = [(layer.keys[:1], layer.values[:1]) for layer in prefix.cache.layers]
        with self._lock:
            contents = [kept.content for kept in map(self._kept.get, draft.digests) if kept is not None]
            are_kept = all(any(one is content for content in contents) for one in prompt.contents)
            if draft.state == self._state and are_kept and self._make_room(self._tree.cost(keys, layers, now), now):
                self._tree.insert(keys, layers, now)

    def _make_room(self, num_bytes: int, now: int) -> bool:
        """Forgets until there is room, what was used longest ago first; `False` if there is none."""
        if num_bytes > self.max_bytes:
            return False
        while self.num_bytes + num_bytes > self.max_bytes:
            # Prompts before the media in them, without which they would never be recognised again.
            leaf = min(self._tree.leaves(), key=lambda node: node.used, default=None)
            digest = min(self._kept, key=lambda digest: self._kept[digest].used, default=None)
            oldest = None if digest is None else self._kept[digest].used
            if leaf is not None and leaf.used < now and (oldest is None or leaf.used <= oldest):
                self._tree.drop(leaf)
            elif oldest is not None and oldest < now:
                del self._kept[digest]
            else:
                return False
        return True


class Draft:
    """
    A prompt on its way to the model.

    Args:
        memory ([`Memory`]): What may know its beginning.
        state (`str`): The state of the model for which it is made.
        text_ids (`Sequence[int]`): Its tokens, with one placeholder for each medium.
        pieces (`Sequence[Piece]`): Its media.

    Attributes:
        cached_tokens (`int`): Positions that had been read before, once it was answered.
    """

    def __init__(self, memory: Memory, state: str, text_ids: Sequence[int], pieces: Sequence[Piece]):
        self.memory, self.state, self.text_ids, self.pieces, self.cached_tokens = memory, state, text_ids, pieces, 0

    def prompt(self, contents: Sequence[Content]) -> Prompt:
        """The prompt with its media as they were encoded."""
        modalities = [piece.modality for piece in self.pieces]
        return Prompt.of(self.text_ids, contents, modalities, self.memory.processor.layout.token_ids)

    @property
    def digests(self) -> list[str]:
        """Those of its media."""
        return [piece.digest for piece in self.pieces]

    @property
    def ids(self) -> list[int]:
        """The token ids of the prompt, a placeholder for each embedding; all of its media are known."""
        return self.prompt([piece.content for piece in self.pieces]).ids.tolist()

    def generate(self, model, **options) -> torch.Tensor:
        """As `model.generate`, of which `options` are the arguments: token ids of the whole prompt among them."""
        return self.memory.generate(model, self, options)


def _check_bytes(max_bytes: int) -> None:
    if not max_bytes >= 0:
        raise ValueError(f"`max_bytes={max_bytes!r}` is not accepted: a number of bytes from 0 on is.")


def _told(model, options: Mapping, name: str):
    """What a call of `generate` says of an option, or else its or the model's config."""
    value = options.get(name)
    return getattr(options.get("generation_config") or model.generation_config, name, None) if value is None else value


def _goes_on(model, options: Mapping) -> bool:
    """Whether a call of `generate` can go on from a cache that is given to it."""
    has_own = any(options.get(name) is not None for name in ("past_key_values", "cache", "custom_generate"))
    takes = _told(model, options, "use_cache") is not False
    takes = takes and _told(model, options, "cache_implementation") in (None, "dynamic")
    # Assistants of transformers read the whole prompt, whatever a cache holds.
    return takes and not has_own and not any(_told(model, options, name) for name in ASSISTANTS)


def _blocks(content: Content) -> Iterator[Block]:
    for blocks in content.blocks.values():
        yield from blocks


def _owned(content: Content) -> Content:
    """A medium whose embeddings are no views of something larger."""

    def owned(block: Block) -> Block:
        embeddings = block.embeddings
        is_view = embeddings.untyped_storage().nbytes() > embeddings.numel() * embeddings.element_size()
        return replace(block, embeddings=embeddings.clone()) if is_view else block

    return replace(content, blocks={token: [owned(one) for one in blocks] for token, blocks in content.blocks.items()})


def _bytes_of(content: Content) -> int:
    positions = content.positions
    plain = sum(array.nbytes for array in (positions.ids, positions.seconds, positions.parts))
    return plain + sum(size_of(block.embeddings) + block.keys.nbytes for block in _blocks(content))
