"""The page in a real browser: clips are watched, questions answered, and errors told in a sentence."""

import re
import subprocess

import pytest
from playwright.sync_api import expect

from tests.speech_server import SpeechServer

from .browser import PATIENCE, Visitor
from .conftest import served
from .sounds import write_sound


def first_of(example):
    """A question about an example with its right answer, and another one."""
    return [*example.questions.items()][:2]


def test_a_clip_is_uploaded_and_questions_are_answered(visit, examples):
    visitor = visit()
    visitor.watch(examples[0].path)
    for number, (question, answer) in enumerate(examples[0].questions.items()):
        assert visitor.ask(question) == answer
        grounds = visitor.grounds(number)
        assert "16 frames seen, 0.0 s – 7.4 s" in grounds and "heard 0.0 s – 7.5 s" in grounds
        cached, whole = map(int, re.search(r"(\d+) of (\d+) tokens read before", grounds).groups())
        # The clip was read before the first question, so that no question waits for it.
        assert 0 < whole - cached < 30
        assert re.search(r"first words after \d+\.\d\d s, all after \d+\.\d\d s", grounds)


def test_the_timeline_tells_what_is_seen_and_heard_at_a_second(visit, examples):
    visitor = visit()
    visitor.watch(examples[0].path)
    page = visitor.page
    facts = page.locator(".ov-clip header p").inner_text()
    assert facts == "7.5 s · 64 × 64 · 16 of 60 frames seen · heard 0.0 s – 7.5 s · 8 groups · 70 tokens"
    assert page.locator(".ov-frames i").count() == 16 and page.locator(".ov-groups span").count() == 8
    assert page.locator(".ov-film img").count() == 16 and page.locator(".ov-wave polygon").count() == 1
    track, readout = page.locator(".ov-track"), page.locator(".ov-readout")
    box = track.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 4.2 / 7.5, box["y"] + 20)
    expect(readout).to_have_text("4.2 s · last frame seen: 3.9 s · heard · group 5, 9 tokens")
    page.mouse.click(box["x"] + box["width"] * 2 / 7.5, box["y"] + 20)
    second = "() => document.querySelector('.ov-clip video').currentTime"
    page.wait_for_function(f"({second})() > 1.9")
    assert 1.9 < page.evaluate(second) < 2.1
    track.press("ArrowRight")
    page.wait_for_function(f"({second})() > 2.4")
    assert float(track.get_attribute("aria-valuenow")) == pytest.approx(2.5, abs=0.05)
    assert re.fullmatch(
        r"2\.5 s · last frame seen: 2\.[05] s · heard · group 3, 9 tokens", track.get_attribute("aria-valuetext")
    )


def test_pictures_and_sounds_are_watched(visit, examples, tmp_path):
    visitor = visit()
    visitor.watch(examples[0].path)
    visitor.page.locator(".ov-film img").first.screenshot(path=tmp_path / "picture.png")
    visitor.page.click("#ov-again")
    visitor.upload(tmp_path / "picture.png")
    expect(visitor.page.locator(".ov-image .ov-player img")).to_be_visible(timeout=PATIENCE)
    assert "seen" in visitor.page.locator(".ov-clip header p").inner_text()
    assert visitor.ask("How many shapes are shown?") and "image seen" in visitor.grounds(0)
    visitor.page.click("#ov-again")
    visitor.upload(write_sound(tmp_path / "tone.wav", 3.0))
    expect(visitor.page.locator(".ov-audio .ov-wave")).to_be_visible(timeout=PATIENCE)
    assert visitor.page.locator(".ov-film").count() == 0
    assert visitor.ask("How many sounds are heard?") and "heard 0.0 s – 3.0 s" in visitor.grounds(0)


