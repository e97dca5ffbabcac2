"""The parts of the model, which recipes train and quantize by name."""

PARTS = {
    "vision_encoder": ("model.vision_tower",),
    "vision_projector": ("model.vision_projector", "model.video_time_embedding"),
    "audio_encoder": ("model.audio_tower",),
    "audio_projector": ("model.audio_compression", "model.audio_projector", "model.audio_time_embedding"),
    "omni_align_net": ("model.omni_align_net",),
    "language_model": ("model.language_model", "lm_head"),
}
"""The parts of figure 2, as modules of [`OmniVinciForConditionalGeneration`]."""
