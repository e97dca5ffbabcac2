"""What stands at the positions of a medium, and when: plain integers and seconds, without tensors."""

from dataclasses import dataclass

import numpy as np

from ..planning import Layout, MediumPlan, pooled_frames


@dataclass(frozen=True)
class Positions:
    """
    The positions of a medium in a prompt.

    Attributes:
        ids (`np.ndarray` of shape `(length,)`): Token ids, a placeholder for each embedding.
        seconds (`np.ndarray` of shape `(length,)`): When an embedding is; NaN at images and boundary tokens.
        parts (`np.ndarray` of shape `(length,)`): The part of its plan, such as a temporal group, by its number.
    """

    ids: np.ndarray
    seconds: np.ndarray
    parts: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, kept: np.ndarray) -> "Positions":
        """Those of a mask of shape `(length,)`."""
        return Positions(self.ids[kept], self.seconds[kept], self.parts[kept])


def spread(plan: MediumPlan, layout: Layout) -> Positions:
    """The positions of a medium by its plan. An embedding that is pooled over frames is when its first frame is."""
    tokens, lengths, parts = [], [], []
    for number, part in enumerate(plan.parts):
        for token, length in part:
            tokens.append(token)
            lengths.append(length)
            parts.append(number)
    ids = np.repeat(np.asarray(tokens, dtype=np.int64), lengths)
    seconds = np.full(len(ids), np.nan)
    seconds[ids == layout.token_ids["audio"]] = plan.sound_seconds
    if plan.modality == "video":
        seconds[ids == layout.token_ids["video"]] = frame_seconds(plan, layout)
    return Positions(ids, seconds, np.repeat(np.asarray(parts, dtype=np.int64), lengths))


def frame_seconds(plan: MediumPlan, layout: Layout) -> np.ndarray:
    """The second of each video embedding of a plan, of shape `(num_embeddings,)`."""
    frames = np.asarray(plan.frame_seconds, dtype=float)
    counts = pooled_frames(layout.video_pool_sizes, layout.patches_per_side, len(frames))
    return np.concatenate(
        [
            np.repeat(frames[:: sizes[0]], per_frame)
            for sizes, (_, per_frame) in zip(layout.video_pool_sizes, counts, strict=True)
        ]
    )
