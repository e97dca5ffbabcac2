"""What the page of `omnivinci web` shows and keeps, without a browser: `make web-test` opens it in one."""

import sys
import threading
import time
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel, AutoProcessor
from typer.testing import CliRunner

from transformers_omnivinci import NANO, Session
from transformers_omnivinci.cli import app, web
from transformers_omnivinci.synthetic import Clip, write_clip
from transformers_omnivinci.web.examples import make_examples
from transformers_omnivinci.web.overview import choose_evenly, find_peaks, look_over
from transformers_omnivinci.web.stage import list_facts, show_stage
from transformers_omnivinci.web.transcript import Exchange, list_grounds, show_notice, show_transcript
from transformers_omnivinci.web.visits import Reply, Visits

from .media_files import write_video
from .media_samples import image, sound

pytestmark = pytest.mark.compat

UNWATCHED = "Nothing was watched yet"


@pytest.fixture(scope="module")
def nano():
    return AutoModel.from_pretrained(NANO), AutoProcessor.from_pretrained(NANO)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return make_examples(tmp_path_factory.mktemp("examples"), number=2)


@pytest.fixture
def visits(nano, tmp_path):
    (tmp_path / "uploads").mkdir()
    return Visits(*nano, tmp_path / "uploads", most=2)


@pytest.fixture
def slow(nano):
    """Nano needs a while for each token: when it began with each."""
    passes = []

    def wait(*_):
        passes.append(time.monotonic())
        time.sleep(0.05)

    handle = nano[0].model.language_model.register_forward_pre_hook(wait)
    yield passes
    handle.remove()


def write_sound(path, seconds):
    write_clip(path, Clip(None, sound(seconds), 8, 16_000))


def upload(visits, path, name="clip.mp4"):
    """A copy of a file among the uploads, as a page has it."""
    folder = visits.folder / str(len([*visits.folder.iterdir()]))
    folder.mkdir()
    (folder / name).write_bytes(path.read_bytes())
    return folder / name


def ask(visits, key, question, *arguments, **options):
    """The whole answer."""
    *_, reply = visits.ask(key, question, *arguments, **options)
    return reply


# ------------------------------------------------------------------------------------------------- what is shown


def test_what_is_shown_of_a_medium_is_what_a_session_has_of_it(nano, examples, tmp_path):
    model, processor = nano
    image().save(tmp_path / "picture.png")
    write_video(tmp_path / "silent.mp4")
    write_sound(tmp_path / "sound.wav", 4.0)
    files = {
        examples[0].path: ("video", {}),
        tmp_path / "silent.mp4": ("video", {"num_frames": 5}),
        tmp_path / "picture.png": ("image", {}),
        tmp_path / "sound.wav": ("audio", {}),
    }
    for path, (kind, options) in files.items():
        overview = look_over(processor, path, kind, path.name, **options)
        with Session(model, processor) as session:
            session.watch(path, **options)
            [watched] = session.timeline()
        assert (overview.kind, overview.num_tokens) == (watched.kind, watched.num_tokens)
        number = sum(round((last - first) * rate) + 1 for first, last, rate in watched.seen)
        assert len(overview.frames) == number and bool(overview.evidence.heard) == bool(watched.heard)
        if kind == "video":
            assert {second for second, _ in overview.pictures} <= {*overview.frames}
            assert overview.frames[-1] == pytest.approx(watched.seen[-1][1])
        assert bool(overview.peaks) == bool(watched.heard) and max(overview.peaks, default=1) == 1
        assert overview.duration == pytest.approx(watched.duration, abs=0.05)
        html = show_stage(overview, "gradio_api/file=clip")
        assert read_html(html)[0] == [] and html.count('class="ov-track"') == (kind != "image")


