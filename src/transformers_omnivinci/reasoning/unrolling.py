"""Answers questions from contexts that the model writes first: what it sees, what it hears, and both in order."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from transformers import TextStreamer

from ..compat import CACHE
from ..modeling.generation import finds_assistant
from ..planning import Evidence
from ..processing.prompts import PLACEHOLDER
from ..processing.tokenization import control_tokens
from ..sessions.prefix import RESERVED, Prefix, Prompt
from .contexts import BOTH, HEAR, PICTURE, SEE, SOUND, TIMELINE, UnrollOptions, ask_with
from .views import ReadChat, View, encode_views

ANSWER = "answer"
"""What the pieces of the answer are called beside those of contexts."""
MAX_NEW_TOKENS = 256

OnText = Callable[[str, str], object]


@dataclass(frozen=True)
class Reading:
    """
    An answer to the question with some contexts in front of it.

    Attributes:
        answer (`str`): The answer.
        contexts (`tuple[str, ...]`): Which contexts stood there.
        probability (`float`): Of all tokens of the answer, to its end, under the model.
        prompt_tokens (`int`): Positions of the prompt.
        token_ids (`tuple[int, ...]`): What the model has said, with the token that ends it.
    """

    answer: str
    contexts: tuple[str, ...]
    probability: float
    prompt_tokens: int
    token_ids: tuple[int, ...]

    @property
    def generated_tokens(self) -> int:
        """Tokens of the answer, with the one that ends it."""
        return len(self.token_ids)


@dataclass(frozen=True)
class Context:
    """
    What the model has written of the media.

    Attributes:
        text (`str`): The context.
        is_whole (`bool`): Whether the model had come to its end within the limit.
        prompt_tokens (`int`), generated_tokens (`int`): Positions of the prompt, and tokens of the context.
    """

    text: str
    is_whole: bool
    prompt_tokens: int
    generated_tokens: int


@dataclass(frozen=True)
class UnrolledAnswer:
    """
    An answer, and what it was read from.

    Attributes:
        answer (`str`): The answer.
        contexts (`dict[str, str]`): What was written of `"see"`, `"hear"` and `"timeline"` before it.
        skipped (`dict[str, str]`): Why a context was not written that would have been, such as a missing sense.
        cut (`tuple[str, ...]`): Contexts that were not at their end at the limit of their tokens.
        rounds (`int`): How many contexts were written.
        confidence (`float`): From 0 to 1, see [`UnrollOptions`].
        readings (`tuple[Reading, ...]`): All answers, the last of which is the answer.
        prompt_tokens (`int`), generated_tokens (`int`):
            Positions of all prompts, what a cache held of them included, and all tokens that were generated.
        evidence ([`Evidence`], *optional*): What of the media the answer rests on, if that is asked for.
    """

    answer: str
    contexts: dict[str, str]
    skipped: dict[str, str]
    cut: tuple[str, ...]
    rounds: int
    confidence: float
    readings: tuple[Reading, ...]
    prompt_tokens: int
    generated_tokens: int
    evidence: Evidence | None = None

    def to_dict(self) -> dict:
        """All of it but the evidence, as JSON has it."""
        names = ("answer", "contexts", "skipped", "rounds", "confidence", "prompt_tokens", "generated_tokens")
        readings = [
            {"answer": one.answer, "contexts": list(one.contexts), "probability": one.probability}
            for one in self.readings
        ]
        return {**{name: getattr(self, name) for name in names}, "cut": list(self.cut), "readings": readings}


def unroll(
    model,
    processor,
    chat,
    mode: str = "full",
    *,
    threshold: float = 0.9,
    confidence: str = "probability",
    max_rounds: int = 3,
    prompts=None,
    views=None,
    context_tokens: int = 256,
    max_new_tokens: int = MAX_NEW_TOKENS,
    on_text: OnText | None = None,
    processor_kwargs: dict | None = None,
    **generation,
) -> UnrolledAnswer:
    """
    Answers the question of a chat from contexts: the model writes what it sees (with the sound hidden), what it hears
    (with the picture hidden) and the joint timeline (shown both and told the two), and answers with all media and all
    contexts before it. Media are decoded and encoded once; what prompts begin with in common is read once.

    It prompts the model, so that any checkpoint can be asked this way; [`UnrollOptions`] has the words.

    Args:
        model ([`OmniVinciForConditionalGeneration`]), processor ([`OmniVinciProcessor`]): What answers.
        chat (`list[dict]`): Messages with media, of which the last one is the user's.
        mode (`str`), threshold (`float`), confidence (`str`), max_rounds (`int`), prompts (`Mapping[str, str]`),
        views (`Mapping[str, str]`), context_tokens (`int`): See [`UnrollOptions`].
        max_new_tokens (`int`, *optional*, defaults to 256): The most tokens of an answer.
        on_text (`Callable[[str, str], object]`, *optional*):
            Gets the name of a context, or `"answer"`, with each piece of its text as it is written. Where it turns out
            later which answer is the last, that one comes as a whole.
        processor_kwargs (`dict`, *optional*): Options of the processor, such as `num_frames` and `return_evidence`.
        generation: Options of `generate`, for contexts and answers. A `streamer` gets the answer alone.

    Returns:
        [`UnrolledAnswer`]: the answer with contexts, rounds, confidence and tokens.

    Raises:
        ValueError, TypeError, OSError: the chat has no media or does not end with a question, a medium cannot be read,
            or an option is not accepted.
    """
    options = UnrollOptions(mode, threshold, confidence, max_rounds, prompts or {}, views or {}, context_tokens)
    read = ReadChat.of(processor, chat, **(processor_kwargs or {}))
    unroller = Unroller(model, processor, read, options, max_new_tokens=max_new_tokens, **generation)
    return unroller.answer(on_text)


class Unroller:
    """
    Contexts and answers of one chat. Its media are encoded here, and each context is written once.

    Args:
        model ([`OmniVinciForConditionalGeneration`]), processor ([`OmniVinciProcessor`]): What answers.
        chat ([`ReadChat`]): The chat.
        options ([`UnrollOptions`]): How contexts are unrolled.
        streamer, generation: As of [`unroll`]; among them `max_new_tokens`, which is that of answers.

    Attributes:
        skipped (`dict[str, str]`): Which contexts there cannot be, and why.
        order (`tuple[str, ...]`): The others, in the order in which they are written.

    Raises:
        ValueError, TypeError: an option of `generate` is not accepted.
    """

    def __init__(
        self,
        model,
        processor,
        chat: ReadChat,
        options: UnrollOptions,
        streamer=None,
        **generation,
    ):
        if reserved := sorted(RESERVED & generation.keys()):
            raise TypeError(f"Unrolling gives `generate` its {', '.join(reserved)} itself: leave them out.")
        self.model, self.processor, self.chat, self.options = model, processor, chat, options
        self._streamer = streamer
        self._generation = generation
        self._views = encode_views(model, processor, chat)
        self.skipped = {}
        for name, sense, lack in ((SEE, PICTURE, "no picture"), (HEAR, SOUND, "no sound")):
            if not self._views[sense].contents:
                self.skipped[name] = f"The media have {lack}."
        if self.skipped:
            self.skipped[TIMELINE] = "There is only one sense to tell of."
        self.order = tuple(name for name in options.prompts if name not in self.skipped)
        self._contexts: dict[str, Context] = {}

    def context(self, name: str, on_text: OnText | None = None) -> Context:
        """
        A context, written if it was not yet. The timeline comes behind what is seen and heard.

        Args:
            name (`str`): One of `order`.
            on_text (`Callable`, *optional*): As of [`unroll`].
        """
        if name not in self._contexts:
            before = [SEE, HEAR] if name == TIMELINE else []
            told = {one: self.context(one, on_text).text for one in before}
            view = self._views[self.options.views[name]]
            if not view.contents:
                view = self._views[BOTH]
            prompts = self.options.prompts
            asked = self.chat.context_chat(view.kinds, ask_with(told, prompts[name], prompts))
            prompt = view.prompt(self.processor, asked, self.chat.sanitizes)
            limit = {"max_new_tokens": self.options.context_tokens}
            said = self._generate(view, prompt, _streamer(self.processor, name, on_text), **limit)
            is_whole = len(said) < self.options.context_tokens
            self._contexts[name] = Context(self._clean(self._decode(said)), is_whole, len(prompt.ids), len(said))
        return self._contexts[name]

    def read(self, contexts: tuple[str, ...] = (), on_text: OnText | None = None, streamer=None) -> Reading:
        """
        Answers the question behind some contexts.

        Args:
            contexts (`tuple[str, ...]`): Which, of `order`; they are written if they were not yet.
            on_text (`Callable`, *optional*): Gets the pieces of the answer alone.
            streamer (`BaseStreamer`, *optional*): Gets the tokens of the answer, instead of `on_text`.
        """
        told = {name: self.context(name).text for name in contexts}
        written = ask_with(told, "", self.options.prompts).removesuffix("\n")
        asked, view = self.chat.question_chat(written), self._views[BOTH]
        prompt = view.prompt(self.processor, asked, self.chat.sanitizes)
        said = self._generate(view, prompt, streamer or _streamer(self.processor, ANSWER, on_text))
        probability = self._probability(view.prefix, prompt, said)
        return Reading(self._decode(said), tuple(contexts), probability, len(prompt.ids), tuple(said))

    def answer(self, on_text: OnText | None = None) -> UnrolledAnswer:
        """The answer by the options; `on_text` as of [`unroll`]."""
        options = self.options
        order, is_full = self.order[: options.max_rounds], options.mode == "full"
        readings, is_told = [], False
        if not is_full or options.confidence == "agreement":
            readings.append(self.read())
        for number, name in enumerate(order, start=1):
            if not is_full and self.confidence(readings) >= options.threshold:
                break
            self.context(name, on_text)
            if is_full and number < len(order):
                continue
            is_told = number == len(order)  # no other reading can follow
            shown = {"on_text": on_text, "streamer": self._streamer} if is_told else {}
            readings.append(self.read(order[:number], **shown))
        last = readings[-1]
        if not is_told:
            self._tell(last, on_text)
        return self._account(readings)

    def confidence(self, readings: list[Reading]) -> float:
        """How sure the last of some readings is, from 0 to 1."""
        if self.options.confidence == "probability":
            return readings[-1].probability
        return float(len(readings) > 1 and _plain(readings[-2].answer) == _plain(readings[-1].answer))

    def _account(self, readings: list[Reading]) -> UnrolledAnswer:
        last = readings[-1]
        used = {name: self._contexts[name] for name in last.contexts}
        steps = [*used.values(), *readings]
        [evidence] = self.chat.inputs.get("evidence", [None])
        if evidence is not None:
            more = last.prompt_tokens - sum(evidence.tokens.values())
            evidence = replace(evidence, tokens={**evidence.tokens, "text": evidence.tokens["text"] + more})
        return UnrolledAnswer(
            answer=last.answer,
            contexts={name: context.text for name, context in used.items()},
            skipped=dict(self.skipped),
            cut=tuple(name for name, context in used.items() if not context.is_whole),
            rounds=len(used),
            confidence=self.confidence(readings),
            readings=tuple(readings),
            prompt_tokens=sum(step.prompt_tokens for step in steps),
            generated_tokens=sum(step.generated_tokens for step in steps),
            evidence=evidence,
        )

    def _tell(self, reading: Reading, on_text: OnText | None) -> None:
        """Hands on an answer of which only now is known that it is the last one."""
        if self._streamer is not None:
            self._streamer.put(torch.zeros(1, 0, dtype=torch.long))  # the prompt, of which streamers want none
            for token in reading.token_ids:
                self._streamer.put(torch.tensor([token]))
            self._streamer.end()
        elif on_text is not None:
            on_text(ANSWER, reading.answer)

    def _generate(self, view: View, prompt: Prompt, streamer, **options) -> list[int]:
        """The tokens that the model says to a prompt, which the prefix of the view then holds up to its last one."""
        options = {**self._generation, **options}
        if "max_new_tokens" in options and options.get("generation_config") is not None:
            # Both together are deprecated.
            config = copy.deepcopy(options["generation_config"])
            config.max_new_tokens, config.max_length = options.pop("max_new_tokens"), None
            options["generation_config"] = config
        last = len(prompt.ids) - 1
        view.prefix.read(prompt, last)
        branch = view.prefix.branch()
        config = options.get("generation_config") or self.model.generation_config
        if finds_assistant(self.model, options) is not None or (options.get("num_beams") or config.num_beams or 1) > 1:
            branch.cut(0)  # they read the whole prompt
        ids = torch.from_numpy(prompt.ids)[None].to(self.model.device)
        sequences = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_encoder_outputs=prompt.media(len(branch)),
            streamer=streamer,
            **{CACHE: branch.cache},
            **options,
        )
        return sequences[0, len(prompt.ids) :].tolist()

    @torch.no_grad()
    def _probability(self, prefix: Prefix, prompt: Prompt, said: list[int]) -> float:
        """That of tokens behind a prompt, of which the prefix holds all but the last position."""
        branch, last = prefix.branch(), len(prompt.ids) - 1
        ids = torch.tensor([[int(prompt.ids[-1]), *said[:-1]]], device=self.model.device)
        cache = {CACHE: branch.cache}
        media = prompt.media(last)
        logits = self.model(ids, mm_encoder_outputs=media, use_cache=True, **cache).logits[0].float()
        told = torch.tensor(said, device=logits.device)[:, None]
        return float(logits.log_softmax(-1).gather(1, told).sum().exp())

    def _decode(self, said: list[int]) -> str:
        return self.processor.decode(said, skip_special_tokens=True).strip()

    def _clean(self, text: str) -> str:
        """A context without what would be more than text in a prompt."""
        for token in control_tokens(self.processor.tokenizer, self.processor.chat_template or ""):
            text = text.replace(token, "")
        return PLACEHOLDER.sub("", text)


class _Teller(TextStreamer):
    """Hands on pieces of text with a name."""

    def __init__(self, tokenizer, name: str, on_text: OnText):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._name, self._on_text = name, on_text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._on_text(self._name, text)


def _streamer(processor, name: str, on_text: OnText | None) -> TextStreamer | None:
    return None if on_text is None else _Teller(processor.tokenizer, name, on_text)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,:;!?\"'`*_()[]")
