"""`ProcessorTesterMixin` of transformers on the processor of a tiny checkpoint in the published layout."""

import unittest
import unittest.mock
from pathlib import Path

import torch
from transformers_tests.test_processing_common import ProcessorTesterMixin

from transformers_omnivinci import OmniVinciProcessor

CHECKPOINT = Path(__file__).resolve().parent.parent / "tests/fixtures/parity/published-tiny"


class OmniVinciProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    """The common tests of a processor."""

    processor_class = OmniVinciProcessor
    model_id = str(CHECKPOINT)
    # A window of sound is 750 tokens.
    audio_text_kwargs_max_length = audio_processor_tester_max_length = audio_unstructured_max_length = 800

    @staticmethod
    def prepare_processor_dict() -> dict:
        return {"max_audio_duration": 3600.0, "load_audio_from_video": True}

    @staticmethod
    def does_processor_return_mm_offsets(processor_class, method_name) -> bool:
        return True  # by a `__call__` of its own, without the methods that the tests look for

    @property
    def video_sampling_expectations(self) -> list[dict]:
        return [
            {"num_frames": 3, "fps": None, "expected_dim": 0, "output_length": 3},
            {"num_frames": None, "fps": 10, "expected_dim": 0, "output_length": 4},
            {"do_sample_frames": False, "fps": 10, "expected_dim": 0, "output_length": 11},
            {"do_sample_frames": False, "expected_dim": 0, "output_length": 11},
            {"expected_dim": 0, "output_length": 8},
        ]

    def _test_apply_chat_template(self, modality: str, *arguments):
        """As in transformers, which is told the rows of `pixel_values` and `pixel_values_videos` by names it knows."""

        def call(processor, *args, **kwargs):
            inputs = original(processor, *args, **kwargs)
            if "image_grid_hw" in inputs:
                squares = sum((scale // 56) ** 2 for scale in processor.image_processor.s2_scales[:-1])
                rows = torch.as_tensor(inputs["image_grid_hw"]).prod(1) + squares
                inputs["image_grid_thw"] = torch.stack((rows, torch.ones_like(rows), torch.ones_like(rows)), dim=1)
            if "video_timestamps" in inputs:
                inputs["num_frames_per_video"] = (inputs["video_timestamps"] >= 0).sum(1)
            return inputs

        original = OmniVinciProcessor.__call__
        with unittest.mock.patch.object(OmniVinciProcessor, "__call__", call):
            super()._test_apply_chat_template(modality, *arguments)


class OmniVinciSingleTileProcessorTest(OmniVinciProcessorTest):
    """The same where an image is one tile, as the tests expect of it."""

    @classmethod
    def _setup_from_pretrained(cls, model_id, **kwargs):
        processor = super()._setup_from_pretrained(model_id, **kwargs)
        processor.image_processor.s2_scales, processor.image_processor.max_tiles = [56], 1
        return processor
