"""What a published checkpoint says is done, replaced by an option, or refused; nothing is dropped in silence."""

import json
from pathlib import Path
from unittest.mock import patch

import pytest
from transformers import AutoFeatureExtractor, AutoProcessor, AutoTokenizer, pipeline

# Which transformers hides without torchvision, the first in some versions.
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from typer.testing import CliRunner

from transformers_omnivinci import OmniVinciConfig, OmniVinciProcessor
from transformers_omnivinci.cli import app
from transformers_omnivinci.conversion import settings as settings_module
from transformers_omnivinci.conversion.settings import read_settings
from transformers_omnivinci.processing.processing_omnivinci import OmniVinciBatchFeature
from transformers_omnivinci.training import SampleEncoder
from transformers_omnivinci.training.data import Sample

from .conftest import CLIP, PARITY
from .media_samples import audio_item, render, sound, user, video

PUBLISHED = PARITY / "published-tiny"
OPTIONS = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "num_frames": 2}
CHAT = user({"type": "video", "video": CLIP}, "What?")


def change(folder: Path, file: str = "config.json", **values) -> Path:
    """Sets keys of a config; `...` takes one out."""
    config = json.loads((folder / file).read_text()) | values
    (folder / file).write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    return folder


def change_encoder(folder: Path, name: str, **values) -> Path:
    encoder = json.loads(json.loads((folder / "config.json").read_text())[name])
    return change(folder, **{name: json.dumps(encoder | values)})


def is_heard(inputs: OmniVinciBatchFeature) -> bool:
    assert inputs["video_has_audio"].tolist() == ["input_features" in inputs]
    return "input_features" in inputs


# ------------------------------------------------------------------------------------------------- the sound of videos


@pytest.fixture
def deaf(checkpoint):
    """The processor of a checkpoint that says that videos are seen alone."""
    return AutoProcessor.from_pretrained(change(checkpoint, load_audio_in_video=False))


@pytest.mark.parametrize(
    "said, is_hearing", [(True, True), ("True", True), (False, False), (None, False), ("None", False), (..., False)]
)
def test_the_checkpoint_says_whether_videos_are_heard(checkpoint, tmp_path, said, is_hearing):
    processor = AutoProcessor.from_pretrained(change(checkpoint, load_audio_in_video=said))
    assert is_heard(processor.apply_chat_template(CHAT, **OPTIONS)) == is_hearing
    processor.save_pretrained(tmp_path / "saved")
    for again in (AutoProcessor, OmniVinciProcessor):
        assert again.from_pretrained(tmp_path / "saved").load_audio_from_video == is_hearing
    opposite = AutoProcessor.from_pretrained(checkpoint, load_audio_from_video=not is_hearing)
    assert is_heard(opposite.apply_chat_template(CHAT, **OPTIONS)) != is_hearing


@pytest.mark.parametrize("is_hearing", [True, False], ids=["heard", "silent"])
def test_every_call_follows_the_checkpoint_and_may_say_otherwise(processor, deaf, is_hearing):
    processor = processor if is_hearing else deaf
    prompt = processor.apply_chat_template(CHAT)
    lengths = {}
    for said in (None, True, False):
        options = {} if said is None else {"load_audio_from_video": said}
        chat = processor.apply_chat_template(CHAT, add_generation_prompt=True, **OPTIONS, **options)
        nested = processor.apply_chat_template(CHAT, **OPTIONS, processor_kwargs=options)
        direct = processor(text=prompt, videos=[CLIP], num_frames=2, return_tensors="pt", **options)
        of_videos = processor(
            text=prompt, videos=[CLIP], return_tensors="pt", videos_kwargs={"num_frames": 2, **options}
        )
        assert {is_heard(one) for one in (chat, nested, direct, of_videos)} == {is_hearing if said is None else said}
        lengths[said] = processor.count_tokens(CHAT, num_frames=2, **options)
        assert lengths[said] == chat["input_ids"].shape[1]
        assert direct["input_ids"].shape[1] == processor.count_tokens(prompt, videos=[CLIP], num_frames=2, **options)
    assert lengths[None] == lengths[is_hearing] != lengths[not is_hearing]


