"""The model, one file for each part of figure 2."""

from .modeling_omnivinci import OmniVinciForConditionalGeneration, OmniVinciModel, OmniVinciPreTrainedModel

__all__ = ["OmniVinciForConditionalGeneration", "OmniVinciModel", "OmniVinciPreTrainedModel"]
