"""`omnivinci chat`: lines of a pipe or a terminal are answered by nano about media that are watched once."""

import os
import re
import select
import signal

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from transformers_omnivinci.cli import app
from transformers_omnivinci.cli.chat import seconds_of
from transformers_omnivinci.modeling import OmniVinciModel
from transformers_omnivinci.processing.batch import MEDIA_INPUTS
from transformers_omnivinci.sessions import Session, Watched
from transformers_omnivinci.synthetic import SyntheticDataset, write_clip

from .media_samples import image
from .processes import OMNIVINCI, PythonProcess

pytestmark = pytest.mark.compat


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """That of `omnivinci demo`: a blue star and noise from 4 s on, after a yellow square."""
    path = tmp_path_factory.mktemp("clips") / "new.mp4"
    types = ("visual", "synchrony", "time")
    dataset = SyntheticDataset("test", 1000, 0, types=types, questions_per_clip=len(types))
    write_clip(path, dataset.render(next(sample for sample in dataset if len(sample.questions) == len(types))))
    return str(path)


@pytest.fixture
def encoded(monkeypatch):
    """A row for each medium that was encoded."""
    calls, encode, place = [], OmniVinciModel.encode_media, OmniVinciModel.place_frames

    def place_frames(self, clips, seconds):
        calls.append(["video"])
        return place(self, clips, seconds)

    def encode_media(self, **media):
        if media.keys() & {*MEDIA_INPUTS}:  # transformers 5.8 has the model look for media where all are encoded
            calls.append(sorted(media))
        return encode(self, **media)

    monkeypatch.setattr(OmniVinciModel, "encode_media", encode_media)
    monkeypatch.setattr(OmniVinciModel, "place_frames", place_frames)
    return calls


@pytest.fixture
def interrupts():
    """Ctrl-C is heard here and by processes that are started, although a shell started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def chat(*arguments, lines, code=0):
    """What is printed when lines are piped into the command, and what it tells on stderr beside the model's name."""
    result = CliRunner().invoke(app, ["chat", *map(str, arguments)], input="\n".join(map(str, lines)) + "\n")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout.splitlines(), [line for line in result.stderr.splitlines() if "nano" not in line]


def rows_of(lines):
    """The cells of the tables, without their headings."""
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    return [row for row in cells if len(row) > 3 and row[0] != "medium"]


FIRST, SECOND = "Which sound is heard while the blue star is shown?", "When does the blue star appear?"


def test_questions_are_answered_about_a_clip_that_is_encoded_once(clip, encoded):
    printed, told = chat(clip, lines=[FIRST, "", SECOND])
    assert (printed, told) == (["noise", "4.0 seconds"], [])
    assert len(encoded) == 1


def test_questions_see_those_before_them_unless_they_are_independent(clip, monkeypatch):
    streams, ask = [], Session.ask

    def record(*arguments, **options):
        streams.append(ask(*arguments, **options))
        return streams[-1]

    monkeypatch.setattr(Session, "ask", record)
    chat(clip, lines=[SECOND, FIRST])
    assert chat(clip, "--independent", lines=[FIRST, SECOND, FIRST])[0] == ["noise", "4.0 seconds", "noise"]
    answers = [stream.answer for stream in streams]
    lengths = [answer.prompt_tokens for answer in answers]
    assert lengths[1] > lengths[0] and lengths[1] > lengths[2] == lengths[4]
    assert all(answer.prompt_tokens - answer.cached_tokens < 30 for answer in answers)


