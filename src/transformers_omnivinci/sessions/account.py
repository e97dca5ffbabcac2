"""What an answer of a session rests on: its media as far as they are still seen and heard."""

from collections.abc import Sequence

import numpy as np

from ..planning import Evidence, MediumEvidence, MediumPlan, Remembered, medium_evidence, plan_medium
from ..processing import OmniVinciProcessor
from .contents import Content
from .live import LiveClip
from .media import Recording


def account_for(
    processor: OmniVinciProcessor, media: Sequence[Recording | LiveClip], contents: Sequence[Content], length: int
) -> Evidence:
    """
    What the answer to a prompt rests on.

    Args:
        processor ([`OmniVinciProcessor`]): That of the session.
        media (`Sequence[Recording | LiveClip]`): Those of the prompt, in order.
        contents (`Sequence[Content]`): What of each stands there.
        length (`int`): Positions of the prompt.
    """
    is_alone = sum(medium.modality == "image" for medium in media) == 1
    told = tuple(
        _account_for_one(processor, medium, content, is_alone) for medium, content in zip(media, contents, strict=True)
    )
    tokens = {name: sum(one.tokens[name] for one in told) for name in processor.layout.token_ids}
    return Evidence(told, {"text": length - sum(tokens.values()), **tokens})


def _account_for_one(
    processor: OmniVinciProcessor, medium: Recording | LiveClip, content: Content, is_alone: bool
) -> MediumEvidence:
    layout = processor.layout
    source = medium.source(processor) if isinstance(medium, LiveClip) else medium.source(is_alone)
    plan = plan_medium(source.facts, layout)
    if len(content) == plan.length:
        return medium_evidence(plan, source, layout)
    ids, seconds = content.positions.ids, content.positions.seconds
    tokens = {name: int((ids == token_id).sum()) for name, token_id in layout.token_ids.items()}
    tokens = {"text": len(content) - sum(tokens.values()), **tokens}
    shown = frozenset(seconds[ids == layout.token_ids["video"]].tolist())
    sounds = frozenset(seconds[ids == layout.token_ids["audio"]].tolist())
    return medium_evidence(plan, source, layout, Remembered(_still_seen(plan, layout, shown), sounds, tokens))


def _still_seen(plan: MediumPlan, layout, shown: frozenset[float]) -> frozenset[float]:
    """The seconds of frames that an embedding shows; one that is pooled over frames is when its first frame is."""
    seconds = np.asarray(plan.frame_seconds, dtype=float).tolist()
    steps = [sizes[0] for sizes in layout.video_pool_sizes]
    return frozenset(
        second for index, second in enumerate(seconds) if any(seconds[index - index % step] in shown for step in steps)
    )
