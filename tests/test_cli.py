"""The command `omnivinci` and the timeline that it draws."""

import functools
import http.server
import re
import subprocess
import sys
import threading
import wave
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest
import torch
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from transformers_omnivinci import __version__
from transformers_omnivinci.cli import app
from transformers_omnivinci.cli.timeline.plot import MOST_BORDERS, format_seconds, plot_timeline
from transformers_omnivinci.planning import Timeline, TimelineGroup, timeline_of

from .conftest import CLIP, PARITY
from .media_files import write_animation, write_video
from .media_samples import image, sound, user
from .speech_server import SpeechServer

TINY = str(PARITY / "published-tiny")
SHORT_GROUPS = str(PARITY / "published-tiny-short-groups")


def run(*args, code=0, **options):
    """Runs the command in this process; errors are not to escape it."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def ask(*args, **kwargs):
    return run("ask", *args, "--model", TINY, "--device", "cpu", "--max-new-tokens", 5, **kwargs)


@pytest.fixture
def answer(model, processor):
    """What the command is to print: the answer of the model itself, and a newline."""

    def generate(*items, question=("What?",), load_audio_from_video=True, **options):
        inputs = processor.apply_chat_template(
            user(*items, *question),
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            load_audio_from_video=load_audio_from_video,
            **options,
        )
        ids = model.generate(**inputs, max_new_tokens=5)[0, inputs["input_ids"].shape[1] :]
        return processor.decode(ids, skip_special_tokens=True) + "\n"

    return generate


@pytest.fixture
def files(tmp_path):
    """An image, a sound and a silent video without extensions, and a folder of frames."""
    image().save(tmp_path / "picture", "PNG")
    with wave.open(str(tmp_path / "sound"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((sound() * 32767).astype("<i2").tobytes())
    write_video(tmp_path / "video", 12, format="matroska")
    (tmp_path / "frames").mkdir()
    for index in range(3):
        image(seed=index).save(tmp_path / "frames" / f"{index}.png")
    return tmp_path


# ------------------------------------------------------------------------------------------------------- omnivinci


@pytest.mark.compat
def test_help_imports_neither_torch_nor_transformers():
    script = (
        "import sys\n"
        "from transformers_omnivinci.cli import app\n"
        "for arguments in (['--help'], ['ask', '--help'], ['--version']):\n"
        "    app(arguments, prog_name='omnivinci', standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'numpy'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert re.findall("^Usage: (.*)$", done.stdout, re.M)[0] == "omnivinci [OPTIONS] COMMAND [ARGS]..."
    assert "--num-frames" in done.stdout and done.stdout.endswith(f"omnivinci {__version__}\n")


COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_into_80_columns_and_says_what_each_command_is_for(name):
    lines = run(name, "--help", env={"COLUMNS": "80"}).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert re.fullmatch(r"  [A-Z][^.]+\.", lines[2])
    assert f"{name:10}  {lines[2].strip()}" in run("--help", env={"COLUMNS": "80"}).stdout  # not cut off


@pytest.mark.compat
@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_named_in_lower_case(name):
    # Typer 0.27 took the metavar `MODEL` for the name of `--model`.
    names = [one for option in COMMANDS[name].params if option.param_type_name == "option" for one in option.opts]
    assert names and all(one == one.lower() for one in names if one.startswith("--"))


@pytest.mark.compat
def test_version():
    assert run("--version").stdout == f"omnivinci {__version__}\n"


# ------------------------------------------------------------------------------------------------------------- ask


@pytest.mark.compat
@pytest.mark.parametrize(
    ("arguments", "options"),
    (
        ((), {}),
        (("--num-frames", 3), {"num_frames": 3}),
        (("--fps", 0.5, "--start", 2, "--end", 7.5), {"fps": 0.5, "video_start": 2.0, "video_end": 7.5}),
        (("--num-frames", 3, "--no-audio"), {"num_frames": 3, "load_audio_from_video": False}),
    ),
)
def test_ask_prints_the_answer_of_the_model_and_nothing_else(answer, arguments, options):
    result = ask(CLIP, "What?", *arguments)
    assert result.stdout == answer({"type": "video", "path": CLIP}, **options)


@pytest.mark.compat
def test_ask_about_media_of_all_kinds(answer, files):
    kinds = {"picture": "image", "sound": "audio", "video": "video", "frames": "video"}
    items = [{"type": kind, kind: str(files / name)} for name, kind in kinds.items()]
    arguments = [files / name for name in kinds]
    assert ask(*arguments, "What?", "--num-frames", 3).stdout == answer(*items, num_frames=3)
    assert ask(*arguments[::-1], "What?", "--num-frames", 3).stdout == answer(*items[::-1], num_frames=3)


def test_ask_about_text_alone(answer):
    assert ask("What?", "--dtype", "float32", "--attn-implementation", "eager").stdout == answer()


def test_ask_takes_a_spoken_question_in_each_form_and_position(answer, files):
    clip, spoken = {"type": "video", "path": CLIP}, {"type": "audio", "path": str(files / "sound")}
    with SpeechServer(heard="What?") as other:
        options = ("--spoken", "transcript", "--recogniser", other.url)
        assert ask(CLIP, files / "sound", *options).stdout == answer(clip)
        options = ("--spoken", "rendered", "--recogniser", other.url, "--voice", other.url)
        ask(files / "sound", *options)
        assert other.asked[-1]["input"] == "What?"
    assert ask(CLIP, files / "sound", "--spoken", "native").stdout == answer(clip, spoken, question=())
    asked = ask(CLIP, files / "picture", files / "sound", "--spoken", "native", "--position", "mid")
    image = {"type": "image", "path": str(files / "picture")}
    assert asked.stdout == answer(clip, spoken, image, question=())
    assert ask(CLIP, "What?", "--position", "prefix").stdout == answer("What?", clip, question=())


def test_ask_tells_animations_from_images(answer, tmp_path):
    path = str(write_animation(tmp_path / "moving.gif", [100, 100, 100]))
    assert ask(path, "What?", "--num-frames", 3).stdout == answer({"type": "video", "path": path}, num_frames=3)


@pytest.fixture
def url(files):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    for name in ("named.png", "misnamed.mp4"):
        (files / name).write_bytes((files / "picture").read_bytes())
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(files))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_ask_about_urls(answer, files, url):
    picture, video = {"type": "image", "path": str(files / "picture")}, {"type": "video", "path": str(files / "video")}
    wanted = answer(picture, video, num_frames=2)
    for name in ("named.png", "misnamed.mp4"):
        assert ask(f"{url}/{name}", f"{url}/video", "What?", "--num-frames", 2).stdout == wanted


def test_ask_shows_progress_on_a_terminal(monkeypatch):
    shown = []

    class Recorder:
        def __init__(self, *columns, disable, **kwargs):
            assert disable  # stderr of a test is no terminal
            self.tasks, self.disable = [], disable

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def add_task(self, description, total):
            self.tasks.append([description, 0, total])
            return len(self.tasks) - 1

        def update(self, task, total):
            self.tasks[task][2] = total

        def advance(self, task, number):
            self.tasks[task][1] += number

        def remove_task(self, task):
            shown.append(tuple(self.tasks[task]))

    monkeypatch.setattr("transformers_omnivinci.cli.terminal.Progress", Recorder)
    ask(CLIP, CLIP, "What?", "--num-frames", 3)
    # Two clips of three frames, then each with a window of sound.
    assert shown == [("Loading the model", 0, None), ("Decoding", 6, 6), ("Encoding", 8, 8)]


@pytest.mark.compat
@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (("nowhere.mp4", "What?", "--model", TINY), "There is no file 'nowhere.mp4'."),
        (("What?", CLIP, "--model", TINY), f"The last argument is the question, but {CLIP!r} is a file."),
        (("What?", "--model", "no-where"), "There is no folder 'no-where': `--model` is a folder, or a repository"),
        (("What?", "--model", PARITY), "Unrecognized model in"),
        (("What?", "--model", TINY, "--device", "abacus"), "`--device abacus` is unknown: cpu, cuda and auto are"),
        ((CLIP, "What?", "--model", TINY, "--fps", 1, "--num-frames", 2), "Got both `num_frames=2` and `fps=1.0`"),
        (
            (CLIP, "What?", "--model", TINY, "--start", 9, "--end", 3),
            "`video_end=3.0` is not after `video_start=9.0`.",
        ),
        ((__file__, "What?", "--model", TINY), "cannot be read as a video, image or sound"),
        (("no.wav", "--model", TINY, "--spoken", "native"), "There is no sound 'no.wav', which is the question"),
        (("no.wav", "--model", TINY, "--spoken", "transcript"), "`--recogniser` is for `--spoken transcript`"),
        (("What?", "--model", TINY, "--recogniser", "whisper"), "`--recogniser` is for `--spoken transcript`"),
        ((CLIP, "What?", "--model", TINY, "--position", "mid"), "There is no middle of 1 media"),
        ((CLIP, "What?", "--model", TINY, "--position", "mid", "--unroll"), "--unroll writes contexts before a"),
    ),
)
def test_ask_refuses_in_one_line(arguments, message):
    result = run("ask", *arguments, code=1)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.compat
@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.pop("lm_head.weight"),
        lambda weights: weights.update({"lm_head.weight": torch.ones(3, 64)}),
    ],
)
def test_ask_refuses_weights_that_do_not_fit(load_checkpoint, tmp_path, change):
    for part in load_checkpoint():
        part.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    result = run("ask", "What?", "--model", tmp_path, code=1)
    assert result.stdout == "" and "lacks these weights or has them in another shape: lm_head.weight." in result.stderr


def test_traceback_is_shown_when_asked_for():
    with pytest.raises(FileNotFoundError, match="There is no file 'nowhere.mp4'"):
        ask("nowhere.mp4", "What?", "--traceback")


def test_ask_refuses_other_models(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    result = run("ask", "What?", "--model", tmp_path, code=1)
    assert f"'{tmp_path}' holds a model of type 'qwen2': a checkpoint of OmniVinci is accepted." in result.stderr


def test_ask_needs_a_question():
    assert "QUESTION" in run("ask", "--model", TINY, code=2).stderr


# -------------------------------------------------------------------------------------------------------- timeline


def read_table(output: str) -> list[list[str]]:
    """The rows of numbers of the table, the totals last: each without the seconds of the frames."""
    rows = []
    for line in output.splitlines():
        words = line.replace(" - ", "-").split()
        if len(words) > 4 and all(word.replace(",", "").isdigit() for word in words[-3:]):
            rows.append([words[0], *words[-3:]])
    return rows


def test_timeline_of_the_9b_model():
    output = run("timeline", CLIP).stdout
    assert output.startswith("clip.mp4  480 x 360, 12.00 s at 25.00 fps, sound\n")
    # 64 frames of 16 x 16 embeddings; of 750 vectors of 30 seconds, those of 12, rounded up with the newline.
    assert read_table(output) == [["1", "1,200", "16,384", "301"], ["total", "1,200", "16,384", "301"]]
    assert "16,687 tokens: 16,384 video, 301 audio, 2 boundary" in output
    assert "Planned for the 9B model" in output
    silent = run("timeline", CLIP, "--no-audio", "--num-frames", 8, "--start", 4, "--end", 6).stdout
    assert silent.startswith("clip.mp4  480 x 360, 2.00 s at 25.00 fps, no sound\n")
    assert read_table(silent) == [["picture", "0", "2,048", "0"], ["total", "0", "2,048", "0"]]


@pytest.mark.compat
def test_timeline_counts_the_tokens_of_the_processor(load_checkpoint):
    processor = load_checkpoint("published-tiny-short-groups")[1]
    output = run("timeline", CLIP, "--model", SHORT_GROUPS, "--num-frames", 10).stdout
    rows = read_table(output)
    assert len(rows) - 1 == np.ceil(12 / processor.group_duration) > 1
    prompt = [user({"type": "video", "path": CLIP}, "")]
    options = {"tokenize": True, "return_dict": True, "load_audio_from_video": True, "num_frames": 10}
    ids = np.array(processor.apply_chat_template(prompt, **options)["input_ids"][0])
    totals = [int(number.replace(",", "")) for number in rows[-1][2:]]
    assert totals == [(ids == processor.video_token_id).sum(), (ids == processor.audio_token_id).sum()]
    for column, total in zip((2, 3), totals, strict=True):
        assert sum(int(row[column].replace(",", "")) for row in rows[:-1]) == total


def test_timeline_lists_the_seconds_of_frames():
    output = run("timeline", CLIP, "--fps", 0.5).stdout
    assert "0.00 2.00" in output
    assert "..." not in output
    many = run("timeline", CLIP, "--num-frames", 64).stdout
    assert "..." in many
    assert "11.96" in many


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize("arguments", ((), ("--no-audio",), ("--model", SHORT_GROUPS), ("--num-frames", 1)))
def test_timeline_is_drawn(tmp_path, arguments):
    path = tmp_path / "out.png"
    output = run("timeline", CLIP, "--plot", path, "--num-frames", 8, *arguments).stdout
    assert output.endswith(f"The timeline is drawn in {path}.\n")
    with PIL.Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width == 2100
        assert 500 < picture.height < 1200
        pixels = np.asarray(picture.convert("RGB"))
    # White at the rim, and drawn upon elsewhere, with the night blue of the clip's first frame among it.
    assert (pixels[:20] == 255).all()
    assert (pixels[:, -20:] == 255).mean() > 0.99
    assert 0.1 < (pixels != 255).any(-1).mean() < 0.9
    assert (np.abs(pixels.astype(int) - (18, 24, 62)).max(-1) < 12).sum() > 300


def test_timeline_of_a_folder_and_of_a_vector_graphic(files):
    path = files / "out.svg"
    run("timeline", files / "frames", "--plot", path, "--num-frames", 3)
    drawn = ElementTree.parse(path).getroot()
    assert drawn.get("width") == "1008pt"
    assert len(drawn.findall(".//{*}image")) == 1  # all thumbnails


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (("picture",), "picture' is an image: a video is accepted."),
        (("sound",), "sound' is a sound: a video is accepted."),
        (("video", "--plot", "out.abc"), "Format 'abc' is not supported"),
        (("video", "--model", "no-where"), "There is no folder 'no-where'"),
    ),
)
def test_timeline_refuses_in_one_line(files, monkeypatch, arguments, message):
    monkeypatch.chdir(files)
    result = run("timeline", *arguments, code=1)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_timeline_without_matplotlib_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("timeline", CLIP, "--num-frames", 2, "--plot", tmp_path / "out.png", code=1)
    assert 'pip install "transformers-omnivinci[plot]"' in result.stderr


# -------------------------------------------------------------------------------------------------------- plotting


@pytest.mark.parametrize("interleaved", (True, False))
@pytest.mark.parametrize("brackets", (False, True))
def test_groups_hold_all_tokens_of_the_plan(load_checkpoint, monkeypatch, interleaved, brackets):
    processor = load_checkpoint("published-tiny-short-groups")[1]
    monkeypatch.setattr(processor, "interleave_audio_in_video", interleaved)
    monkeypatch.setattr(processor, "use_media_brackets", brackets)
    metadata = processor.video_processor.probe_video(CLIP, num_frames=9)
    plan = processor.plan_video(metadata, 12 * 16_000)
    groups = timeline_of(plan, processor.layout, metadata.duration).groups
    assert [index for group in groups for index in group.frames] == list(range(9))
    if not brackets:
        assert groups[0].num_boundary_tokens == (2 if interleaved else 1)
    clip, options = {"type": "video", "path": CLIP}, {"load_audio_from_video": True, "num_frames": 9}
    length = processor.count_tokens(user(clip, ""), **options) - processor.count_tokens(user(""))
    assert sum(group.num_tokens for group in groups) == length
    num_groups = np.ceil(12 / processor.group_duration)
    assert (groups[0].name, len(groups)) == (("group 1", num_groups) if interleaved else ("sound", 2))


@pytest.mark.slow
def test_figure_of_a_long_clip_with_many_groups():
    seconds = 3600.0
    groups = [
        TimelineGroup(f"group {i + 1}", 30.0 * i, 30.0 * (i + 1), range(i, i + 1), range(3000 * i), 256, 750, 2)
        for i in range(120)
    ]
    assert len(groups) > MOST_BORDERS
    frames = np.zeros((120, 3, 90, 160), dtype=np.uint8)
    timestamps = [seconds * i / 120 for i in range(120)]
    waveform = np.sin(np.arange(3600 * 100) / 9).astype(np.float32)
    figure = plot_timeline(Timeline(groups, timestamps, True), frames, waveform, sampling_rate=100)
    pictures = [artist for axes in figure.axes for artist in axes.images]
    edges = [picture.get_extent()[:2] for picture in pictures]
    assert 8 <= len(edges) <= 14
    assert all(right <= left for (_, right), (left, _) in zip(edges, edges[1:], strict=False))
    labels = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "120,960 tokens: 30,720 video, 90,000 audio, 240 boundary" in " ".join(labels)
    with pytest.raises(ValueError, match="Got 120 frames but 1 timestamps"):
        plot_timeline(Timeline(groups, [0.0], True), frames)


def test_thumbnails_keep_the_shape_of_the_clip():
    groups = [TimelineGroup("picture", 0.0, 8.0, range(4), range(0), 64, 0, 0)]
    frames = np.zeros((4, 3, 32, 32), dtype=np.uint8)
    for ratio in (16 / 9, 1.0, 9 / 16):
        figure = plot_timeline(Timeline(groups, [0.0, 2.0, 4.0, 6.0], False), frames, aspect_ratio=ratio)
        (axes,) = (axes for axes in figure.axes if axes.images)
        left, right, bottom, top = axes.images[0].get_extent()
        width, height = axes.transData.transform((right, top)) - axes.transData.transform((left, bottom))
        assert width / height == pytest.approx(ratio, rel=0.01)
        assert axes.get_xlim()[0] <= left + 1e-6


@pytest.mark.parametrize(
    ("second", "text"),
    ((0.0, "0.0 s"), (119.94, "119.9 s"), (125.0, "2:05"), (3725.4, "1:02:05"), (7199.9, "2:00:00")),
)
def test_format_seconds(second, text):
    assert format_seconds(second) == text