def test_what_cannot_be_done_is_told_in_a_line_and_the_chat_goes_on(clip, tmp_path):
    (tmp_path / "notes.mp4").write_text("no video")
    attempts = {
        FIRST: "Nothing was watched yet: `/watch MEDIUM` shows",
        "/frobnicate now": "There is no command '/frobnicate': /help lists them.",
        "/watch nowhere.mp4": "There is no file 'nowhere.mp4'.",
        f"/watch {tmp_path / 'notes.mp4'}": "cannot be read as a video, image or sound",
        "/watch": "Type `/watch MEDIUM`.",
        "/timeline 3": "`/timeline` takes nothing, got '3'.",
        "/seconds 1": "`/seconds A B` takes two seconds of the timeline, got '1'.",
        "/seconds 3 inf": "`/seconds A B` takes two seconds of the timeline, got '3 inf'.",
        "/seconds 3 2": "goes from A to B, but 3 is after 2.",
        "/forget all": "`/forget S` takes a second of the timeline, got 'all'.",
        "/load nowhere": "nowhere holds no session",
        f"/save {tmp_path}": "already",
    }
    printed, told = chat(lines=[*attempts, f"/watch '{clip}'", "What is <image>?", SECOND, "/quit", FIRST])
    assert printed == ["4.0 seconds"]
    assert len(told) == len(attempts) + 1 and "which stands for a medium" in told[-1]
    for message, line in zip(attempts.values(), told):
        assert line.startswith("error: ") and message in line


def test_a_line_that_is_no_text_does_not_hide_the_others(clip):
    result = CliRunner().invoke(app, ["chat", clip], input=b"How many\xff?\n" + SECOND.encode() + b"\n")
    assert result.stdout == "4.0 seconds\n" and "holds bytes that are no text in utf-8" in result.stderr


def test_media_of_the_command_line_are_looked_at_before_the_model_is_loaded(clip):
    assert chat(clip, "nowhere.mp4", "--model", "no-where", lines=[FIRST], code=1) == (
        [],
        ["error: There is no file 'nowhere.mp4'."],
    )
    with pytest.raises(FileNotFoundError):
        chat(clip, "--traceback", lines=["/watch nowhere.mp4"])


def test_a_chat_is_saved_and_goes_on(clip, tmp_path, encoded):
    saved = tmp_path / "saved"
    assert chat(clip, lines=[FIRST, f"/save {saved}"]) == (["noise", f"Saved to {saved}."], [])
    del encoded[:]
    printed, told = chat(lines=[f"/load {saved}", SECOND, f"/save {saved}", "/reset", SECOND])
    assert printed == [f"Loaded: {clip!r}.", "4.0 seconds", "4.0 seconds"] and not encoded
    assert len(told) == 1 and "already" in told[0]


def test_the_timeline_tells_what_is_seen_and_heard(clip, tmp_path, encoded):
    image().save(tmp_path / "picture.png")
    lines = ["/timeline", "/seconds 2 4", "/forget 3", "/timeline", f"/watch {clip}", "/seconds 7 8"]
    printed, told = chat(clip, tmp_path / "picture.png", lines=[*lines, "/seconds 20 30", "/reset", "/timeline"])
    assert told == [] and len(encoded) == 3
    rows = rows_of(printed)
    whole, part, left, first, second, again = (row[1:] for row in rows if row[0] == "new.mp4")
    assert whole == again == ["0.0 - 7.5", "0.0 - 7.4, 6.4 a second", "0.1 - 7.5", whole[-1]]
    assert part == ["0.0 - 7.5", "2.0 - 3.9, 6.4 a second", "2.0 - 4.0"]
    assert left[1].startswith("3.0 - 7.4") and left[2] == "3.1 - 7.5" and int(left[3]) < int(whole[3])
    assert first[2].endswith(" - 7.5") and second[0] == "7.5 - 15.0" and second[2].endswith(" - 8.0")
    assert "The timeline ends at 15.0 s." in printed


def test_options_are_those_of_videos(clip, tmp_path):
    image().save(tmp_path / "picture.png")
    arguments = ("--fps", 2, "--start", 4, "--end", 6, "--no-audio")
    printed, told = chat(clip, tmp_path / "picture.png", *arguments, lines=["/timeline"])
    assert told == [] and rows_of(printed)[0][1:4] == ["0.0 - 1.5", "0.0 - 1.5, 2 a second", "none"]


