"""Tests of transformers that OmniVinci fails rightly, each with the reason."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """
    Why a test does not apply.

    Attributes:
        why (`str`): What the test takes for granted, and what OmniVinci does instead.
        error (`str`): A part of the failure, so that no other one passes for this.
    """

    why: str
    error: str


NO_GENERATION_MIXIN = Reason(
    "GenerationTesterMixin is in no source distribution; test_generation_omnivinci.py has tests of our own",
    "This model can call `generate` from `GenerationMixin`",
)
SAMPLED_FRAME_FILES = Reason(
    "wants an error where a list of frame files is sampled; OmniVinci samples frames however they are given (the "
    "rest of the test holds)",
    "AssertionError: ValueError not raised",
)
SOUND_WITHOUT_SOURCE = Reason(
    "where torchcodec is installed: marks the track of a video by an audio item without a source; like other omni "
    "models of transformers, OmniVinci takes it by `load_audio_from_video` alone",
    "A content item of type 'audio' has no source",
)

SOUND_BY_DEFAULT = Reason(
    "wants arguments of processors to be none of a call; whether videos are heard is said by a checkpoint, and by "
    "calls that want it otherwise, under the name that transformers has for it",
    "AssertionError: {'load_audio_from_video'} is not false",
)

SOUND_LOADED_LATER = Reason(
    "wants chats to load their sounds, and to tell calls at which rate; here the call itself loads them, at the rate "
    "of the feature extractor",
    "AssertionError: None != 16000",
)
ITEMS_IN_ONE_FORM = Reason(
    "writes a template that reads media under the key that a chat gave them; templates get all items in one form, "
    "with the medium under the name of its modality (messages and items that are objects are read)",
    "'user: image= text=What is this?' != 'user: image=https://example.com/cat.png text=What is this?'",
)
BOTH_NAMES = Reason(
    "wants a warning that `past_key_values` is deprecated; it is accepted as `cache` is, as long as versions of "
    "transformers are supported that know no other name",
    "AssertionError: False is not true",
)

NOT_APPLICABLE: dict[str, Reason] = {
    "OmniVinciModelTest::test_generation_tester_mixin_inheritance": NO_GENERATION_MIXIN,
    "OmniVinciVariantModelTest::test_generation_tester_mixin_inheritance": NO_GENERATION_MIXIN,
    "OmniVinciProcessorTest::test_apply_chat_template_video_frame_sampling": SAMPLED_FRAME_FILES,
    "OmniVinciSingleTileProcessorTest::test_apply_chat_template_video_frame_sampling": SAMPLED_FRAME_FILES,
    "OmniVinciProcessorTest::test_chat_template_audio_from_video": SOUND_WITHOUT_SOURCE,
    "OmniVinciSingleTileProcessorTest::test_chat_template_audio_from_video": SOUND_WITHOUT_SOURCE,
    "OmniVinciProcessorTest::test_chat_template_audio_sampling_rate": SOUND_LOADED_LATER,
    "OmniVinciSingleTileProcessorTest::test_chat_template_audio_sampling_rate": SOUND_LOADED_LATER,
    "OmniVinciProcessorTest::test_chat_template_message_objects": ITEMS_IN_ONE_FORM,
    "OmniVinciSingleTileProcessorTest::test_chat_template_message_objects": ITEMS_IN_ONE_FORM,
    "OmniVinciModelTest::test_bc_cache_name_forward": BOTH_NAMES,
    "OmniVinciVariantModelTest::test_bc_cache_name_forward": BOTH_NAMES,
    "OmniVinciProcessorTest::test_init_arguments_not_in_processor_kwargs": SOUND_BY_DEFAULT,
    "OmniVinciSingleTileProcessorTest::test_init_arguments_not_in_processor_kwargs": SOUND_BY_DEFAULT,
    "OmniVinciProcessorTest::test_get_num_multimodal_tokens_matches_processor_call": Reason(
        "wants two images in a prompt to be as long as each alone; Dynamic S2 tiles an image where it is alone",
        "AssertionError: 32 != 360",
    ),
    "OmniVinciVideoProcessingTest::test_call_sample_frames": Reason(
        "wants an error for more frames than the clip has; as in the release, they are repeated (the rest of the "
        "test holds)",
        "AssertionError: ValueError not raised",
    ),
    "OmniVinciVideoProcessingTest::test_video_processor_from_dict_with_kwargs": Reason(
        "resizes to a shortest edge and crops; tiles of Dynamic S2 are squares, so `size` is a height and a width",
        "!= {'shortest_edge': 20}",
    ),
    "OmniVinciImageProcessingTest::test_call_numpy_4_channels": Reason(
        "wants four channels to be kept; the image encoder takes RGB, and an alpha channel is always dropped",
        "are not supported: tiles are RGB",
    ),
    "OmniVinciImageProcessingTest::test_pil_can_run_without_torchvision": Reason(
        "loads the processor in a process that imports transformers alone, where nothing has registered OmniVinci",
        "ValueError: Unrecognized image processor",
    ),
}
"""By `class::test`."""
