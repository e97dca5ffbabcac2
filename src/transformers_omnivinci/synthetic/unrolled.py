"""
Chats with unrolled contexts: what is seen, what is heard and both in their order, written down before the answer.

They teach what [`~transformers_omnivinci.reasoning`] asks of a model, in its words. Contexts are short, as their
tokens are most of what a small model reads. Seconds are rounded to halves:

- see: "0.5 to 2.0 red star left, 2.5 to 4.0 blue ring nowhere"
- hear: "3.0 click"
- timeline: "0.5 to 2.0 red star, 2.5 to 4.0 blue ring, 3.0 click"
"""

from ..reasoning.contexts import HEAR, PROMPTS, SEE, TIMELINE, ask_with
from .candidates import format_seconds
from .scenes import AudibleSound, Scene, VisibleShape

ORDERS = {"video": (SEE, HEAR, TIMELINE), "audio": (HEAR,)}
"""The contexts of a modality, in the order in which they are written."""


def contexts_of(scene: Scene) -> dict[str, str]:
    """The true contexts of a scene, by name; "" where there is nothing to tell."""
    events = sorted([*scene.shapes, *scene.sounds], key=lambda event: event.start)
    shapes = [f"{_tell(shape)} {shape.motion}" for shape in scene.shapes]
    texts = {SEE: shapes, HEAR: map(_tell, scene.sounds), TIMELINE: map(_tell, events)}
    return {name: ", ".join(told) for name, told in texts.items()}


def _tell(event: VisibleShape | AudibleSound) -> str:
    if isinstance(event, AudibleSound):
        return f"{format_seconds(event.start)} {event.kind}"
    return f"{format_seconds(event.start)} to {format_seconds(event.end)} {event.colour} {event.form}"


def unrolled_rows(sample, path: str, silent_path: str | None = None) -> list[dict]:
    """
    A chat for each context of a sample and, behind contexts, for each of its questions.

    A question stands behind one, two or all contexts in turn, since a model may answer before all are written. A chat
    has one message of the user, so that contexts are read and not learnt again with each question: chats of one clip
    begin alike, and training shares what they have in common.

    Args:
        sample ([`Sample`]): Of the modality `"video"` or `"audio"`.
        path (`str`): Path of its clip or sound. What is heard is asked about it as a sound.
        silent_path (`str`, *optional*): Path of its clip without sound, about which is asked what is seen.

    Returns:
        `list[dict]`: as of [`Sample.rows`], with the name of the context as `question_type` and `question_form`.
    """
    contexts, order = contexts_of(sample.scene), ORDERS[sample.modality]
    media = {SEE: ("video", silent_path), HEAR: ("audio", path), TIMELINE: ("video", path)}
    rows = []
    for name in order:
        before = {SEE: contexts[SEE], HEAR: contexts[HEAR]} if name == TIMELINE else {}
        type, place = media[name]
        content = [{"type": type, "path": place}, {"type": "text", "text": ask_with(before, PROMPTS[name])}]
        rows.append(
            {
                "id": f"{sample.id}-{name}",
                "messages": [
                    {"role": "user", "content": content},
                    {"role": "assistant", "content": [{"type": "text", "text": contexts[name]}]},
                ],
                "question_type": name,
                "question_form": name,
                "num_candidates": 0,
                "is_held_out": False,
            }
        )
    for number, row in enumerate(sample.rows(path)):
        medium, question = row["messages"][0]["content"]
        before = {name: contexts[name] for name in order[: len(order) - number % len(order)]}
        question["text"] = ask_with(before, question["text"])
        rows.append({**row, "id": f"{row['id']}-unrolled"})
    return rows
