"""
Order and time, planned as plain integers and seconds: no tensor library, no model.

- `sampling`: which frames of a clip, which tiles of an image, which windows of a waveform.
- `temporal_embedding_grouping`: which frames and sounds stand together (TEG).
- `sequence`: how many embeddings each medium has, and in which order they stand in the prompt.
- `plan`: from the facts of media to the token ids and the seconds of a prompt.
- `evidence`: what of the media an answer rests on, and what was left out.
- `token_groups`: the groups of a clip with their tokens, to be shown.
"""

from .evidence import Evidence, LeftOut, MediumEvidence, MediumSource, Remembered, medium_evidence, prompt_evidence
from .plan import MediumFacts, MediumPlan, PromptPlan, plan_medium
from .sampling import AudioWindows, choose_tile_grid, sample_at_fps, sample_uniformly, tile_grids
from .sequence import Layout, count, count_image_embeddings, pooled_frames
from .token_groups import Timeline, TimelineGroup, timeline_of

__all__ = [
    "AudioWindows",
    "Evidence",
    "Layout",
    "LeftOut",
    "MediumEvidence",
    "MediumFacts",
    "MediumPlan",
    "MediumSource",
    "PromptPlan",
    "Remembered",
    "Timeline",
    "TimelineGroup",
    "choose_tile_grid",
    "count",
    "count_image_embeddings",
    "medium_evidence",
    "plan_medium",
    "pooled_frames",
    "prompt_evidence",
    "sample_at_fps",
    "sample_uniformly",
    "tile_grids",
    "timeline_of",
]