def test_what_has_no_track_stays_a_picture(processor, tmp_path):
    render(tmp_path / "silent.mp4", num_frames=8)
    for source in (str(tmp_path / "silent.mp4"), video()):
        assert not is_heard(processor.apply_chat_template(user({"type": "video", "video": source}, "?"), **OPTIONS))


def test_clips_of_their_own_stand_beside_videos_that_the_checkpoint_hears(processor):
    chat = user({"type": "video", "path": CLIP}, audio_item(), "?")
    expected = processor.apply_chat_template(chat, **OPTIONS)
    prompt = processor.apply_chat_template(chat)
    given = processor(text=prompt, videos=[CLIP], audio=[sound()], num_frames=2, return_tensors="pt")
    assert given["audio_from_video"].tolist() == [True, False]
    assert given["input_ids"].tolist() == expected["input_ids"].tolist()
    with pytest.raises(ValueError, match="audio_from_video_indices"):
        processor(text=prompt, videos=[CLIP], audio=[sound()], load_audio_from_video=True)


@pytest.mark.parametrize("task", ["video-text-to-text", "any-to-any"])
@pytest.mark.parametrize("is_hearing", [True, False], ids=["heard", "silent"])
def test_pipelines_follow_the_checkpoint(model, processor, deaf, task, is_hearing):
    pipe = pipeline(task, model=model, processor=processor if is_hearing else deaf)
    if task == "video-text-to-text":
        pipe.memory.max_bytes = 0  # so that all tensors reach the model
    with patch.object(pipe, "_forward", wraps=pipe._forward) as forward:
        for options in ({}, {"load_audio_from_video": not is_hearing}):
            pipe(text=CHAT, max_new_tokens=1, num_frames=2, **options)
    assert [is_heard(call.args[0]) for call in forward.call_args_list] == [is_hearing, not is_hearing]


def test_training_follows_the_checkpoint(processor, deaf):
    chat = [*CHAT, {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]}]
    for one, is_hearing in ((processor, True), (deaf, False)):
        for said in (None, not is_hearing):
            encoder = SampleEncoder(one, load_audio_from_video=said, num_frames=2)
            sample = Sample(id="0", messages=chat)
            wanted = is_hearing if said is None else said
            assert is_heard(encoder.encode(sample)) == wanted
            assert ("audio" in encoder.measure(sample).modalities) == wanted


def test_the_command_follows_the_checkpoint(checkpoint):
    change(checkpoint, load_audio_in_video=False)
    for arguments, is_hearing in (((), False), (("--audio",), True)):
        output = CliRunner().invoke(app, ["timeline", CLIP, "--model", str(checkpoint), *arguments]).output
        assert ("no sound" not in output) == is_hearing


def test_nano_hears(tmp_path):
    from transformers_omnivinci import NANO

    assert is_heard(AutoProcessor.from_pretrained(NANO).apply_chat_template(CHAT, **OPTIONS))


# ------------------------------------------------------------------------------------------------------------ settings

REFUSED = {
    "fps": 2.0,
    "num_time_tokens": 100,
    "s2": True,
    "mm_use_im_start_end": True,
    "mm_use_im_patch_token": "True",
    "video_max_tiles": 4,
    "vision_resolution": 384,
    "speech_tower_cfg": {"model_type": "whisper"},
    "quantize_model": "fp8Linear_qwen2",
    "mm_patch_merge_type": "spatial_unpad",
    "chat_template": "mistral",
    "load_audio_in_video": "sometimes",
}


@pytest.mark.parametrize("key", REFUSED)
def test_a_setting_that_would_change_what_is_computed_is_refused(checkpoint, key):
    change(checkpoint, **{key: REFUSED[key]})
    for load in (OmniVinciConfig.from_pretrained, AutoProcessor.from_pretrained):
        with pytest.raises(ValueError, match=f"`{key}={REFUSED[key]!r}`.*supported are .*None") as error:
            load(checkpoint)
        assert str(error.value).count("supported are") == 1


