"""The chat template of the new model: that of its language model, with media."""

import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import TemplateError

from ..processing.chat_template import CHAT_TEMPLATE, build_chat_template
from ..processing.prompts import TOKENS
from .part_sources import PartSource

CHATML = "chatml"
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
TURNS = [
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "Three."},
    {"role": "user", "content": "Four?"},
]
SYSTEM = [{"role": "system", "content": "One."}]
HINT = f"another one is given as `chat_template`: {CHATML!r}, to be learnt, or a Jinja file with media"


def choose_template(source: PartSource, tokenizer, chat_template: str | None) -> tuple[str, Sequence[str]]:
    """
    The chat template of the new model.

    Args:
        source ([`PartSource`]): The language model.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        chat_template (`str`, *optional*):
            `"chatml"` for that of the release, or the path of a Jinja template that writes `<image>`, `<vila/video>`
            and `<sound>` for items of content, and answers in a `{% generation %}` block. `None`: the language
            model's own if it is ChatML, with its own words for the system.

    Returns:
        `tuple[str, Sequence[str]]`: the template, and the tokens that it needs in the vocabulary.

    Raises:
        OSError, ValueError: there is no template, or it cannot be used.
    """
    if chat_template is None:
        return build_chat_template(_system_prompt(source, tokenizer)), CHATML_TOKENS
    if chat_template == CHATML:
        return CHAT_TEMPLATE, CHATML_TOKENS
    path = Path(chat_template)
    try:
        template = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OSError(f"The chat template {path} cannot be read: {error}.") from error
    _check_template(path, tokenizer, template)
    return template, ()


def writes_bos(tokenizer, template: str) -> bool:
    """Whether prompts begin with the token that a tokenizer puts in front of texts."""
    return tokenizer.bos_token is not None and _write(tokenizer, TURNS, template).startswith(tokenizer.bos_token)


def _system_prompt(source: PartSource, tokenizer) -> str | None:
    """What a template that is ChatML says where a chat has no system message; `None`: nothing."""
    where = f"The tokenizer in {source.folder / (source.gguf_file or '')}"
    if tokenizer.chat_template is None:
        raise ValueError(f"{where} has no chat template, as of a model that was not taught to chat; {HINT}.")
    missing = [token for token in CHATML_TOKENS if token not in tokenizer.get_vocab()]
    ours = build_chat_template(None)
    try:
        whole, turns = (_write(tokenizer, messages) for messages in (SYSTEM + TURNS, TURNS))
        expected = [_write(tokenizer, messages, ours) for messages in (SYSTEM + TURNS, TURNS)]
    except (TemplateError, TypeError, ValueError):  # of a template that knows no system message
        whole = None
    if whole is None or missing or whole != expected[0] or not turns.endswith(expected[1]):
        raise ValueError(f"{where} has a chat template that is not ChatML (<|im_start|>role ... <|im_end|>); {HINT}.")
    start = turns.removesuffix(expected[1])
    match = re.fullmatch(r"<\|im_start\|>system\n(.*)<\|im_end\|>\n", start, re.DOTALL)
    if start and match is None:
        raise ValueError(f"{where} has a chat template that begins with {start!r:.80}, not as ChatML does; {HINT}.")
    return match and match[1]


def _write(tokenizer, messages: list[dict], template: str | None = None) -> str:
    return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)


def _check_template(path: Path, tokenizer, template: str) -> None:
    """Refuses a template that loses media, or of which training could not tell what the answers are."""
    items = [{"type": name} for name in TOKENS]
    messages = [{"role": "user", "content": [*items, {"type": "text", "text": "Two?"}]}, TURNS[1]]
    options = {"chat_template": template, "tokenize": False}
    try:
        text = tokenizer.apply_chat_template(messages, **options)
    except (TemplateError, TypeError, ValueError) as error:
        raise ValueError(f"The chat template {path} cannot write a chat with media: {error}.") from error
    lost = [token for token in TOKENS.values() if text.count(token) != 1]
    if lost:
        raise ValueError(f"The chat template {path} does not write {', '.join(lost)} once for each such item.")
    if not re.search(r"\{%-?\s*generation\b", template):
        raise ValueError(f"The chat template {path} has no {{% generation %}} block around answers, which are learnt.")
