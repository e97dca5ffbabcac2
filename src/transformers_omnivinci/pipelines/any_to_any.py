"""The pipeline `any-to-any` where torchvision is not installed."""

from collections.abc import Mapping

from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
from transformers.pipelines.any_to_any import AnyToAnyPipeline
from transformers.pipelines.base import Pipeline
from transformers.utils import requires_backends

from .. import media
from ..checkpoint_formats import MODEL_TYPE
from ..processing.prompts import flatten_audio
from ..processing.waveforms import is_waveform, source_of
from .telling import TellsEvidence


class AnyToAnyWithoutTorchvisionPipeline(TellsEvidence, AnyToAnyPipeline):
    """
    An [`AnyToAnyPipeline`] for OmniVinci, which needs neither torchvision nor, to read sounds, torchcodec. Made for
    another model, it is transformers' own class, with that one's errors.
    """

    def __new__(cls, *args, **kwargs):
        model = args[0] if args else kwargs.get("model")
        is_other = model is not None and model.config.model_type != MODEL_TYPE
        return AnyToAnyPipeline(*args, **kwargs) if is_other else super().__new__(cls)

    def __init__(self, *args, **kwargs):
        # Without the parent's, which asks for torchvision.
        Pipeline.__init__(self, *args, **kwargs)
        requires_backends(self, "vision")
        self.check_model_type(MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES)

    def preprocess(self, inputs=None, **kwargs):
        if isinstance(inputs, Mapping) and "video" in inputs:
            inputs = {("videos" if name == "video" else name): value for name, value in inputs.items()}
        if isinstance(inputs, Mapping) and inputs.get("audio") is not None:
            # Arrays, tensors and lists of samples are left to the processor.
            rate = self.processor.feature_extractor.sampling_rate
            clips = flatten_audio(inputs["audio"])
            clips = [
                clip if is_waveform(clip) else media.load_audio(source_of(clip), sampling_rate=rate) for clip in clips
            ]
            inputs = {**inputs, "audio": clips}
        return super().preprocess(inputs, **kwargs)
