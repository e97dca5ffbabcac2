"""Still and animated images, and folders of them."""

import numpy as np
import PIL.Image
import pytest

from transformers_omnivinci import media

from .media_clips import pick
from .media_files import BRIGHT, image_bytes, read_number, read_numbers, render_frame, write_animation

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("no_leftovers")]


@pytest.mark.parametrize("suffix, options", [("gif", {}), ("webp", {"lossless": True}), ("png", {})])
@pytest.mark.parametrize("durations", [[100] * 12, [40, 200, 1000, 50, 90, 60]])
def test_animated_images(tmp_path, suffix, options, durations):
    path = write_animation(tmp_path / f"animation.{suffix}", durations, **options)
    video = media.load_video(path, load_audio=True)
    assert read_numbers(video.frames) == list(range(len(durations)))
    assert video.waveform is None and video.metadata.video_backend == "pillow"
    times = np.cumsum([0, *durations]) / 1000
    assert video.metadata.timestamps == pytest.approx(times[:-1])
    assert (video.metadata.frame_times is None) == (len(set(durations)) == 1)
    assert video.metadata.duration == pytest.approx(times[-1])
    assert video.metadata.fps == pytest.approx(len(durations) / times[-1])
    assert (video.metadata.width, video.metadata.height) == (64, 48)
    part = media.load_video(path, video_start=times[2] + 0.01, video_end=times[5], sample_indices_fn=pick([0, 2, 2]))
    assert read_numbers(part.frames) == [2, 4, 4]
    assert part.metadata.timestamps == pytest.approx([0, times[4] - times[2], times[4] - times[2]])


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_still_image_is_a_video_of_one_frame(format):
    video = media.load_video(image_bytes(PIL.Image.fromarray(render_frame(99)), format))
    assert read_numbers(video.frames) == [99] and video.metadata.timestamps == [0]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F"])
def test_image_modes(mode):
    image = PIL.Image.fromarray(render_frame(1234))
    if mode == "I;16":
        image = PIL.Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 256 + 77)
    elif mode in ("LA", "RGBA"):
        image.putalpha(PIL.Image.new("L", image.size, 255))
        image = image.convert(mode)
    else:
        image = image.convert(mode)
    given_mode = image.mode
    loaded = media.load_image(image)
    assert loaded.mode == "RGB" and image.mode == given_mode
    assert read_number(loaded) == 1234
    if mode not in ("1", "P"):
        assert abs(int(np.median(np.asarray(loaded)[:16, 40:60])) - BRIGHT) <= 1
    format = "TIFF" if mode in ("CMYK", "F", "I") else "PNG"
    assert read_number(media.load_image(image_bytes(image, format))) == 1234


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(orientation):
    upright = PIL.Image.fromarray(render_frame(1234))
    # What a camera held that way stores: the inverse of what viewers are asked to do.
    transpose = PIL.Image.Transpose
    stored = {
        1: None,
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_90,
        7: transpose.TRANSVERSE,
        8: transpose.ROTATE_270,
    }[orientation]
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    content = image_bytes(upright if stored is None else upright.transpose(stored), "JPEG", exif=exif, quality=95)
    assert read_number(media.load_image(content)) == 1234
    assert media.probe_image(content) == (96, 128)
    assert read_number(media.load_video(content).frames[0]) == 1234


def test_damaged_images():
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for format in ("PNG", "JPEG", "WEBP", "GIF"):
        content = image_bytes(image, format)[:500]
        for read in (media.load_image, media.load_video):
            with pytest.raises(ValueError, match="500 bytes.*damaged"):
                read(content)


def test_video_is_no_image(clip):
    for read in (media.load_image, media.probe_image):
        with pytest.raises(ValueError, match="plain.mp4.*not an image"):
            read(clip("plain.mp4"))


def test_frames_folder(tmp_path):
    for number in (1, 2, 10, 11, 100):
        PIL.Image.fromarray(render_frame(number)).save(tmp_path / f"frame{number}.{'PNG' if number % 2 else 'bmp'}")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path, str(tmp_path)):
        assert read_numbers([media.load_image(file) for file in media.list_frames_folder(path)]) == [1, 2, 10, 11, 100]
    with pytest.raises(ValueError, match="no image"):
        media.list_frames_folder(tmp_path / "folder.png")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        media.list_frames_folder(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match="notes.txt"):
        media.list_frames_folder(tmp_path / "notes.txt")