class Reader(HTMLParser):
    """Which tags stay open, and the text between them."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attributes):
        if tag != "img":
            self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.tags.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read_html(html):
    reader = Reader()
    reader.feed(html)
    return reader.tags, "".join(reader.texts)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=300), st.integers(1, 400))
def test_peaks_are_the_loudest_of_equal_parts(samples, number):
    waveform = np.array(samples, dtype=np.float32)
    peaks = find_peaks(waveform, number)
    assert len(peaks) == min(number, len(samples)) and all(0 <= peak <= 1 for peak in peaks)
    loudest = float(np.abs(waveform).max())
    assert max(peaks) == (1 if loudest >= 1e-3 else pytest.approx(loudest / 1e-3, abs=1e-3))


@given(st.integers(1, 4000), st.floats(0.01, 100))
def test_pictures_are_evenly_chosen_and_fill_the_strip(number, aspect_ratio):
    chosen = choose_evenly(range(number), aspect_ratio)
    assert chosen[0] == 0 and len({*np.diff(chosen)}) <= 1
    assert len(chosen) <= 36


def test_names_questions_and_answers_are_text_and_no_html(nano, examples):
    evil = '<img src=x onerror="alert(1)">'
    overview = look_over(nano[1], examples[0].path, "video", evil)
    reply = Reply(evil, 0.1, 0.2, "whole", clip=overview)
    reply = replace(reply, answer=type("Answer", (str,), {"prompt_tokens": 9, "cached_tokens": 3})("whole"))
    exchanges = [Exchange(evil, True, True, reply, truth=evil), Exchange(evil, error=evil), Exchange(evil)]
    for html in (show_stage(overview, evil), show_transcript(exchanges), show_transcript((), evil), show_notice(evil)):
        assert "<img src=x" not in html and evil in read_html(html)[1]
        assert read_html(html)[0] == []


def test_times_and_numbers_of_long_clips_are_readable(nano, examples):
    overview = look_over(nano[1], examples[0].path, "video", "hour.mp4")
    left_out = replace(overview.evidence.left_out, frames=89_952)
    hour = replace(overview, evidence=replace(overview.evidence, duration=3600.0, heard=(), left_out=left_out))
    assert list_facts(hour)[:4] == ["1:00:00", "64 × 64", "48 of 90,000 frames seen", "no sound heard"]


# ------------------------------------------------------------------------------------------------ what is kept


def test_questions_are_answered_about_a_clip_that_was_watched_once(visits, examples):
    visits.watch("a", examples[0].path)
    for question, answer in examples[0].questions.items():
        reply = ask(visits, "a", question)
        assert (reply.text, reply.answer) == (answer, answer)
        assert 0 < reply.answer.prompt_tokens - reply.read_before < 30
        assert 0 < reply.first <= reply.seconds
        assert list_grounds(reply)[:2] == ["48 frames seen, 0.0 s – 7.4 s", "heard 0.0 s – 7.5 s"]


def test_visits_do_not_see_each_other(visits, examples):
    visits.watch("a", examples[0].path)
    with pytest.raises(ValueError, match=UNWATCHED):
        ask(visits, "b", "What happens?")
    visits.watch("b", examples[1].path)
    for key, example in (("a", examples[0]), ("b", examples[1]), ("a", examples[0])):
        [(question, _), *_] = example.questions.items()
        with Session(visits.model, visits.processor) as session:
            session.watch(example.path)
            assert ask(visits, key, question).text == session.ask(question, max_new_tokens=20)


def test_the_least_recently_used_clip_is_let_go_with_its_file(visits, examples):
    paths = [upload(visits, examples[0].path) for _ in range(3)]
    for key, path in zip("abc", paths):
        visits.watch(key, path)
        list(visits.ask("a", "What happens?")) if key == "b" else None
    assert [path.exists() for path in paths] == [True, False, True] and len(visits) == 2
    with pytest.raises(ValueError, match="was let go, as 2 others have been opened since"):
        ask(visits, "b", "What happens?")
    visits.leave("a")
    visits.leave("a")
    assert not paths[0].exists() and len(visits) == 1
    visits.close()
    assert not paths[2].exists() and len(visits) == 0 and examples[0].path.exists()


def test_a_clip_takes_the_place_of_the_one_before(visits, examples):
    first, second = upload(visits, examples[0].path), upload(visits, examples[1].path)
    visits.watch("a", first)
    visits.watch("a", first)
    assert first.exists()
    visits.watch("b", first)
    visits.watch("a", second)
    assert first.exists() and second.exists()  # the other page still has it
    visits.leave("b")
    assert not first.exists()


def test_what_cannot_be_watched_leaves_a_visit_as_it_was(visits, examples, tmp_path):
    (tmp_path / "notes").write_text("no video")
    visits.watch("a", examples[0].path)
    path = upload(visits, tmp_path / "notes", "notes.mp4")
    with pytest.raises(ValueError, match="^'notes.mp4' cannot be read as a video, image or sound") as caught:
        visits.watch("a", path)
    assert str(tmp_path) not in str(caught.value) and not path.exists()
    [(question, answer), *_] = examples[0].questions.items()
    assert ask(visits, "a", question).text == answer
    for bad, sentence in (("", "There is no question yet"), ("What is <image>?", "which stands for a medium")):
        with pytest.raises(ValueError, match=sentence):
            ask(visits, "a", bad)
    assert ask(visits, "a", question).text == answer


def test_a_recorded_question_stands_behind_the_clip(visits, examples, tmp_path):
    write_sound(tmp_path / "question.wav", 2.0)
    visits.watch("a", examples[0].path)
    [(question, answer), *_] = examples[0].questions.items()
    for text in ("", question):
        path = upload(visits, tmp_path / "question.wav", "audio.wav")
        reply = ask(visits, "a", text, path)
        with Session(visits.model, visits.processor) as session:
            session.watch(examples[0].path)
            session.watch(tmp_path / "question.wav")
            expected = session.ask(text, max_new_tokens=512)
        assert (reply.text, reply.answer.token_ids) == (expected, expected.token_ids)
        # Its tokens were not read before the question was asked.
        assert reply.recorded == pytest.approx(2.0, abs=0.05)
        assert reply.answer.prompt_tokens - reply.read_before > session_tokens(visits, tmp_path / "question.wav")
        assert "recorded question heard, 2.0 s" in list_grounds(reply) and not path.exists()
    assert ask(visits, "a", question).text == answer
    broken = upload(visits, tmp_path / "question.wav", "audio.wav")
    broken.write_bytes(b"no sound")
    with pytest.raises(ValueError, match="the recorded question") as caught:
        ask(visits, "a", question, broken)
    assert str(tmp_path) not in str(caught.value) and not broken.exists()
    unheard = upload(visits, tmp_path / "question.wav", "audio.wav")
    with pytest.raises(ValueError, match=UNWATCHED):
        ask(visits, "b", question, unheard)
    assert not unheard.exists()


def session_tokens(visits, path):
    with Session(visits.model, visits.processor) as session:
        session.watch(path)
        return session.timeline()[0].num_tokens


def test_questions_are_remembered_if_they_are_to_be(visits, examples):
    visits.watch("a", examples[0].path)
    [(question, _), (other, _), *_] = examples[0].questions.items()
    alone = ask(visits, "a", question).answer.prompt_tokens
    first = ask(visits, "a", other, remember=True)
    again = ask(visits, "a", question, remember=True).answer
    assert again.prompt_tokens > alone and again.cached_tokens >= first.answer.prompt_tokens
    assert ask(visits, "a", question).answer.prompt_tokens == alone


def test_an_answer_is_stopped_and_not_remembered(visits, examples, slow):
    visits.watch("a", examples[0].path)
    length = None
    for _ in range(2):
        replies = visits.ask("a", "Describe the clip.", remember=True)
        assert next(replies).text
        visits.stop("a")
        *_, last = replies
        assert last.is_stopped and len(last.answer.token_ids) < 10 and list_grounds(last)[0] == "stopped"
        # The next one does not see it.
        assert length in (None, last.answer.prompt_tokens)
        length = last.answer.prompt_tokens


def test_an_answer_that_nobody_reads_does_not_keep_the_model(visits, examples, slow):
    visits.watch("a", examples[0].path)
    visits.watch("b", examples[1].path)
    left = visits.ask("a", "Describe the clip.")
    assert next(left).text
    visits.leave("a")  # as when a page is closed; `left` is never read on
    [(question, _), *_] = examples[1].questions.items()
    before = len(slow)
    assert ask(visits, "b", question).text
    assert len(slow) - before < 40
    with pytest.raises(ValueError, match=UNWATCHED):
        ask(visits, "a", question)


def test_pages_that_ask_at_once_are_answered_one_after_another(visits, examples):
    running, most, generate = [], [], visits.model.generate

    def count(*arguments, **options):
        running.append(1)
        most.append(len(running))
        time.sleep(0.05)
        try:
            return generate(*arguments, **options)
        finally:
            running.pop()

    answers, keys = {}, dict(zip("ab", examples))
    for key, example in keys.items():
        visits.watch(key, example.path)
    alone = {key: ask(visits, key, next(iter(example.questions))).text for key, example in keys.items()}

    def visit(key):
        answers[key] = ask(visits, key, next(iter(keys[key].questions))).text

    visits.model.generate = count
    try:
        threads = [threading.Thread(target=visit, args=(key,)) for key in keys]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    finally:
        del visits.model.generate
    assert answers == alone and max(most) == 1


# ------------------------------------------------------------------------------------------------- the command


def test_the_command_names_the_extra_that_it_needs(monkeypatch):
    monkeypatch.setattr(sys.modules[web.__module__], "find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["web"])
    assert result.exit_code == 1
    assert result.stderr == "error: The page needs an extra: pip install 'transformers-omnivinci[web]'.\n"


@pytest.mark.parametrize(
    "arguments, sentence",
    [(["--max-upload", "0"], "`--max-upload 0` is not accepted"), (["--model", "no-where"], "no-where")],
)
def test_the_command_refuses_what_it_cannot_do_before_anything_is_loaded(arguments, sentence):
    result = CliRunner().invoke(app, ["web", *arguments])
    assert result.exit_code == 1 and sentence in result.stderr and result.stderr.count("\n") == 1
