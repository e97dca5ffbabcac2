"""What a file is, its content tells, and what it is wanted for: an image, a video, or a frame of one."""

import io
import shutil
import struct

import numpy as np
import PIL.Image
import pytest

from transformers_omnivinci import media

from .media_files import image_bytes, read_number, read_numbers, render_frame, write_animation, write_video


def picture(number: int, size: tuple[int, int] = (128, 96)) -> PIL.Image.Image:
    return PIL.Image.fromarray(render_frame(number, *size))


def numbers_of(processor, videos, **options) -> list[list[int]]:
    """What the frames of each video show."""
    loaded = processor.video_processor.load_videos(videos, do_resize=False, do_sample_frames=False, **options)
    return [read_numbers(video.frames) for video in loaded]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Videos and images of unlike kinds, each of its own numbers."""
    folder = tmp_path_factory.mktemp("kinds")
    write_video(folder / "clip.mp4", 3)
    write_video(folder / "ps", 4, codec="mpeg2video", format="mpeg")
    write_video(folder / "raw.mpeg", 5, codec="mpeg1video", format="mpeg1video")
    write_video(folder / "motion", 6, codec="mjpeg", pix_fmt="yuvj420p", format="mjpeg", options={"qscale": "2"})
    for name, of in (("clip.png", "clip.mp4"), ("clip", "clip.mp4"), ("ps.jpg", "ps"), ("motion.jpg", "motion")):
        shutil.copy(folder / of, folder / name)
    write_animation(folder / "animated.png", [100, 200, 300])
    write_animation(folder / "animated.gif", [100, 200, 300])
    for name, format in (("77.png", "PNG"), ("77.mp4", "BMP"), ("77", "JPEG"), ("77.mpg", "WEBP")):
        (folder / name).write_bytes(image_bytes(picture(77), format))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "length"),
    [
        *(("clip.png", 3), ("clip", 3), ("ps", 4), ("ps.jpg", 4), ("raw.mpeg", 5), ("motion", 6), ("motion.jpg", 6)),
        *(("animated.png", 3), ("animated.gif", 3)),
    ],
)
def test_a_video_is_one_whatever_its_name(files, processor, name, length):
    path, shown = files / name, list(range(length))
    assert read_numbers(media.load_video(path).frames) == shown
    assert media.probe_video(path.read_bytes()).total_num_frames == length
    assert numbers_of(processor, str(path)) == numbers_of(processor, [path]) == [shown]
    assert numbers_of(processor, [[str(path), str(files / "clip.mp4")]]) == [shown, [0, 1, 2]]


@pytest.mark.parametrize("name", ["77.png", "77.mp4", "77", "77.mpg"])
def test_an_image_is_one_whatever_its_name(files, processor, name):
    path = files / name
    assert read_number(media.load_image(path)) == 77 and media.is_still(path)
    assert numbers_of(processor, [str(path)] * 3, video_metadata=[{"fps": 2.0}]) == [[77] * 3]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.png", "ps", "motion.jpg"])
def test_a_video_given_as_an_image_says_so(files, processor, name):
    path = files / name
    if name == "motion.jpg":  # it begins as an image, which is what was asked for
        assert read_number(media.load_image(path)) == 0
        return
    with pytest.raises(ValueError, match=f"{name}.*is a video, not an image"):
        processor(text="<image>", images=path)
    with pytest.raises(ValueError, match=f"Frame 0 of the list.*{name}.*is a video"):
        processor(text="<vila/video>", videos=([str(path)] * 2, {"fps": 1.0}))


def test_lists_of_stills_are_one_video_and_lists_with_videos_several(files, processor):
    still, clip, animation = (str(files / name) for name in ("77.png", "clip.mp4", "animated.png"))
    rate = {"video_metadata": [{"fps": 1.0}]}
    assert numbers_of(processor, [still, picture(5), render_frame(6)], **rate) == [[77, 5, 6]]
    assert numbers_of(processor, [still, clip]) == [[77], [0, 1, 2]]
    assert numbers_of(processor, [animation, animation]) == [[0, 1, 2]] * 2
    assert numbers_of(processor, [[still, still], [still]], video_metadata=[{"fps": 1.0}] * 2) == [[77] * 2, [77]]


def test_stills_as_videos_of_a_chat_stay_apart(files, processor):
    items = [{"type": "video", "path": str(files / name)} for name in ("77.png", "77", "clip.mp4")]
    inputs = processor.apply_chat_template([{"role": "user", "content": items}], tokenize=True, return_dict=True)
    assert len(inputs["video_timestamps"]) == 3
    lists = [{"type": "video", "video": [str(files / "77.png")] * 2} for _ in range(2)]
    options = {"video_metadata": [{"fps": 1.0}] * 2}
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": lists}], tokenize=True, return_dict=True, **options
    )
    assert len(inputs["video_timestamps"]) == 2 and len(inputs["pixel_values_videos"]) == 4


def test_a_list_with_a_damaged_frame_names_it(files, processor, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image" * 20)
    (tmp_path / "cut.jpg").write_bytes((files / "77").read_bytes()[:400])
    for name in ("bad.jpg", "cut.jpg"):
        with pytest.raises(ValueError, match=name):
            numbers_of(processor, [files / "77.png", tmp_path / name])
    with pytest.raises(FileNotFoundError, match="missing.jpg"):
        numbers_of(processor, ["missing.jpg", "other.jpg"])


@pytest.mark.parametrize("name", ["animated.png", "animated.gif"])
def test_opened_animations_are_videos_with_their_durations(files, processor, name):
    with PIL.Image.open(files / name) as image:
        assert read_number(media.load_image(image)) == 0
        for given in (image, [image], [[image]]):
            (video,) = processor.video_processor.load_videos(given, do_resize=False, do_sample_frames=False)
            assert read_numbers(video.frames) == [0, 1, 2]
            assert video.metadata.timestamps == pytest.approx([0, 0.1, 0.3])
        assert numbers_of(processor, [image, files / "clip.mp4"]) == [[0, 1, 2]] * 2
        content = [{"type": "video", "video": image}, {"type": "image", "image": image}]
        chat = [{"role": "user", "content": content}]
        inputs = processor.apply_chat_template(
            chat, tokenize=True, return_dict=True, num_frames=3, return_tensors="pt"
        )
        assert inputs["video_timestamps"].tolist() == [pytest.approx([0, 0.1, 0.3])]
        assert processor.count_tokens(chat, num_frames=3, add_generation_prompt=False) == len(inputs["input_ids"][0])
        assert image.tell() == 0


def test_frames_of_animations_and_pages():
    """Pages of one size or several are frames; the fallback of an APNG is none."""
    pages = [picture(number) for number in range(3)]
    pages[1] = pages[1].resize((64, 48))
    content = image_bytes(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert read_numbers(media.load_video(content).frames) == [0, 1, 2]
    assert read_number(media.load_image(content)) == 0
    content = image_bytes(picture(9), "PNG", save_all=True, append_images=pages, duration=100, default_image=True)
    assert read_number(media.load_image(content)) == 9
    assert media.load_video(content).metadata.total_num_frames == 3


def test_a_photo_followed_by_further_views_is_no_video():
    photo, preview = (image_bytes(image, "JPEG") for image in (picture(5), picture(5).resize((64, 48))))
    # The index of CIPA DC-007 says that what follows are views: here of one picture, without attributes.
    index = b"II*\0\x08\0\0\0" + struct.pack("<H HHII HHII I 16x", 2, 0xB001, 4, 1, 1, 0xB002, 7, 16, 38, 0)
    segment = b"\xff\xe2" + struct.pack(">H", len(index) + 6) + b"MPF\0" + index
    for content in (photo + preview, photo[:2] + segment + photo[2:] + photo):
        assert media.probe_video(content).total_num_frames == 1 and read_number(media.load_image(content)) == 5
    assert media.probe_video(photo + photo).total_num_frames == 2


def test_an_animation_that_breaks_off_says_so():
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
    frames = [PIL.Image.fromarray(pixels) for pixels in noise]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:], duration=100)
    with pytest.warns(UserWarning, match="bytes> is damaged: frame 2 of 4"):
        video = media.load_video(file.getvalue()[: int(len(file.getvalue()) * 0.6)])
    assert len(video.frames) == 2


def test_folders_hold_frames_of_any_name(tmp_path, processor):
    for number, name in enumerate(["a1", "a2.jfif", "a10.dat"]):
        (tmp_path / name).write_bytes(image_bytes(picture(number), "PNG"))
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    assert numbers_of(processor, str(tmp_path), video_metadata=[{"fps": 1.0}]) == [[0, 1, 2]]
    (tmp_path / "a3.png").write_bytes(b"damaged" * 9)
    with pytest.raises(ValueError, match="a3.png"):
        numbers_of(processor, str(tmp_path), video_metadata=[{"fps": 1.0}])


@pytest.mark.parametrize("form", ["folder", "paths", "bytes", "files", "URLs"])
def test_frames_that_are_not_looked_at_are_not_decoded(form, tmp_path, processor, monkeypatch):
    """All but the sampled frames are damaged behind their headers, which nobody notices."""
    whole = [image_bytes(picture(number), "PNG") for number in range(50)]
    contents = [content if number in (0, 7, 14, 28, 49) else content[:60] for number, content in enumerate(whole)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.png").write_bytes(content)
    paths = [tmp_path / f"{number}.png" for number in range(50)]
    fetched = []
    if form == "URLs":
        by_url = {f"http://frames/{number}": content for number, content in enumerate(contents)}
        monkeypatch.setattr(
            "transformers_omnivinci.media.sources._download",
            lambda url, path, timeout: (fetched.append(url), path.write_bytes(by_url[url])),
        )
    video = {
        "folder": tmp_path,
        "paths": paths,
        "bytes": contents,
        "files": [io.BytesIO(content) for content in contents],
        "URLs": [f"http://frames/{number}" for number in range(50)],
    }[form]
    options = {"num_frames": 8, "video_metadata": [{"fps": 7.0}], "tokenize": True, "return_dict": True}
    chat = [{"role": "user", "content": [{"type": "video", "video": video}, {"type": "text", "text": "?"}]}]
    length = processor.count_tokens(chat, num_frames=8, video_metadata=[{"fps": 7.0}])
    assert set(fetched) == ({"http://frames/0"} if form == "URLs" else set())
    with pytest.raises(ValueError, match="Frame 21 "):
        processor.apply_chat_template(chat, **options)
    options["num_frames"] = 2
    assert processor.apply_chat_template(chat, **options)["video_timestamps"].tolist() == [[0, 7]]
    assert length == processor.count_tokens(chat, num_frames=8, video_metadata=[{"fps": 1.0}])


def test_an_opened_file_may_stand_at_several_places_of_a_list(files, processor):
    with PIL.Image.open(files / "77") as image, open(files / "77.png", "rb") as file:
        frames = [image, file] * 20
        assert numbers_of(processor, frames, video_metadata=[{"fps": 1.0}]) == [[77] * 40]


def test_frames_of_a_longer_clip_say_which_they_are(processor):
    frames = [render_frame(number) for number in range(3)]
    for indices, shown in (([0, 1, 2], [0, 0.5, 1]), ([0, 4, 9], [0, 2, 4.5])):
        metadata = {"fps": 2.0, "total_num_frames": 10, "frames_indices": indices}
        for num_frames in (None, 2):  # a sample is not sampled again
            (video,) = processor.video_processor.load_videos([(frames, metadata)], num_frames=num_frames)
            assert video.metadata.timestamps == shown
    for given in (frames, np.stack(frames)):
        with pytest.raises(ValueError, match="Got 3 frames of a clip of 10, without `frames_indices`"):
            processor.video_processor.probe_video((given, {"fps": 2.0, "total_num_frames": 10}))
