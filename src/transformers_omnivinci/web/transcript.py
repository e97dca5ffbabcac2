"""A conversation as HTML, with what each answer rests on."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .stage import format_second
from .visits import Reply

MICROPHONE = (
    '<svg class="ov-icon" viewBox="0 0 24 24" aria-hidden="true"><path d="M12 15a3.5 3.5 0 0 0 3.5-3.5v-5a3.5 3.5 0 0 '
    '0-7 0v5A3.5 3.5 0 0 0 12 15zm6-3.5a6 6 0 0 1-12 0M12 17.5V21" fill="none" stroke="currentColor" '
    'stroke-width="2" stroke-linecap="round"></path></svg>'
)


@dataclass(frozen=True)
class Exchange:
    """
    A question with its answer.

    Attributes:
        question (`str`): Its text.
        is_spoken (`bool`): Whether a recorded sound was part of it.
        is_remembered (`bool`): Whether it was asked behind those that are remembered.
        reply ([`Reply`], *optional*): The answer as far as it has come.
        error (`str`): Why there is none.
        truth (`str`): The right answer, where it is known.
    """

    question: str
    is_spoken: bool = False
    is_remembered: bool = False
    reply: Reply | None = None
    error: str = ""
    truth: str = ""


def show_transcript(exchanges: Sequence[Exchange], hint: str = "") -> str:
    """The HTML of a conversation; `hint`: what stands there before the first question."""
    if not exchanges:
        return f'<div class="ov-talk ov-empty"><p>{escape(hint)}</p></div>'
    return f'<div class="ov-talk" role="log" aria-live="polite">{"".join(map(_exchange, exchanges))}</div>'


def show_notice(text: str, is_error: bool = False) -> str:
    """A sentence above the clip, or nothing."""
    if not text:
        return ""
    kind, role = ("ov-notice ov-error", "alert") if is_error else ("ov-notice", "status")
    return f'<p class="{kind}" role="{role}">{escape(text)}</p>'


def _exchange(exchange: Exchange) -> str:
    icon = f"{MICROPHONE}<span>recorded question</span> " if exchange.is_spoken else ""
    parts = [f'<div class="ov-question">{icon}{escape(exchange.question)}</div>']
    if exchange.error:
        parts.append(show_notice(exchange.error, is_error=True))
    elif exchange.reply is not None:
        is_going = exchange.reply.answer is None
        text = escape(exchange.reply.text) or ("" if is_going else "<em>no words</em>")
        caret = '<span class="ov-caret" aria-label="answering"></span>' if is_going else ""
        parts.append(f'<div class="ov-answer">{text}{caret}</div>')
        if not is_going:
            facts = [escape(fact) for fact in list_grounds(exchange.reply)]
            if exchange.truth:
                facts.insert(0, f"<b>right answer: {escape(exchange.truth)}</b>")
            if exchange.is_remembered:
                facts.append("remembered" if not exchange.reply.is_stopped else "not remembered")
            parts.append(f'<p class="ov-grounds">{" · ".join(facts)}</p>')
    return f'<div class="ov-exchange">{"".join(parts)}</div>'


def list_grounds(reply: Reply) -> list[str]:
    """What an answer rests on: seconds that were seen and heard, what had been read before, and how long it took."""
    facts, clip, answer = ["stopped"] if reply.is_stopped else [], reply.clip, reply.answer
    if clip.kind == "image":
        facts.append("image seen")
    if clip.frames:
        number, (first, last) = len(clip.frames), (clip.frames[0], clip.frames[-1])
        facts.append(f"{number:,} frames seen, {format_second(first)} – {format_second(last)}")
    facts += [f"heard {format_second(start)} – {format_second(end)}" for start, end in clip.evidence.heard]
    if reply.recorded:
        facts.append(f"recorded question heard, {format_second(reply.recorded)}")
    if answer.prompt_tokens:
        facts.append(f"{reply.read_before:,} of {answer.prompt_tokens:,} tokens read before")
    if reply.first is not None:
        facts.append(f"first words after {reply.first:.2f} s, all after {reply.seconds:.2f} s")
    return facts
