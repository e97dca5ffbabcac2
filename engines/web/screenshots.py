"""
Draws `docs/web.png`: the page in a wide window, and in a narrow one with a dark background.

    python engines/run.py web -- python -m engines.web.screenshots [FILE]
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from transformers_omnivinci.web.examples import make_examples

from .browser import FLAGS, PATIENCE, Visitor
from .chromium import CHROMIUM
from .conftest import served

GAP, BACK, COLOURS = 24, "#d5dbe4", 192


def main(output: str = "docs/web.png") -> None:
    """Writes the picture."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        folder = Path(folder)
        (folder / "served").mkdir()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, headless=True)
        with served(folder / "served", ["omnivinci", "web"]) as address:
            shots = [
                take(browser, address, folder / "wide.png", 1440, 860, "light"),
                take(browser, address, folder / "narrow.png", 390, 860, "dark"),
            ]
        browser.close()
    whole = Image.new("RGB", (sum(shot.width for shot in shots) + GAP, max(shot.height for shot in shots)), BACK)
    left = 0
    for shot in shots:
        whole.paste(shot, (left, 0))
        left += shot.width + GAP
    whole.quantize(COLOURS, dither=Image.Dither.NONE).save(output, optimize=True)
    print(f"{output}: {whole.width} x {whole.height}, {Path(output).stat().st_size:,} bytes")


def take(browser: Browser, address: str, path: Path, width: int, height: int, scheme: str) -> Image.Image:
    """A window in which an example was watched and two questions were answered."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.goto(address)
    visitor = Visitor(page)
    visitor.choose_tab("Examples")
    with tempfile.TemporaryDirectory() as folder:
        example = make_examples(folder, number=1)[0]
    page.get_by_role("button", name=example.title).click()
    visitor.wait_for_clip()
    for number, question in enumerate([*example.questions][:2]):
        page.locator("#ov-suggestions").get_by_text(question, exact=True).click()
        visitor.read(number)
    page.wait_for_function("() => document.querySelector('.ov-clip video').readyState > 1")
    page.locator(".ov-track").press("End")
    for _ in range(6):
        page.locator(".ov-track").press("ArrowLeft")
    expect(page.locator(".ov-readout")).to_contain_text("heard", timeout=PATIENCE)
    page.evaluate("() => window.scrollTo(0, 0)")
    page.wait_for_timeout(500)
    page.screenshot(path=path)
    context.close()
    return Image.open(path).convert("RGB")


if __name__ == "__main__":
    main(*sys.argv[1:])
