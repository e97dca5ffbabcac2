"""`VideoProcessingTestMixin` of transformers on the video processor."""

import unittest
import unittest.mock

from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers_tests import test_video_processing_common
from transformers_tests.test_video_processing_common import VideoProcessingTestMixin, prepare_video_inputs

from transformers_omnivinci import OmniVinciVideoProcessor


class OmniVinciVideoProcessingTester:
    """Small videos and what becomes of them."""

    batch_size = 5
    num_frames = 8
    num_channels = 3
    side = 18

    def expected_output_video_shape(self, videos) -> tuple[int, ...]:
        return self.num_frames, self.num_channels, self.side, self.side

    def prepare_video_inputs(self, equal_resolution: bool = False, return_tensors: str = "pil") -> list:
        return prepare_video_inputs(
            batch_size=self.batch_size,
            num_frames=self.num_frames,
            num_channels=self.num_channels,
            min_resolution=30,
            max_resolution=80,
            equal_resolution=equal_resolution,
            return_tensors=return_tensors,
        )


class OmniVinciVideoProcessingTest(VideoProcessingTestMixin, unittest.TestCase):
    """The common tests of a video processor."""

    fast_video_processing_class = OmniVinciVideoProcessor
    test_cast_dtype = True

    def setUp(self):
        super().setUp()
        self.video_processor_tester = OmniVinciVideoProcessingTester()
        self._patch(OmniVinciVideoProcessor, "preprocess", _stacked(OmniVinciVideoProcessor.preprocess))
        # Without torchvision, which OmniVinci does not need, transformers exports a placeholder of this name.
        self._patch(test_video_processing_common, "AutoVideoProcessor", AutoVideoProcessor)

    def _patch(self, *arguments):
        patch = unittest.mock.patch.object(*arguments)
        patch.start()
        self.addCleanup(patch.stop)

    @property
    def video_processor_dict(self) -> dict:
        side = self.video_processor_tester.side
        return {"size": {"height": side, "width": side}, "do_sample_frames": False}


def _stacked(preprocess):
    """`preprocess` with frames as the tests want them: (num_videos, num_frames, ...), of videos equally long."""

    def preprocess_and_stack(self, videos, **kwargs):
        outputs = preprocess(self, videos, **kwargs)
        frames = outputs["pixel_values_videos"]
        outputs["pixel_values_videos"] = frames.unflatten(0, (len(outputs["video_timestamps"]), -1))
        return outputs

    return preprocess_and_stack
