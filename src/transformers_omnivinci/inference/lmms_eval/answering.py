"""How tasks of lmms-eval want to be answered, as options of `generate`."""

from collections.abc import Mapping

from transformers.utils import logging

from ...pipelines.video_text_to_text import GENERATION_PARAMETERS

logger = logging.get_logger(__name__)

DEFAULT_NEW_TOKENS = 1024
"""As of lmms-eval's own wrapper, where neither the task nor the checkpoint says more."""
FILLED_IN = "\n\n"
"""What lmms-eval fills in as `until` where a task names none. Its other models do not stop there either."""
OF_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p")
OF_OTHER_MODELS = {"image_aspect_ratio"}
"""What tasks set for LLaVA alone."""


def generation_options(given: Mapping, max_new_tokens: int | None = None) -> tuple[dict, list[str]]:
    """
    Options of `generate` from the `generation_kwargs` of a task, and the texts that end an answer. A temperature of 0
    means greedy decoding, and one above 0 sampling, unless `do_sample` is given.

    Args:
        given (`Mapping`): What the task says.
        max_new_tokens (`int`, *optional*): Where it says nothing of lengths. Default: `DEFAULT_NEW_TOKENS`.

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
    if "max_length" not in given:
        given.setdefault("max_new_tokens", max_new_tokens or DEFAULT_NEW_TOKENS)
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
