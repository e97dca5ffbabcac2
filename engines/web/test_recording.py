"""
Clips and questions that are recorded: Chromium's microphone hears a file with a tone, its camera sees a test picture.

Nano understands no speech. So it is tested that the sound of a recorded question stands in the prompt behind the clip,
and that the answer says so, not what is understood of it.
"""

import re

from playwright.sync_api import expect

from .browser import PATIENCE


def test_a_recorded_question_is_heard_behind_the_clip(visit, examples):
    visitor = visit()
    visitor.watch(examples[0].path)
    [(question, answer), *_] = examples[0].questions.items()
    assert visitor.ask(question) == answer
    visitor.record_question(1.5)
    visitor.page.get_by_test_id("submit-button").click()
    assert visitor.read(1)
    assert visitor.page.locator(".ov-question").nth(1).inner_text().strip() == "recorded question"
    seconds, before, whole = re.search(
        r"heard 0\.0 s – 7\.5 s · recorded question heard, (\d\.\d) s · (\d+) of (\d+) tokens", visitor.grounds(1)
    ).groups()
    # Windows of nano's encoder last 3 s and have 75 tokens; nothing of them had been read before.
    assert 1.0 < float(seconds) < 3.0 and int(whole) - int(before) > 75
    # With a text, both are asked; without remembering, the next question is by itself again.
    visitor.record_question(1.0)
    assert visitor.ask(question) and "recorded question heard" in visitor.grounds(2)
    assert visitor.page.locator(".ov-question").nth(2).inner_text().strip() == f"recorded question {question}"
    assert visitor.ask(question) == answer and "recorded" not in visitor.grounds(3)


def test_a_sound_is_recorded_and_heard(visit):
    visitor = visit()
    visitor.choose_tab("Microphone")
    visitor.page.locator("#ov-microphone .record-button").click()
    visitor.page.wait_for_timeout(2500)
    visitor.page.locator("#ov-microphone .stop-button").click()
    expect(visitor.page.locator(".ov-audio .ov-wave")).to_be_visible(timeout=PATIENCE)
    facts = visitor.page.locator(".ov-clip header p").inner_text()
    assert 1.5 < float(re.match(r"(\d\.\d) s · heard 0\.0 s – \1 s", facts)[1]) < 4.5
    # The tone of the file is heard: a silent recording would be flat.
    points = visitor.page.locator(".ov-wave polygon").get_attribute("points")
    assert sum(float(point.split(",")[1]) < -0.5 for point in points.split()) > 20
    assert visitor.ask("How many sounds are heard?")


def test_a_camera_is_recorded_with_its_sound_and_watched(visit):
    visitor = visit()
    visitor.choose_tab("Camera")
    visitor.page.locator("#ov-camera").get_by_text("Click to Access Webcam").click()
    button = visitor.page.locator("#ov-camera .capture-button")
    button.click()
    expect(button).to_have_text(re.compile("Stop"), timeout=PATIENCE)
    visitor.page.wait_for_timeout(4000)
    button.click()
    expect(visitor.page.locator(".ov-video .ov-wave")).to_be_visible(timeout=PATIENCE)
    facts = visitor.page.locator(".ov-clip header p").inner_text()
    assert re.search(r"· \d+ of \d+ frames seen · heard 0\.0 s – \d\.\d s · \d groups ·", facts), facts
    assert visitor.ask("How many shapes are shown?") and "frames seen" in visitor.grounds(0)
