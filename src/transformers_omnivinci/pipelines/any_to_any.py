"""The pipeline `any-to-any` where torchvision is not installed."""

from collections.abc import Mapping

from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
from transformers.pipelines.any_to_any import AnyToAnyPipeline
from transformers.pipelines.base import Pipeline
from transformers.utils import requires_backends

from .. import media
from ..model_types import MODEL_TYPE
from ..processing.prompts import flatten_audio
from ..processing.waveforms import is_waveform, source_of


class AnyToAnyWithoutTorchvisionPipeline(AnyToAnyPipeline):
    """
    An [`AnyToAnyPipeline`] that asks for torchvision, and for torchcodec to read sounds, only where the model needs
    them: OmniVinci does not.

    Raises:
        ImportError: torchvision is missing, and the model is another one that sees.
    """

    def __init__(self, *args, **kwargs):
        model = args[0] if args else kwargs["model"]
        self.is_omnivinci = model.config.model_type == MODEL_TYPE
        if not self.is_omnivinci:
            super().__init__(*args, **kwargs)
            return
        Pipeline.__init__(self, *args, **kwargs)
        requires_backends(self, "vision")
        self.check_model_type(MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES)

    def preprocess(self, inputs=None, **kwargs):
        if self.is_omnivinci and isinstance(inputs, Mapping) and "video" in inputs:
            inputs = {("videos" if name == "video" else name): value for name, value in inputs.items()}
        if self.is_omnivinci and isinstance(inputs, Mapping) and inputs.get("audio") is not None:
            inputs = {**inputs, "audio": [self._load_clip(clip) for clip in flatten_audio(inputs["audio"])]}
        return super().preprocess(inputs, **kwargs)

    def _load_clip(self, clip):
        """Samples of a source; arrays, tensors and lists of samples are left to the processor."""
        if is_waveform(clip):
            return clip
        return media.load_audio(source_of(clip), sampling_rate=self.processor.feature_extractor.sampling_rate)
