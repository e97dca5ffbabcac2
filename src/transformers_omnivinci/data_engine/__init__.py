"""
The omni-modal data engine (section 3.2 and figure 4 of the paper): videos become captions and questions that rest on
both senses, each corrected by the other.

- `segmentation`, `split`: videos into segments of clips.
- `visual_caption`, `audio_caption`, `cross_modal_correction`: the boxes of figure 4.
- `columns`, `stage`, `asking_stage`, `structured`: what passes between stages, checked at their borders.
- `backends`: models of any kind behind one protocol.
- `config`, `typed`, `prompt_files`: what a run depends on.

Importing it imports neither Ray nor a model.
"""
