"""A session: what was watched and said, with the language model's cache of it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import StoppingCriteriaList

from ..compat import CACHE
from ..modeling.cached_prompt import CachedPrompt
from ..processing.batch import MEDIA_INPUTS
from .answers import Answer, AnswerStream
from .contents import Keys
from .media import read_recording
from .prefix import Prefix, Prompt

RESERVED = {*MEDIA_INPUTS, "inputs", "input_ids", "attention_mask", "inputs_embeds", "mm_encoder_outputs"}
RESERVED |= {"past_key_values", "cache", "use_cache", "num_return_sequences", "return_dict_in_generate"}
"""Arguments of `generate` that a session gives itself."""
ASSISTANTS = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit")
"""Options of `generate` that have another part guess the next tokens."""


@dataclass
class Turn:
    """What a user has shown and said, and what was answered."""

    media: list = field(default_factory=list)
    question: str = ""
    answer: str | None = None

    def copy(self) -> "Turn":
        """Another one, which shares what is encoded."""
        return Turn([medium.copy() for medium in self.media], self.question, self.answer)

    def messages(self) -> list[dict]:
        """It as messages of a chat, whose media are named by their kinds alone."""
        content = [*({"type": medium.modality} for medium in self.media), {"type": "text", "text": self.question}]
        answer = [] if self.answer is None else [{"role": "assistant", "content": self.answer}]
        return [{"role": "user", "content": content}, *answer]


class Session:
    """
    Looks once, and answers many questions.

    Each medium is encoded once, and each prefix is read by the language model once; a question is answered from a
    branch of that prefix, so that questions do not see each other, unless a turn is kept. The answers are those of
    `model.generate` for the whole chat: in a user's message, the media that were watched in their order and the
    question behind them; before it, the turns that were kept.

    ```python
    with Session(model, processor) as session:
        session.watch("clip.mp4")
        print(session.ask("What happens?"))
        for text in session.ask("And what is heard?", stream=True):
            print(text, end="")
    ```

    Args:
        model ([`OmniVinciForConditionalGeneration`]): What sees, hears and answers.
        processor ([`OmniVinciProcessor`]): Its processor.
        system (`str`, *optional*): The system prompt. `None`: that of the chat template.
        sanitize_control_tokens (`bool`, *optional*, defaults to `False`):
            Whether control tokens and placeholders in questions are read as text. Otherwise placeholders are refused.

    A session is used by one thread at a time; a call from a second one is refused with a `RuntimeError`. No call that
    fails leaves anything changed.
    """

    def __init__(self, model, processor, system: str | None = None, sanitize_control_tokens: bool = False):
        self.model, self.processor = model, processor
        self.system, self.sanitize_control_tokens = system, sanitize_control_tokens
        self._turns, self._open = [], Turn()
        self._keys, self._prefix = Keys(), Prefix(model)
        self._lock, self._is_closed = threading.Lock(), False

    # ---------------------------------------------------------------------------------------------------- watching

    def watch(self, media, *, kind: str | None = None, track=None, **options) -> None:
        """
        Adds a medium, behind those that were watched before. It is decoded and encoded, and read into the cache.

        Args:
            media: A file, URL, bytes or file object, whose content tells what it is; an image, frames or samples as
                the processor accepts them; or a content item of a chat, which may have options of its own.
            kind (`str`, *optional*): `"image"`, `"video"` or `"audio"`, where that cannot be told.
            track (*optional*): The sound of a video where it is given apart.
            options: Of the processor, such as `num_frames`, `fps` and `load_audio_from_video`.

        Raises:
            ValueError, TypeError, OSError: it cannot be read, or an option is not accepted.
            RuntimeError: another thread is using the session, or it is closed.
        """
        with self._use():
            recording = read_recording(self.processor, media, kind, track, options)
            turn = Turn([*self._open.media, recording], self._open.question)
            self._settle(turn)
            self._open = turn

    def _settle(self, turn: Turn) -> None:
        """Reads all media, those of a new turn included, into the cache."""
        prompt = self._prompt(turn)
        prefix = self._prefix.branch()
        prefix.read(prompt, prompt.end_of_media)
        self._prefix = prefix

    def _prompt(self, turn: Turn) -> Prompt:
        """The prompt of a turn behind those that were kept."""
        turns = [*self._turns, turn]
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        messages += [message for one in turns for message in one.messages()]
        text = self.processor.tokenize_chat(messages, self.sanitize_control_tokens)
        media = [medium for one in turns for medium in one.media]
        is_alone = sum(medium.modality == "image" for medium in media) == 1
        contents = [medium.content(self.model, self.processor, self._keys, is_alone) for medium in media]
        modalities = [medium.modality for medium in media]
        return Prompt.of(text.ids, contents, modalities, self.processor.layout.token_ids)

    # ------------------------------------------------------------------------------------------------------ asking

    def ask(self, question: str, stream: bool = False, keep: bool = False, **generation) -> Answer | AnswerStream:
        """
        Answers a question about what was watched.

        Args:
            question (`str`): The question.
            stream (`bool`, *optional*, defaults to `False`): Whether the text comes piece by piece. The session is in
                use until the iteration has ended or was closed.
            keep (`bool`, *optional*, defaults to `False`):
                Whether question and answer become part of the conversation, which later questions see.
            generation: Options of `generate`, such as `max_new_tokens` and `do_sample`.

        Returns:
            [`Answer`], a `str`; or an [`AnswerStream`] over pieces of text, which has it as `answer` at its end.

        Raises:
            ValueError: nothing was watched or said yet, or the question holds a placeholder of a medium.
            TypeError: the question is no text, or an option is one that a session gives itself.
            RuntimeError: another thread is using the session, or it is closed.
        """
        if not isinstance(question, str):
            raise TypeError(f"A question is a text, got {type(question).__name__} {question!r:.80}.")
        reserved = sorted(RESERVED & generation.keys())
        if reserved:
            raise TypeError(f"A session gives `generate` its {', '.join(reserved)} itself: leave them out.")
        if stream and ("streamer" in generation or generation.get("num_beams", 1) > 1):
            raise ValueError("`stream=True` goes neither with a `streamer` of one's own nor with beams.")
        self._take()
        try:
            if not (self._open.media or self._turns):
                raise ValueError("Nothing was watched yet: give the session a medium by `watch` or `feed` first.")
            turn = Turn(self._open.media, question)
            prompt = self._prompt(turn)

            def answer(**options) -> Answer:
                return self._answer(turn, prompt, keep, {**generation, **options})

            if stream:
                return AnswerStream(self.processor.tokenizer, answer, self._lock.release)
            answered = answer()
        except BaseException:
            self._lock.release()
            raise
        self._lock.release()
        return answered

    def _answer(self, turn: Turn, prompt: Prompt, keep: bool, options: dict[str, Any]) -> Answer:
        cancelled = options.pop("cancelled", None)
        if cancelled is not None:
            options["stopping_criteria"] = StoppingCriteriaList([*(options.get("stopping_criteria") or ()), cancelled])
        branch, length = self._prefix.branch(), len(prompt.ids)
        branch.cut(min(branch.agrees(prompt), length - 1))
        config = options.get("generation_config") or self.model.generation_config
        # Assistants of transformers read the whole prompt, whatever a cache holds: here its embeddings.
        if any(options.get(name) or getattr(config, name, None) for name in ASSISTANTS):
            branch.cut(0)
        cached, num_beams = len(branch), options.get("num_beams") or config.num_beams or 1
        if num_beams > 1 and cached:
            branch.cache.batch_repeat_interleave(num_beams)
        ids = torch.from_numpy(prompt.ids)[None].to(self.model.device)
        sequences = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_encoder_outputs=prompt.media(cached),
            **{CACHE: branch.cache},
            **options,
        )
        said = sequences[0, length:].tolist()
        text = self.processor.decode(said, skip_special_tokens=True)
        answer = Answer(text, said, length, cached)
        if keep and not (cancelled is not None and cancelled.event.is_set()):
            if len(branch.cache.layers[0].keys) == 1:  # and not a row for each beam
                noted, new = prompt.noted(), torch.tensor([said])
                branch.note(noted.followed_by(CachedPrompt(new, new)))
                self._prefix = branch
            self._turns = [*self._turns, Turn(turn.media, turn.question, text)]
            self._open = Turn()
        return answer

    # ----------------------------------------------------------------------------------------------- the session

    def fork(self) -> "Session":
        """
        Another session that has watched and said the same, and goes on by itself. Nothing is encoded, read or copied.

        Raises:
            RuntimeError: another thread is using the session, or it is closed.
        """
        with self._use():
            other = Session(self.model, self.processor, self.system, self.sanitize_control_tokens)
            other._turns, other._open = [turn.copy() for turn in self._turns], self._open.copy()
            other._keys, other._prefix = Keys(self._keys.used), self._prefix.branch()
            return other

    def close(self) -> None:
        """Forgets everything, which frees its memory. A closed session answers no more."""
        with self._use():
            self._turns, self._open, self._prefix = [], Turn(), Prefix(self.model)
            self._is_closed = True

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_) -> None:
        if not self._is_closed:
            self.close()

    def _take(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(
                "The session is in use: wait until its answer has come, or ask a `fork()` that was made before."
            )
        if self._is_closed:
            self._lock.release()
            raise RuntimeError("The session is closed: make a new one.")

    @contextmanager
    def _use(self) -> Iterator[None]:
        """Holds the session for one thread."""
        self._take()
        try:
            yield
        finally:
            self._lock.release()
