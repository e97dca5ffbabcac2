"""The contexts that are written before an answer, and how a question is asked with them. Plain text, without torch."""

from collections.abc import Mapping

SEE, HEAR, TIMELINE = "see", "hear", "timeline"
PROMPTS = {
    SEE: "What is shown, and at which seconds?",
    HEAR: "What is heard, and at which seconds?",
    TIMELINE: "What is shown and heard, and at which seconds?",
}
"""What asks for each context, in the order in which they are written. Nano is trained with these words."""


def ask_with(contexts: Mapping[str, str], question: str, prompts: Mapping[str, str] = PROMPTS) -> str:
    """
    A question behind the contexts that were written so far, each behind what asked for it, on lines of their own.

    Args:
        contexts (`Mapping[str, str]`): Texts by their names, which are keys of `prompts`.
        question (`str`): The question, or what asks for the next context.
        prompts (`Mapping[str, str]`, *optional*): What asked for each. Their order is that of the contexts.

    Returns:
        `str`: without contexts, the question itself.
    """
    written = [line for name in prompts if name in contexts for line in (prompts[name], contexts[name])]
    return "\n".join([*written, question])