@pytest.mark.parametrize(
    "name, values",
    [
        ("image_encoder", {"embed_time": "True"}),
        ("video_encoder", {"frame_pos_embed": 8}),
        ("sound_encoder", {"pool_sizes": [[2, 1, 1]]}),
    ],
)
def test_an_unknown_argument_of_an_encoder_is_refused(checkpoint, name, values):
    [key] = values
    with pytest.raises(ValueError, match=f"`{name}.{key}="):
        OmniVinciConfig.from_pretrained(change_encoder(checkpoint, name, **values))


@pytest.mark.parametrize("values", [{"resample": 2}, {"do_normalize": False}, {"do_center_crop": True}])
def test_pixels_that_are_made_otherwise_are_refused(checkpoint, values):
    [key] = values
    with pytest.raises(ValueError, match=f"{key}={values[key]!r}.*supported are"):
        AutoProcessor.from_pretrained(change(checkpoint, "vision_tower/preprocessor_config.json", **values))


def test_values_that_change_nothing_pass(checkpoint):
    """Also those of leftovers that releases of the family carry."""
    leftovers = dict.fromkeys(REFUSED) | {
        **{"time_token_format": "<t{t}>", "time_token_ids": [], "quantize_model": "false", "Ubit": "100"},
        **{"fabit": "E4M3", "row_blocksize": -1, "qchoice": "none", "symm": True, "refine_ln_pertoken": False},
        **{"video_max_tiles": 1, "vision_resolution": -1, "s2": "False", "fps": 0.0, "num_time_tokens": 0},
        **{"soft_ce_std": 1.0, "sound_tower_lr": 1e-5, "interpolate_mode": "linear", "chat_template": "qwen2"},
        **{"model_name_or_path": "./x", "use_cache": True, "max_length": 20, "drop_path_rate": 0.1},
        **{"_attn_implementation_autoset": True, "weight_memory_efficient": True},
    }
    change(checkpoint, **leftovers)
    change_encoder(checkpoint, "sound_encoder", embed_time="False")
    settings = read_settings(checkpoint)
    assert not settings.refused and not settings.unknown


def test_an_unknown_setting_is_told(checkpoint, monkeypatch):
    told = []
    monkeypatch.setattr(settings_module.logger, "warning_once", told.append)
    AutoProcessor.from_pretrained(change(checkpoint, frame_mixer="gated", temporal_heads=4, spare=None))
    [sentence] = told
    assert "`frame_mixer='gated'`" in sentence and "`temporal_heads=4`" in sentence and "spare" not in sentence
    output = CliRunner().invoke(app, ["convert", str(checkpoint), str(checkpoint / "out"), "--dry-run"]).output
    assert "config.json: temporal_heads = 4" in output.replace("\n", "")


# ------------------------------------------------------------------------------------------------------------- options


@pytest.fixture(scope="module")
def saved(load_checkpoint, tmp_path_factory):
    """The same processor in the transformers layout."""
    folder = tmp_path_factory.mktemp("saved")
    load_checkpoint()[1].save_pretrained(folder)
    return folder


OF_PROCESSOR = {
    "frames": {"num_frames": 3},
    "rate": {"fps": 2.0, "num_frames": None, "max_frames": 9},
    "pixels": {"image_mean": [0.1, 0.2, 0.3], "s2_scales": [56, 112], "max_tiles": 4},
    "tokenizer": {"padding_side": "right", "model_max_length": 77, "truncation_side": "left"},
    "template": {"chat_template": "{{ messages[0]['content'] }}"},
    "own": {"group_duration": 7.0, "use_media_brackets": True, "load_audio_from_video": False},
    "sound": {"max_audio_duration": 5.0, "hop_length": 400},
}


