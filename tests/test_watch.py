"""`omnivinci watch` asks as a source goes on, and ends with it."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from transformers_omnivinci import NANO, LiveSource, OmniVinciForConditionalGeneration, OmniVinciProcessor, Session
from transformers_omnivinci.cli import app

from .live_servers import growing
from .media_files import remux

CLIP = Path(__file__).parent.parent / "demo" / "clip.mp4"
QUESTION = "What is heard?"


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """The clip of the demo, of 12 s, in a container that can be read while it grows."""
    return remux(CLIP, tmp_path_factory.mktemp("watch") / "clip.mkv")


def run(*arguments):
    return CliRunner().invoke(app, ["watch", *map(str, arguments), "--device", "cpu"])


def test_questions_are_asked_while_a_file_grows_and_at_its_end(recording, tmp_path):
    with growing(tmp_path / "clip.mkv", recording.read_bytes()) as path:
        result = run(path, "--every", 5, "--fps", 2, "--timeout", 2, "--ask", QUESTION, "--ask", "What happens?")
    assert result.exit_code == 0, result.output
    asked = re.findall(r"^\[(\d+\.\d) s\] (What is heard\?|What happens\?) (.+)$", result.stdout, re.MULTILINE)
    seconds = [float(second) for second, *_ in asked]
    assert seconds[:4] == [5.0, 5.0, 10.0, 10.0] and 12.0 <= seconds[4] == seconds[5] < 12.2 and len(seconds) == 6
    model = OmniVinciForConditionalGeneration.from_pretrained(NANO).eval()
    with Session(model, OmniVinciProcessor.from_pretrained(NANO)) as session:
        for chunk in LiveSource(recording, fps=2, timeout=0.2, chunk_seconds=3):
            session.feed(*chunk.media)
        assert session.ask(QUESTION, max_new_tokens=128) == asked[4][2]


def test_what_is_older_is_forgotten(recording):
    result = run(recording, "--every", 6, "--remember", 3, "--timeout", 0.2, "--ask", QUESTION, "--evidence")
    assert result.exit_code == 0 and len(re.findall(r"^\[", result.stdout, re.MULTILINE)) == 2, result.output
    seen = re.findall(r"seen: 3 of (\d+) frames, 1 of (\d+) a second, at (\d+)", result.stdout)
    assert seen == [("150", "25", "3"), ("300", "25", "9")], result.output
    assert "9 frames that were forgotten, 9.00 s of sound that was forgotten" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.mkv", "--ask", "x"], "There is no file 'none.mkv'."),
        ([CLIP, "--ask", "x", "--every", "0"], "`--every 0` is not accepted"),
        ([CLIP, "--ask", "x", "--remember", "inf"], "`--remember inf` is not accepted"),
        ([CLIP, "--ask", "x", "--fps", "-1"], "`fps=-1.0` is not accepted"),
        ([CLIP, "--ask", "x", "--model", "no folder"], "There is no folder 'no folder'"),
        (["camera:97", "--ask", "x"], "The camera '/dev/video97' cannot be opened"),
    ],
)
def test_what_cannot_be_watched_says_why(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 1 and result.stderr.splitlines()[-1].startswith(f"error: {message}")
