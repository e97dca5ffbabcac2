"""A session: what was watched and said, with the language model's cache of it."""

import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from transformers import StoppingCriteriaList

from ..compat import CACHE
from ..modeling.cached_prompt import CachedPrompt
from ..modeling.generation import finds_assistant
from ..planning import Evidence
from .account import account_for
from .answers import Answer, AnswerStream
from .caches import CacheKind
from .contents import Content, Keys
from .feeding import to_number
from .live import LiveClip
from .media import read_recording
from .policy import Policy, Watched, choose
from .prefix import RESERVED, Prefix, Prompt
from .saving import read_session, save_session
from .turns import Placed, Turn, place


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
        policy ([`Policy`], *optional*): What is kept of long media. `None`: everything.
        sanitize_control_tokens (`bool`, *optional*, defaults to `False`):
            Whether control tokens and placeholders in questions are read as text. Otherwise placeholders are refused.
        cache_implementation (`str`, *optional*), cache_config (`dict`, *optional*):
            As of `generate`: `"offloaded"` keeps what was read in the memory of the CPU, of a model on an accelerator;
            `"quantized"` with `{"backend": "hqq", "nbits": 4}`, for instance, keeps it in fewer bits, so that answers
            may differ. That cannot be cut: where a prompt changes, it is read again from the beginning, and so it is
            for beams and when a saved session is loaded.

    A session is used by one thread at a time; a call from a second one is refused with a `RuntimeError`. No call that
    fails leaves anything changed.
    """

    def __init__(
        self,
        model,
        processor,
        system: str | None = None,
        policy: Policy | None = None,
        sanitize_control_tokens: bool = False,
        cache_implementation: str | None = None,
        cache_config: Mapping | None = None,
    ):
        for name, value, kind in (("policy", policy, Policy), ("system", system, str)):
            if value is not None and not isinstance(value, kind):
                raise TypeError(
                    f"`{name}` of a session is a {kind.__name__}, got {type(value).__name__} {value!r:.40}."
                )
        self.cache_kind = CacheKind(cache_implementation, {} if cache_config is None else cache_config)
        self.model, self.processor = model, processor
        self.system, self.policy, self.sanitize_control_tokens = system, policy, sanitize_control_tokens
        self._turns: tuple[Turn, ...] = ()
        self._open = Turn()
        self._keys, self._prefix = Keys(), Prefix(model, self.cache_kind)
        self._lock, self._is_closed = threading.Lock(), False

    # ---------------------------------------------------------------------------------------------------- watching

    def watch(self, media, *, kind: str | None = None, track=None, **options) -> None:
        """
        Adds a medium, behind those that were watched before. It is decoded and encoded, and read into the cache.
        Frames and sound are encoded while others are decoded, so that memory does not grow with pixels and samples.

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
            recording = read_recording(self.model, self.processor, media, kind, track, options, self._keys)
            self._settle((*self._turns, Turn((*self._open.media, recording))))

    def feed(
        self,
        frames=None,
        timestamps: Sequence[float] | None = None,
        samples=None,
        start: float | None = None,
        end: float | None = None,
        fps: float | None = None,
        source_fps: float | None = None,
    ) -> None:
        """
        Goes on with the live clip of the session, which begins where it is fed first, behind what was watched before.

        Answers are those about a video made of all frames, seconds and samples that were fed, however they came in
        pieces. What a group of TEG holds is known when its border has passed, and what the audio encoder makes of a
        window (30 s in the published model) when its sound is whole. So groups that both picture and sound have left
        are read into the cache, up to the last whole window, and the frames of the group that follows; the rest, which
        is provisional, is encoded and read in the branch of each question. A later sound that is louder than all
        before may raise the floor of earlier spectrograms, as the processor takes it from the whole clip: windows that
        it changes are encoded again, and the cache is cut back to them. So it is where the first sound or the first
        frame comes late, as the order of the sequence is then another one. Feed silence where there is none, and
        frames while there is sound: a group that is not left stays provisional.

        With `video_pool_sizes` of several frames, these are encoded when there are as many; with several such sizes,
        sizes that do not divide a frame, or `audio_pooling="conv"`, picture or sound is encoded as a whole for each
        question.

        Args:
            frames (*optional*):
                Arrays in uint8 of shape (height, width, 3), or opened images, all of one size. All of them are used.
            timestamps (`Sequence[float]`, *optional*): The second of each frame, ascending.
            samples (*optional*): Mono samples of shape (num_samples,) at the rate of the feature extractor, floats in
                [-1, 1] or integers of full scale.
            start (`float`, *optional*): Second of the first sample; before it, what was not fed is silence. Less than
                0.02 s are taken for rounding. `None`: right behind the samples before.
            end (`float`, *optional*): Second up to which the clip lasts, where that is beyond its last frame and
                sample.
            fps (`float`, *optional*):
                The most frames per second that are used: those that come less than 1/fps seconds behind the last one
                that is used are left out.
            source_fps (`float`, *optional*):
                Frames per second of what these frames were taken from, such as [`LiveSource.frame_rate`], where they
                are not all of it: evidence tells how many were not seen.

        Raises:
            ValueError, TypeError: seconds go backwards, sound overlaps, frames have another size, or they are not
                accepted.
            RuntimeError: another thread is using the session, or it is closed.
        """
        for name, rate in (("fps", fps), ("source_fps", source_fps)):
            if rate is not None and not 0 < to_number(rate, f"`{name}`") < math.inf:
                raise ValueError(f"`{name}={rate}` is not accepted: it must be positive.")
        start, end = (
            None if second is None else to_number(second, f"`{name}`")
            for name, second in (("start", start), ("end", end))
        )
        if (frames is None) != (timestamps is None):
            raise ValueError("Live frames come with their seconds: give both `frames` and `timestamps`, or none.")
        if start is not None and samples is None:
            raise ValueError("`start` is the second of the first sample, but no `samples` were given.")
        with self._use():
            turns = (*self._turns, self._open)
            before = next((one for turn in turns for one in turn.media if isinstance(one, LiveClip)), None)
            clip = LiveClip() if before is None else before
            if frames is not None:
                clip = clip.show(self.model, self.processor, frames, timestamps, fps, self._keys)
            if samples is not None:
                clip = clip.hear(self.processor, samples, start)
            clock = clip.clock.last_until(end)
            clip = replace(clip, clock=clock if source_fps is None else replace(clock, source_fps=float(source_fps)))
            if not (clip.clock.timestamps or clip.clock.num_samples):
                return
            if before is None:
                turns = (*self._turns, Turn((*self._open.media, clip)))
            self._settle(tuple(turn.change(lambda one: clip if one is before else one) for turn in turns))

    def _settle(self, turns: tuple[Turn, ...]) -> None:
        """Takes turns, of which the last one is not answered yet, and reads their media into the cache."""
        turns = self._limit(turns)
        prompt = self._prompt(turns, only_settled=True)
        prefix = self._prefix.branch()
        prefix.read(prompt, prompt.settled)
        self._prefix, self._turns, self._open = prefix, turns[:-1], turns[-1]

    # -------------------------------------------------------------------------------------------------- forgetting

    def forget(self, before: float) -> None:
        """
        Forgets pictures and sound before a second, on the clock of the session: the seconds of all media one after
        another, which are those of the medium where there is one. Images and text stay. What is left keeps its seconds
        and is read again, at the positions that it then has; it is not encoded again.

        Args:
            before (`float`): The first second that is kept.

        Raises:
            ValueError, TypeError: it is no number of seconds.
            RuntimeError: another thread is using the session, or it is closed.
        """
        if not math.isfinite(to_number(before, "`before`")):
            raise ValueError(f"`before={before!r:.40}` is not accepted: a number of seconds is.")
        with self._use():
            turns = (*self._turns, self._open)
            placed = self._place(turns)
            self._settle(self._leave(turns, placed, [one.track.seconds >= before for one in placed]))

    def timeline(self) -> list[Watched]:
        """
        Of each medium, in order, which of its seconds are still seen and heard, and how many frames per second.

        Raises:
            RuntimeError: another thread is using the session, or it is closed.
        """
        with self._use():
            return [placed.watched for placed in self._place((*self._turns, self._open))]

    def _limit(self, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
        """Turns within the limits of the policy."""
        if self.policy is None:
            return turns
        placed = self._place(turns)
        media = [one.medium for one in placed]
        fixed = sum(int((~one.is_timed).sum()) for one in placed) + len(self._text(turns)) - len(media)
        end = sum(medium.duration for medium in media)
        return self._leave(turns, placed, choose(self.policy, [one.track for one in placed], fixed, end))

    def _leave(self, turns: tuple[Turn, ...], placed: list[Placed], kept: list) -> tuple[Turn, ...]:
        """Turns without what masks of the tracks of their media leave out."""
        left = {
            id(one.medium): one.medium.forget(self.processor, one.left(mask))
            for one, mask in zip(placed, kept, strict=True)
        }
        return tuple(turn.change(lambda medium: left[id(medium)]) for turn in turns)

    def _place(self, turns: Sequence[Turn]) -> list[Placed]:
        media = [medium for turn in turns for medium in turn.media]
        recorded = [medium for medium in media if not isinstance(medium, LiveClip)]
        contents = dict(zip(map(id, recorded), self._contents(recorded), strict=True))
        positions = [
            contents[id(medium)].positions if id(medium) in contents else medium.positions(self.processor)
            for medium in media
        ]
        return place(media, positions, self.processor.layout)

    # ----------------------------------------------------------------------------------------------------- prompts

    def _prompt(self, turns: Sequence[Turn], only_settled: bool = False) -> Prompt:
        """The prompt of turns; of a live clip, and what stands behind it, only what is settled."""
        media = [medium for turn in turns for medium in turn.media]
        contents, modalities = self._contents(media, only_settled), [medium.modality for medium in media]
        return Prompt.of(self._text(turns), contents, modalities, self.processor.layout.token_ids)

    def _text(self, turns: Sequence[Turn]) -> list[int]:
        """The tokens of turns, with one placeholder for each medium."""
        return self.processor.tokenize_chat(self._write(turns), self.sanitize_control_tokens).ids

    def _write(self, turns: Sequence[Turn]) -> list[dict]:
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        return messages + [message for turn in turns for message in turn.messages()]

    def _contents(self, media: Sequence, only_settled: bool = False) -> list[Content]:
        """Media as they stand in a prompt, encoded as far as they were not yet."""
        is_alone, contents = sum(medium.modality == "image" for medium in media) == 1, []
        for medium in media:
            options = {"only_settled": only_settled} if isinstance(medium, LiveClip) else {"is_alone": is_alone}
            contents.append(medium.content(self.model, self.processor, self._keys, **options))
        return contents

    # ------------------------------------------------------------------------------------------------------ asking

    def ask(
        self, question: str, stream: bool = False, keep: bool = False, return_evidence: bool = False, **generation
    ) -> Answer | AnswerStream:
        """
        Answers a question about what was watched.

        Args:
            question (`str`): The question.
            stream (`bool`, *optional*, defaults to `False`): Whether the text comes piece by piece. The session is in
                use until the iteration has ended or was closed.
            keep (`bool`, *optional*, defaults to `False`):
                Whether question and answer become part of the conversation, which later questions see.
            return_evidence (`bool`, *optional*, defaults to `False`):
                Whether the answer has `evidence`: which seconds of the media it rests on, tokens by modality, and what
                was left out or has been forgotten.
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
            prompt = self._prompt((*self._turns, turn))
            evidence = self._account(turn, len(prompt.ids)) if return_evidence else None

            def answer(**options) -> Answer:
                answered = self._answer(turn, prompt, keep, {**generation, **options})
                answered.evidence = evidence
                return answered

            if stream:
                return AnswerStream(self.processor.tokenizer, answer, self._lock.release)
            answered = answer()
        except BaseException:
            self._lock.release()
            raise
        self._lock.release()
        return answered

    def _account(self, turn: Turn, length: int) -> Evidence:
        """What an answer to a turn rests on, whose prompt has so many positions."""
        media = [medium for one in (*self._turns, turn) for medium in one.media]
        return account_for(self.processor, media, self._contents(media), length)

    def _answer(self, turn: Turn, prompt: Prompt, keep: bool, options: dict[str, Any]) -> Answer:
        cancelled = options.pop("cancelled", None)
        if cancelled is not None:
            options["stopping_criteria"] = StoppingCriteriaList([*(options.get("stopping_criteria") or ()), cancelled])
        branch, length = self._prefix.branch(), len(prompt.ids)
        branch.cut(min(branch.agrees(prompt), length - 1))
        config = options.get("generation_config") or self.model.generation_config
        if finds_assistant(self.model, options) is not None:
            branch.cut(0)  # they read the whole prompt: here its embeddings
        num_beams = options.get("num_beams") or config.num_beams or 1
        if num_beams > 1 and not self.cache_kind.can_be_cut:
            branch.cut(0)  # nor can it be repeated
        cached = len(branch)
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
        if keep and not (cancelled is not None and cancelled.is_set):
            if num_beams == len(sequences) == 1:  # and not a row for each beam
                noted, new = prompt.noted(), torch.tensor([said])
                branch.note(noted.followed_by(CachedPrompt(new, new)))
                self._prefix = branch
            self._turns, self._open = (*self._turns, Turn(turn.media, turn.question, text)), Turn()
        return answer

    # ----------------------------------------------------------------------------------------------- the session

    def messages(self) -> list[dict]:
        """
        The turns that were kept, as messages of a chat. Media are named by their kinds alone, such as
        `{"type": "video"}`.

        Raises:
            RuntimeError: another thread is using the session, or it is closed.
        """
        with self._use():
            return self._write(self._turns)

    def fork(self) -> "Session":
        """
        Another session that has watched and said the same, and goes on by itself. Nothing is encoded, read or copied.

        Raises:
            RuntimeError: another thread is using the session, or it is closed.
        """
        with self._use():
            settings = self.system, self.policy, self.sanitize_control_tokens
            kind = self.cache_kind.implementation, self.cache_kind.config
            other = Session(self.model, self.processor, *settings, *kind)
            other._turns = tuple(turn.change(lambda medium: medium.copy()) for turn in self._turns)
            other._open = self._open.change(lambda medium: medium.copy())
            other._keys, other._prefix = Keys(self._keys.used), self._prefix.branch()
            return other

    def save(self, path: str | os.PathLike, cache: bool = True) -> None:
        """
        Writes the session as a new folder, which appears whole or not at all: embeddings, text and settings, not the
        media themselves.

        Args:
            path (`str` or `os.PathLike`): The folder.
            cache (`bool`, *optional*, defaults to `True`):
                Whether the language model's cache is written, too, which is larger than the rest. Without it the
                prefix is read again when the session is loaded. That of a sliding window is not written.

        Raises:
            OSError: the folder is there already, or cannot be written.
            RuntimeError: another thread is using the session, or it is closed.
        """
        with self._use():
            save_session(path, self, (*self._turns, self._open), self._prefix if cache else None)

    @classmethod
    def load(cls, path: str | os.PathLike, model, processor) -> "Session":
        """
        Goes on with what [`save`] wrote. Nothing is encoded again.

        Args:
            path (`str` or `os.PathLike`): The folder.
            model ([`OmniVinciForConditionalGeneration`]), processor ([`OmniVinciProcessor`]):
                Those by which the session was made: config, weights and dtype, and settings.

        Raises:
            OSError: there is no session, or it is damaged.
            ValueError: it is one of another model, or was made with other settings.
        """
        told, turns, prefix, used = read_session(path, model, processor)
        settings = told["system"], told["policy"], told["sanitize_control_tokens"]
        session = cls(model, processor, *settings, told["cache"].implementation, told["cache"].config)
        session._keys = Keys(used)
        session._prefix = session._prefix if prefix is None else prefix
        session._turns, session._open = tuple(turns[:-1]), turns[-1]
        if prefix is None:
            session._settle(tuple(turns))
        return session

    def close(self) -> None:
        """Forgets everything, which frees its memory. A closed session answers no more."""
        with self._use():
            self._turns, self._open, self._prefix = (), Turn(), Prefix(self.model, self.cache_kind)
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