@pytest.mark.parametrize("options", OF_PROCESSOR.values(), ids=OF_PROCESSOR)
@pytest.mark.parametrize("auto_class", [AutoProcessor, OmniVinciProcessor])
def test_options_act_as_in_the_transformers_layout(auto_class, saved, options):
    published, expected = (auto_class.from_pretrained(folder, **options) for folder in (PUBLISHED, saved))
    assert published.to_dict() == expected.to_dict()
    assert published.chat_template == expected.chat_template
    assert _of_tokenizer(published.tokenizer) == _of_tokenizer(expected.tokenizer)
    assert published.tokenizer.name_or_path == str(PUBLISHED / "llm")


def _of_tokenizer(tokenizer) -> dict:
    names = ("padding_side", "truncation_side", "model_max_length", "chat_template", "special_tokens_map")
    return {"length": len(tokenizer), **{name: getattr(tokenizer, name) for name in names}}


@pytest.mark.parametrize(
    "auto_class, options",
    [
        (AutoImageProcessor, {"max_tiles": 3, "image_std": [0.2, 0.2, 0.2]}),
        (AutoVideoProcessor, {"num_frames": 5, "do_sample_frames": False}),
        (AutoFeatureExtractor, {"hop_length": 400, "dither": 0.1}),
        (AutoTokenizer, {"padding_side": "right", "model_max_length": 99}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_auto_classes_of_the_parts_find_them(auto_class, options, saved):
    def said(part):
        return _of_tokenizer(part) if auto_class is AutoTokenizer else part.to_dict()

    for given in ({}, options):
        published, expected = (auto_class.from_pretrained(folder, **given) for folder in (PUBLISHED, saved))
        assert type(published) is type(expected) and said(published) == said(expected)
    if auto_class is not AutoTokenizer:
        _, unused = auto_class.from_pretrained(PUBLISHED, unheard_of=1, return_unused_kwargs=True)
        assert unused["unheard_of"] == 1


def test_unused_options_come_back_or_are_refused(saved):
    for folder in (PUBLISHED, saved):
        for auto_class in (AutoProcessor, OmniVinciProcessor):
            with pytest.raises(ValueError, match="`not_an_option`: neither the processor nor a part"):
                auto_class.from_pretrained(folder, num_frames=3, not_an_option=1)
        processor, unused = OmniVinciProcessor.from_pretrained(
            folder, num_frames=3, not_an_option=1, return_unused_kwargs=True
        )
        assert processor.video_processor.num_frames == 3 and unused == {"not_an_option": 1}


SEQUENCES = {
    "negative": ({"group_duration": -1}, ValueError, ["group_duration", "-1", "positive"]),
    "infinite": ({"group_duration": float("inf")}, ValueError, ["group_duration", "inf", "positive"]),
    "a word": ({"group_duration": "long"}, TypeError, ["group_duration", "long"]),
    "no bool": ({"interleave_audio_in_video": "yes"}, TypeError, ["interleave_audio_in_video", "yes"]),
    "no text": ({"image_start_tokens": 7}, TypeError, ["image_start_tokens", "7"]),
    "both ends": ({"video_end_tokens": "\n"}, ValueError, ["video_end_tokens", "interleave_audio_in_video"]),
}


@pytest.mark.parametrize("values, error, words", SEQUENCES.values(), ids=SEQUENCES)
def test_a_sequence_that_cannot_be_laid_out_is_refused(processor, saved, values, error, words):
    parts = [getattr(processor, name) for name in processor.get_attributes()]
    for make in (
        lambda: OmniVinciProcessor(*parts, **values),
        lambda: OmniVinciProcessor.from_pretrained(saved, **values),
        lambda: AutoProcessor.from_pretrained(PUBLISHED, **values),
    ):
        with pytest.raises(error) as raised:
            make()
        assert all(word in str(raised.value) for word in words)


def test_settings_of_the_sequence_stay_with_the_processor(saved, tmp_path):
    ends = {"video_end_tokens": "\n", "interleave_audio_in_video": False}
    for folder in (PUBLISHED, saved):
        processor = AutoProcessor.from_pretrained(folder, **ends)
        processor.save_pretrained(tmp_path)
        assert "\n" == AutoProcessor.from_pretrained(tmp_path).video_end_tokens == processor.video_end_tokens
        assert not processor.tokenizer.init_kwargs.keys() & ends.keys()
