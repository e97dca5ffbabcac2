"""`ImageProcessingTestMixin` of transformers on the image processor."""

import unittest

from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers_tests.test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin

import transformers_omnivinci


class OmniVinciImageProcessingTester(ImageProcessingTester):
    """Images that make one tile each: the tests count images, not tiles."""

    def __init__(self, parent, **kwargs):
        kwargs.setdefault("s2_scales", [18])
        kwargs.setdefault("max_tiles", 1)
        kwargs.setdefault("size", {"height": 18, "width": 18})
        super().__init__(parent, **kwargs)

    def _get_image_processing_classes(self) -> dict:
        # The mixin looks for the model in the name of the folder of this file.
        names = IMAGE_PROCESSOR_MAPPING_NAMES["omnivinci"]
        return {backend: getattr(transformers_omnivinci, name) for backend, name in names.items()}


class OmniVinciImageProcessingTest(ImageProcessingTestMixin, unittest.TestCase):
    """The common tests of an image processor."""

    image_processor_tester_class = OmniVinciImageProcessingTester
    test_cast_dtype = True