def test_answers_tell_what_they_rest_on(clip):
    printed, told = chat(clip, "--num-frames", 4, "--evidence", lines=[SECOND, "/forget 3", FIRST])
    assert told == [] and printed.count(clip) == 2
    assert printed[2].startswith("  seen: 4 of 60 frames") and printed[3] == "  heard: 0.00-7.50 s"
    left = [line for line in printed if "left out" in line]
    assert left[0] == "  left out: 56 frames"
    assert left[1] == "  left out: 56 frames, 2 frames that were forgotten, 3.00 s of sound that was forgotten"


def test_help_lists_all_commands():
    printed, told = chat(lines=["/help"])
    assert told == [] and max(map(len, printed)) <= 100
    assert [line.split()[0] for line in printed if line.startswith("/")] == [
        *("/watch", "/timeline", "/seconds", "/forget", "/save", "/load", "/reset", "/help", "/quit")
    ]


def test_an_interrupt_ends_an_answer_and_not_the_chat(clip, monkeypatch, interrupts):
    wanted, _ = chat(clip, lines=[SECOND, FIRST])
    pieces, echo = [], typer.echo

    def interrupt(text="", **options):
        echo(text, **options)
        if "nl" in options and not pieces:
            pieces.append(text)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(typer, "echo", interrupt)
    printed, told = chat(clip, lines=["Describe the clip.", SECOND, FIRST])
    assert printed == [pieces[0] + wanted[0], wanted[1]]
    assert told == ["", "Stopped. /quit leaves the chat."]


@pytest.mark.slow
def test_a_terminal_has_a_prompt_and_a_history(clip, interrupts):
    import pty

    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    options = {**streams, "env": os.environ | {"TERM": "xterm"}, "start_new_session": True}
    with PythonProcess(OMNIVINCI, "chat", clip, "--independent", **options) as process:
        os.close(theirs)

        def read(pattern):
            shown = ""
            while not re.search(pattern, shown):
                assert select.select([ours], [], [], 120)[0], f"{pattern!r} is not shown: {shown!r}"
                shown += os.read(ours, 4096).decode()
            return shown

        try:
            assert "type /help for commands" in read("> $")
            for keys in (SECOND, "\x1b[A"):  # typed, and fetched by the arrow that points up
                os.write(ours, f"{keys}\n".encode())
                assert SECOND in read(r"4\.0 seconds\s[^>]*> $")
            for _ in range(60):  # readline does not notice one that comes before it waits for keys
                process.send_signal(signal.SIGINT)
                if select.select([ours], [], [], 1)[0]:
                    break
            assert "Stopped." in read("> $")
            os.write(ours, b"\x04")
            assert process.wait(60) == 0
        finally:
            process.kill()
            os.close(ours)


# Seconds in quarters are exact.
QUARTERS = st.integers(0, 80).map(lambda number: number / 4)


@given(QUARTERS, QUARTERS, st.integers(1, 30), QUARTERS, QUARTERS)
def test_the_frames_of_a_part_are_those_within_it(start, first, number, one, other):
    frames = [start + first + index / 4 for index in range(number)]
    span = (first, first + (number - 1) / 4, 4.0 if number > 1 else 0.0)
    watched = Watched("clip", "video", start, 100.0, [span], [(first, first + 2)], 9)
    low, high = sorted((one, other))
    seen, heard = seconds_of(watched, low, high)
    inside = [second for second in frames if low <= second <= high]
    assert seen == ([(inside[0], inside[-1], 4.0 if len(inside) > 1 else 0.0)] if inside else [])
    for second in range(0, 500):
        is_heard = max(low, start + first) <= second / 4 <= min(high, start + first + 2)
        assert is_heard == any(begin <= second / 4 <= end for begin, end in heard)