def test_what_cannot_be_read_is_told_in_a_sentence_and_the_page_goes_on(visit, examples, tmp_path):
    visitor = visit()
    (tmp_path / "notes.mp4").write_text("no video")
    visitor.upload(tmp_path / "notes.mp4")
    sentence = visitor.notice()
    assert sentence.startswith("'notes.mp4' cannot be read as a video, image or sound:") and "/" not in sentence
    visitor.upload(examples[0].path)
    visitor.wait_for_clip()
    expect(visitor.page.locator("#ov-notice [role=alert]")).to_have_count(0)
    (question, answer), _ = first_of(examples[0])
    assert visitor.ask(question) == answer
    # What was watched stays when another file cannot be.
    visitor.page.click("#ov-again")
    visitor.upload(tmp_path / "notes.mp4")
    assert "cannot be read" in visitor.notice()
    assert visitor.ask(question) == answer


@pytest.mark.parametrize("size, told", [(4_000_000_000, "4.0 GB"), (3_000_001, "3.0 MB")])
def test_a_file_beyond_the_limit_is_refused_before_it_is_sent(visit, examples, tmp_path, size, told):
    visitor, sent = visit(), []
    visitor.page.on("request", lambda request: "upload" in request.url and sent.append(request.url))
    with (tmp_path / "hour.mp4").open("wb") as file:
        file.truncate(size)
    visitor.upload(tmp_path / "hour.mp4")
    assert visitor.notice() == f"hour.mp4 has {told}: files of up to 3.0 MB are accepted."
    assert not sent
    visitor.watch(examples[0].path)
    (question, answer), _ = first_of(examples[0])
    assert visitor.ask(question) == answer


def test_the_server_refuses_files_beyond_the_limit_itself(visit, address):
    visitor = visit()
    page = visitor.page
    status = page.evaluate(
        """async () => {
            const form = new FormData();
            form.append("files", new Blob([new Uint8Array(3000001)]), "clip.mp4");
            return (await fetch("gradio_api/upload", { method: "POST", body: form })).status;
        }"""
    )
    assert status == 413


def test_asking_before_anything_was_watched_is_told_in_a_sentence(visit, examples):
    visitor = visit()
    assert visitor.ask("What happens?") == "Nothing was watched yet: open a clip, record one, or take an example."
    visitor.watch(examples[0].path)
    assert visitor.ask("What is <image>?").startswith("The text holds") or "stands for" in visitor.read(0)
    (question, answer), _ = first_of(examples[0])
    assert visitor.ask(question) == answer


def test_an_example_comes_with_questions_and_right_answers(visit, examples):
    visitor = visit()
    page = visitor.page
    page.get_by_role("tab", name="Examples").click()
    page.get_by_role("button", name=examples[0].title).click()
    visitor.wait_for_clip()
    for number, (question, answer) in enumerate(first_of(examples[0])):
        page.locator("#ov-suggestions").get_by_text(question, exact=True).click()
        assert visitor.read(number) == answer
        assert visitor.grounds(number).startswith(f"right answer: {answer} · ")


def test_questions_see_earlier_ones_only_if_they_are_remembered(visit, examples):
    visitor = visit()
    visitor.watch(examples[0].path)
    (question, answer), (other, _) = first_of(examples[0])
    whole = re.compile(r"of (\d+) tokens")
    visitor.ask(other)
    assert visitor.ask(question) == answer
    alone = int(whole.search(visitor.grounds(1))[1])
    visitor.page.get_by_label("Remember earlier questions").check()
    visitor.ask(question)
    visitor.ask(question)
    assert int(whole.search(visitor.grounds(2))[1]) == alone
    assert int(whole.search(visitor.grounds(3))[1]) > alone + 10 and "remembered" in visitor.grounds(3)
    visitor.page.get_by_label("Remember earlier questions").uncheck()
    assert visitor.ask(question) == answer


def test_a_page_never_sees_the_clip_of_another_one(visit, examples):
    one, other = visit(), visit()
    one.watch(examples[0].path)
    assert other.ask("What happens?").startswith("Nothing was watched yet")
    other.watch(examples[2].path)
    for visitor, example in ((one, examples[0]), (other, examples[2]), (one, examples[0])):
        (question, answer), _ = first_of(example)
        assert visitor.ask(question) == answer


