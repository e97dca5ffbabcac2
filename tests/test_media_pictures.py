"""Pictures as they are meant: upright, with their black and white, on white ground, in SDR, and not too large."""

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import AutoProcessor

from transformers_omnivinci import media
from transformers_omnivinci.media.levels import PQ, tone_map

from .media_files import image_bytes, read_number, read_numbers, render_frame, set_display_matrix, write_video
from .media_samples import user

NUMBER = 1234
FRAME = render_frame(NUMBER)


def video_of(processor, frames, **options) -> media.LoadedVideo:
    (video,) = processor.video_processor.load_videos([(frames, {"fps": 2.0})], do_resize=False, **options)
    return video


def pixels_of(processor, image, **options) -> torch.Tensor:
    return processor.image_processor(image, **options)["pixel_values"]


# --------------------------------------------------------------------------------------------------------- orientation

# By the numbers of the display matrix: what a camera has stored, if the picture is to be upright after them.
MATRICES = {
    (1, 0, 0, 1): lambda upright: upright,
    (-1, 0, 0, 1): lambda upright: upright[:, ::-1],
    (1, 0, 0, -1): lambda upright: upright[::-1],
    (-1, 0, 0, -1): lambda upright: upright[::-1, ::-1],
    (0, 1, 1, 0): lambda upright: upright.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    (0, 1, -1, 0): lambda upright: upright[:, ::-1].transpose(1, 0, 2),
    (0, -1, 1, 0): lambda upright: upright[::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_videos_are_shown_in_any_of_eight_orientations(matrix, backend, tmp_path):
    if backend == "decord":
        pytest.importorskip("decord", reason="decord has no wheels for this platform")
    stored = np.ascontiguousarray(MATRICES[matrix](FRAME))
    path = write_video(tmp_path / "a.mp4", 2, size=stored.shape[1::-1], pictures=[stored] * 2)
    path.write_bytes(set_display_matrix(path.read_bytes(), matrix))
    video = media.load_video(path, backend=backend)
    assert read_numbers(video.frames) == [NUMBER] * 2
    metadata = media.probe_video(path)
    assert (metadata.height, metadata.width) == (video.metadata.height, video.metadata.width) == (96, 128)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_images_are_counted_as_they_are_loaded(format, processor):
    for orientation in range(1, 9):
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        content = image_bytes(PIL.Image.fromarray(FRAME), format, exif=exif)
        size = media.load_image(content).size[::-1]
        assert size == ((128, 96) if orientation > 4 else (96, 128))
        with media.images.open_image(content, 0) as (opened, _):
            for image in (content, opened):
                assert media.probe_image(image) == size
                chat = user({"type": "image", "image": image}, "?")
                inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True)
                length = processor.count_tokens(chat, add_generation_prompt=False)
                assert length == len(inputs["input_ids"][0])
                video = video_of(processor, [image] * 2)
                assert tuple(video.frames.shape[-2:]) == size == (video.metadata.height, video.metadata.width)


# ----------------------------------------------------------------------------------------------------- black and white

TENSOR = torch.from_numpy(FRAME)
ARRAYS = {
    "float32 of 255": FRAME.astype(np.float32),
    "float32 of 65535": FRAME * np.float32(257),
    "float64 of 1": FRAME / 255,
    "float16 of 1": (FRAME / 255).astype(np.float16),
    "bfloat16 of 1": (TENSOR / 255).bfloat16(),
    "half of 1, channels first": (TENSOR / 255).half().permute(2, 0, 1),
    "overshot, black and white": np.where(FRAME > 99, 1.02, -0.02),
    "uint16": FRAME.astype(np.uint16) * 257,
    "big-endian": (FRAME.astype(np.uint16) * 257).astype(">u2"),
    "int64 of 65535": FRAME.astype(np.int64) * 257,
    "int32 of 255": torch.from_numpy(FRAME.astype(np.int32)),
    "bool, black and white": FRAME > 99,
    "bool, black and white, channels first": (FRAME[..., 0] > 99)[None],
    "grey": FRAME[..., 0] / 255,
    "with opaque alpha": np.concatenate([FRAME / 255, np.ones((96, 128, 1))], axis=2),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_tell_black_and_white_by_dtype_and_range(name, processor):
    pixels = ARRAYS[name]
    expected = pixels_of(processor, np.where(FRAME > 99, np.uint8(255), np.uint8(0)) if "white" in name else FRAME)
    assert (pixels_of(processor, pixels) - expected).abs().max() < (0.02 if "float16" in name else 1e-6)
    stack = [pixels] * 2
    if pixels.ndim == 3:
        stack = torch.stack(stack) if isinstance(pixels, torch.Tensor) else np.stack(stack)
    for frames in ([pixels] * 2, stack, [pixels, FRAME]):
        assert read_numbers(video_of(processor, frames).frames) == [NUMBER] * 2


@pytest.mark.parametrize(
    ("pixels", "error", "words"),
    [
        (FRAME / 127.5 - 1, ValueError, "float64` from -0.6.* floats from 0 to 1"),
        (np.where(FRAME > 99, np.nan, 0.5), ValueError, "nan"),
        (np.where(FRAME > 99, np.inf, 0.5), ValueError, "inf"),
        (FRAME.astype(np.int32) * 1000, ValueError, "216000"),
        (-FRAME.astype(np.int16), ValueError, "int16` from -216"),
        (FRAME.astype(complex), TypeError, "complex"),
        (FRAME.astype(str), TypeError, "<U"),
        (FRAME.astype(object), TypeError, "object"),
    ],
    ids=["-1 to 1", "NaN", "inf", "1000", "negative", "complex", "text", "objects"],
)
def test_values_that_are_not_understood_are_refused(pixels, error, words, processor):
    for given in ({"images": pixels}, {"images": [pixels]}):
        with pytest.raises(error, match=words):
            processor(text="<image>", **given)
    for video in ([pixels] * 2, np.stack([pixels] * 2)):
        with pytest.raises(error, match=words):
            processor(text="<vila/video>", videos=[(video, {"fps": 1.0})])


@pytest.mark.parametrize("pixels", [FRAME.astype(np.uint16) * 16, FRAME / 64, FRAME[..., 0].astype(np.int64) // 200])
def test_what_would_be_nearly_black_is_warned_of(pixels, processor):
    with pytest.warns(UserWarning, match="nearly black"):
        pixels_of(processor, pixels)


def test_all_frames_of_a_clip_have_one_white(processor, tmp_path):
    dark = np.full_like(FRAME, 1)
    for scale, dtype in ((1, np.float32), (257, np.uint16)):
        clip = [dark.astype(dtype), FRAME.astype(dtype) * dtype(scale)]
        for frames in (clip, np.stack(clip)):
            first, second = video_of(processor, frames).frames
            assert first.max() <= 1 and read_number(second) == NUMBER
    images = [PIL.Image.fromarray(pixels[..., 0].astype(np.float32)) for pixels in (dark, FRAME)]
    assert [image.mode for image in images] == ["F", "F"]
    first, second = video_of(processor, images).frames
    assert first.max() <= 1 and read_number(second) == NUMBER
    pages = image_bytes(images[0], "TIFF", save_all=True, append_images=images[1:])
    first, second = media.load_video(pages).frames
    assert first.max() <= 1 and read_number(second) == NUMBER


def test_values_that_are_not_rescaled_are_taken_as_they_are(processor):
    expected = pixels_of(processor, FRAME)
    floats = FRAME / np.float32(255)
    assert (pixels_of(processor, floats, do_rescale=False) - expected).abs().max() < 0.01
    video = processor.video_processor([(np.stack([floats] * 2), {"fps": 1.0})], do_rescale=False)
    rescaled = processor.video_processor([(np.stack([FRAME] * 2), {"fps": 1.0})])
    assert (video["pixel_values_videos"] - rescaled["pixel_values_videos"]).abs().max() < 0.02


@pytest.mark.parametrize("low_high", [(0.1, 0.9), (25, 230), (6000, 60_000)])
def test_float_images_of_any_range(low_high, tmp_path):
    low, high = low_high
    image = PIL.Image.fromarray(np.where(FRAME[..., 0] > 99, high, low).astype(np.float32))
    for source in (image, image_bytes(image, "TIFF")):
        assert read_number(media.load_image(source)) == NUMBER
    (tmp_path / "depth.tif").write_bytes(
        image_bytes(PIL.Image.fromarray(np.array([[-300.0, 800.0]], np.float32)), "TIFF")
    )
    with pytest.raises(ValueError, match="depth.tif.*from -300 to 800"):
        media.load_image(tmp_path / "depth.tif")


MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I", "I;16", "F")


@pytest.mark.parametrize("mode", MODES)
def test_frames_of_any_mode_take_the_road_of_images(mode, processor):
    image = PIL.Image.fromarray(FRAME)
    for step in {"La": ("LA", "La"), "PA": ("LA", "PA"), "RGBa": ("RGBA", "RGBa"), "I;16": ()}.get(mode, (mode,)):
        image = image.convert(step)
    if mode == "I;16":
        image = PIL.Image.fromarray(FRAME[..., 0].astype(np.uint16) * 257)
    assert image.mode == mode
    loaded = media.load_image(image)
    assert read_number(loaded) == NUMBER
    assert torch.equal(pixels_of(processor, image), pixels_of(processor, np.asarray(loaded)))
    for frame in video_of(processor, [image] * 2).frames:
        assert np.array_equal(frame.permute(1, 2, 0).numpy(), np.asarray(loaded))


# -------------------------------------------------------------------------------------------------------- transparency


def writing(mode: str) -> PIL.Image.Image:
    """Black on a transparent ground that is black too."""
    alpha = np.zeros((96, 128), np.uint8)
    alpha[40:56, 30:90] = 255
    image = PIL.Image.new("RGBA", (128, 96))
    image.putalpha(PIL.Image.fromarray(alpha))
    if mode == "P":
        image = PIL.Image.fromarray(alpha // 255).convert("P")
        image.putpalette([0, 0, 0] * 256)
        image.info["transparency"] = 0
        return image
    if mode == "RGB":  # one colour of the file is transparent
        image = PIL.Image.fromarray(np.where(alpha[..., None] > 0, 0, np.uint8([1, 2, 3])).astype(np.uint8))
        image.info["transparency"] = (1, 2, 3)
        return image
    if mode == "PA":
        image = PIL.Image.new("P", (128, 96))
        image.putalpha(PIL.Image.fromarray(alpha))
        return image
    return image if mode == "RGBA" else image.convert("LA") if mode == "LA" else image.convert("LA").convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "La", "PA", "P", "RGB"])
def test_transparent_images_are_composed_on_white(mode, processor):
    image = writing(mode)
    given = [image, *([image_bytes(image)] if mode in ("RGBA", "LA", "P", "RGB") else [])]
    for source in given:
        assert set(np.unique(media.load_image(source))) == {0, 255}
        assert set(np.unique(media.load_image(source, transparency="drop"))) <= {0, 1, 2, 3}
        assert len(pixels_of(processor, source).unique()) > 1
        assert pixels_of(processor, source, transparency="drop").max() < -0.97
        assert video_of(processor, [source] * 2).frames.unique().tolist() == [0, 255]
        assert video_of(processor, [source] * 2, transparency="drop").frames.max() <= 3


def test_transparent_arrays_and_animations_are_composed_on_white(processor):
    pixels = np.asarray(writing("RGBA"))
    for array in (pixels, torch.tensor(pixels).permute(2, 0, 1), pixels / np.float32(255)):
        assert pixels_of(processor, array).max() == 1
        assert pixels_of(processor, array, transparency="drop").max() == -1
    half = np.full((8, 8, 4), 128, np.uint8)
    assert video_of(processor, [half]).frames.unique().tolist() == [191]
    frames = [writing("RGBA"), writing("RGBA").transpose(PIL.Image.Transpose.ROTATE_180)]
    for format in ("WEBP", "PNG", "GIF"):
        content = image_bytes(frames[0], format, save_all=True, append_images=frames[1:], disposal=2, duration=100)
        if format == "WEBP":  # Pillow does not write down that there is alpha
            content = content[:20] + bytes([content[20] | 0x10]) + content[21:]
        for transparency, brightest in (("white", 255), ("drop", 0)):
            video = media.load_video(content, transparency=transparency)
            assert len(video.frames) == 2 and (video.frames[:, :, 0, 0] == brightest).all()


def test_what_becomes_of_transparency_is_saved(processor, tmp_path):
    assert processor.image_processor.transparency == processor.video_processor.transparency == "white"
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    loaded.image_processor.transparency = loaded.video_processor.transparency = "drop"
    loaded.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert pixels_of(loaded, writing("RGBA")).max() == -1
    assert video_of(loaded, [writing("RGBA")]).frames.max() == 0
    for processor_part in (loaded.image_processor, loaded.video_processor):
        with pytest.raises(ValueError, match="transparency='black'.*'white' and 'drop'"):
            processor_part([writing("RGBA")], transparency="black")


# ----------------------------------------------------------------------------------------------------------------- HDR


def hdr_clip(path, signal: float, transfer: int):
    """Two grey frames."""
    picture = np.full((64, 64, 3), round(255 * signal), np.uint8)
    color = {"color_trc": transfer, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    return write_video(path, 2, size=(64, 64), pictures=[picture] * 2, color=color)


@pytest.mark.parametrize(
    ("transfer", "signal", "low", "high"),
    [
        (16, 0.58, 225, 235),  # PQ of 203 cd/m2, white paper
        (18, 0.75, 225, 235),  # HLG of the same
        (16, 0.75, 253, 255),  # 1000 cd/m2
        (18, 1.0, 253, 255),
        (16, 0.38, 100, 116),  # 26 cd/m2, the grey card of BT.2408: as bright as it is meant
        (18, 0.38, 100, 116),
        (14, 0.58, 143, 153),  # BT.2020 in SDR
        (1, 0.58, 143, 153),
    ],
)
def test_hdr_is_shown_as_sdr(transfer, signal, low, high, tmp_path):
    path = hdr_clip(tmp_path / "a.mp4", signal, transfer)
    assert low <= media.load_video(path).frames.float().mean() <= high
    if transfer in (16, 18):
        pytest.importorskip("decord", reason="decord has no wheels for this platform")
        with pytest.warns(UserWarning, match="a.mp4.*HDR.*'decord'"):
            media.load_video(path, backend="decord")


@pytest.mark.parametrize("light", [(0.5, 0.1, 0.1), (0.1, 0.4, 0.1), (0.05, 0.1, 0.4)])
def test_hdr_keeps_colours(light):
    """Light in BT.709, of which 1 is white paper, coded as BT.2020 in PQ, and back."""
    to_bt2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    power = (to_bt2020 @ light * 203 / 10_000) ** (2610 / 16384)
    signal = ((3424 + 2413 * 32 * power) / (4096 + 2392 * 32 * power)) ** (2523 / 32)
    pixel = np.round(signal * 65535).astype(np.uint16)[None, None]
    expected = 255 * np.array(light) ** (1 / 2.4)
    assert np.abs(tone_map(pixel, PQ)[0, 0] - expected).max() < 4


# ---------------------------------------------------------------------------------------------------------------- size


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_images_beyond_pillows_limit_are_refused_with_its_reason(format, processor, tmp_path, monkeypatch):
    frames = [PIL.Image.fromarray(render_frame(number)) for number in range(2)]
    animated = {"save_all": True, "append_images": frames[1:]} if format in ("GIF", "PNG", "WEBP", "TIFF") else {}
    for name in ("0.img", "1.img"):
        (tmp_path / name).write_bytes(image_bytes(frames[0], format, **animated))
    path = str(tmp_path / "0.img")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 5000)
    items = [
        {"type": "image", "path": path},
        {"type": "video", "path": path},
        {"type": "video", "video": [path, path]},
        {"type": "video", "video": str(tmp_path)},
    ]
    for item in items:
        for read in (processor.count_tokens, lambda chat: processor.apply_chat_template(chat, tokenize=True)):
            with pytest.raises(ValueError, match=r"0.img.*12288 pixels.*limit.*MAX_IMAGE_PIXELS"):
                read(user(item, "?"))
    for read in (media.load_image, media.probe_image, media.load_video, media.probe_video):
        with pytest.raises(ValueError, match="exceeds limit of 10000 pixels"):
            read(path)
