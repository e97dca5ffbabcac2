"""Answers that come piece by piece and are stopped, and pages that are closed."""

import re
import time

from playwright.sync_api import expect

from .browser import PATIENCE

LONG = "Describe the clip."


def test_answers_are_streamed_and_stopped(visit, slow_address, examples):
    visitor = visit(address=slow_address)
    visitor.watch(examples[0].path)
    page, answer = visitor.page, visitor.page.locator(".ov-answer").first
    page.get_by_label("Remember earlier questions").check()
    page.fill("#ov-question textarea", LONG)
    page.press("#ov-question textarea", "Enter")
    lengths = []
    while len(lengths) < 4:
        expect(page.locator(".ov-caret")).to_be_visible(timeout=PATIENCE)
        length = len(answer.inner_text())
        if length and length not in lengths:
            lengths.append(length)
        time.sleep(0.02)
    assert lengths == sorted(lengths)
    page.locator("#ov-question .stop-button").click()
    stopped = visitor.read(0)
    grounds = visitor.grounds(0)
    assert grounds.startswith("stopped · ") and grounds.endswith("not remembered")
    assert len(stopped) < 60
    # Another question is answered; it does not see the one that was stopped.
    [(question, right), *_] = examples[0].questions.items()
    assert visitor.ask(question) == right
    page.get_by_label("Remember earlier questions").uncheck()
    assert visitor.ask(question) == right
    whole = re.compile(r"of (\d+) tokens")
    assert whole.search(visitor.grounds(1))[1] == whole.search(visitor.grounds(2))[1]


def test_a_second_page_waits_until_the_model_is_free(visit, slow_address, examples):
    first, second = visit(address=slow_address), visit(address=slow_address)
    first.watch(examples[0].path)
    second.watch(examples[2].path)
    first.page.fill("#ov-question textarea", LONG)
    first.page.press("#ov-question textarea", "Enter")
    expect(first.page.locator(".ov-caret")).to_be_visible(timeout=PATIENCE)
    [(question, right), *_] = examples[2].questions.items()
    assert second.ask(question) == right
    assert first.read(0).split()[0]


def test_a_page_that_is_closed_frees_its_clip(visit, slow_address, uploads, examples):
    keeper, leaver = visit(address=slow_address), visit(address=slow_address)
    keeper.watch(examples[0].path)
    assert uploads(slow_address) == [examples[0].path.name]
    leaver.watch(examples[1].path)
    assert uploads(slow_address) == [examples[0].path.name, examples[1].path.name]
    # In the middle of an answer, which keeps the model from nobody.
    leaver.page.fill("#ov-question textarea", LONG)
    leaver.page.press("#ov-question textarea", "Enter")
    expect(leaver.page.locator(".ov-caret")).to_be_visible(timeout=PATIENCE)
    leaver.page.close()
    deadline = time.monotonic() + 20
    while uploads(slow_address) != [examples[0].path.name]:
        assert time.monotonic() < deadline, uploads(slow_address)
        time.sleep(0.1)
    [(question, right), *_] = examples[0].questions.items()
    assert keeper.ask(question) == right
    keeper.page.click("#ov-again")
    keeper.watch(examples[2].path)
    assert uploads(slow_address) == [examples[2].path.name]