def test_two_pages_may_ask_at_once(visit, examples):
    visitors = [visit(), visit()]
    for visitor, example in zip(visitors, (examples[0], examples[2])):
        visitor.watch(example.path)
    for visitor, example in zip(visitors, (examples[0], examples[2])):
        visitor.page.fill("#ov-question textarea", first_of(example)[0][0])
    for visitor in visitors:
        visitor.page.press("#ov-question textarea", "Enter")
    for visitor, example in zip(visitors, (examples[0], examples[2])):
        assert visitor.read(0) == first_of(example)[0][1]


def test_the_clip_that_was_not_used_for_the_longest_time_is_let_go(visit, examples):
    visitors = [visit() for _ in range(4)]
    for visitor in visitors:
        visitor.watch(examples[0].path)
    (question, answer), _ = first_of(examples[0])
    assert visitors[3].ask(question) == answer
    told = visitors[0].ask(question)
    assert told == "The clip of this page was let go, as 3 others have been opened since: open it again."
    visitors[0].page.click("#ov-again")
    visitors[0].watch(examples[0].path)
    assert visitors[0].ask(question) == answer


def test_a_port_that_is_taken_is_told_in_a_sentence(address):
    command = ["omnivinci", "web", "--port", address.rstrip("/").rpartition(":")[2]]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch("error: .*port.*\n", result.stderr), result.stderr


@pytest.mark.parametrize("width, scheme", [(390, "light"), (390, "dark"), (1440, "dark")])
def test_nothing_is_cut_off_and_text_can_be_read_in_windows_of_any_width(visit, examples, width, scheme):
    visitor = visit(width=width, height=860, color_scheme=scheme)
    page = visitor.page
    tabs = [tab.inner_text() for tab in page.get_by_role("tab").all()]
    assert tabs == ["File", "Camera", "Microphone", "Examples"]
    visitor.ask("What happens?")
    visitor.watch(examples[0].path)
    [(question, _), *_] = examples[0].questions.items()
    visitor.ask(question)
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    for selector in (".ov-clip h2", ".ov-clip header p", ".ov-answer", ".ov-grounds", ".ov-axis span", ".ov-question"):
        assert page.evaluate(CONTRAST, selector) > 4.5, selector
    if width == 1440:
        # All of it at once, without scrolling.
        for selector in (".ov-player", ".ov-axis", ".ov-readout", "#ov-question", "#ov-remember"):
            box = page.locator(selector).bounding_box()
            assert box["y"] + box["height"] <= 860, selector


# The contrast of a text with what is behind it, as WCAG 2 has it.
CONTRAST = """(selector) => {
    const element = document.querySelector(selector);
    const channels = (colour) => colour.match(/[0-9.]+/g).map(Number);
    const light = (colour) => {
        const [r, g, b] = channels(colour).map((one) => one / 255)
            .map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    let behind = element;
    while (channels(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const both = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)];
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
}"""


def test_answers_are_spoken(chromium, examples, tmp_path):
    with SpeechServer() as voice, served(tmp_path, ["omnivinci", "web"], "--voice", voice.url) as address:
        page = chromium.new_page()
        page.goto(address)
        visitor = Visitor(page)
        visitor.watch(examples[0].path)
        question, answer = next(iter(examples[0].questions.items()))
        assert visitor.ask(question) == answer
        expect(page.locator("#ov-spoken audio")).to_be_attached(timeout=PATIENCE)
        assert voice.asked[-1]["input"] and page.evaluate(
            "() => new Promise(done => { const sound = document.querySelector('#ov-spoken audio');"
            "const tell = () => done(sound.duration > 0);"
            "if (sound.readyState > 0) tell(); else sound.onloadedmetadata = tell; })"
        )
        page.close()
