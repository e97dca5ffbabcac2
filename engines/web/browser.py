"""What a visitor does on the page."""

from playwright.sync_api import Page, expect

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
PATIENCE = 30_000
"""Milliseconds that something may take to appear."""


class Visitor:
    """A visitor of an open page."""

    def __init__(self, page: Page):
        self.page = page
        page.set_default_timeout(PATIENCE)
        expect(page.locator("#ov-question textarea")).to_be_visible(timeout=PATIENCE)

    def upload(self, path) -> None:
        """Chooses a file."""
        self.page.set_input_files("#ov-file input[type=file]", path)

    def watch(self, path) -> None:
        """Chooses a file, and waits until it is shown."""
        self.upload(path)
        self.wait_for_clip()

    def wait_for_clip(self) -> None:
        """Waits until a clip is shown."""
        expect(self.page.locator(".ov-clip")).to_be_visible(timeout=PATIENCE)

    def ask(self, question: str) -> str:
        """Types a question; returns the answer once it is whole."""
        number = self.page.locator(".ov-exchange").count()
        self.page.fill("#ov-question textarea", question)
        self.page.press("#ov-question textarea", "Enter")
        return self.read(number)

    def read(self, number: int) -> str:
        """The answer of an exchange, or what is said in the place of it, once it is whole."""
        exchange = self.page.locator(".ov-exchange").nth(number)
        expect(exchange.locator(".ov-grounds, .ov-error")).to_be_visible(timeout=PATIENCE)
        # The question can be typed again.
        expect(self.page.get_by_test_id("submit-button")).to_be_visible(timeout=PATIENCE)
        return exchange.locator(".ov-answer, .ov-error").inner_text()

    def grounds(self, number: int) -> str:
        """What the answer of an exchange rests on."""
        return self.page.locator(".ov-exchange").nth(number).locator(".ov-grounds").inner_text()

    def notice(self) -> str:
        """The sentence above the clip, once there is an error."""
        alert = self.page.locator("#ov-notice [role=alert]")
        expect(alert).to_be_visible(timeout=PATIENCE)
        return alert.inner_text()

    def record_question(self, seconds: float) -> None:
        """Records a question by the microphone, and attaches it."""
        self.page.get_by_test_id("microphone-button").click()
        self.page.get_by_role("button", name="Start recording").click()
        self.page.wait_for_timeout(1000 * seconds)
        self.page.get_by_role("button", name="Stop recording").click()
        self.page.get_by_role("button", name="Attach audio").click()

    def choose_tab(self, name: str) -> None:
        """Turns to another way to get a clip."""
        self.page.get_by_role("tab", name=name).click()
