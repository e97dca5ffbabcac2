"""A server of the page, and a browser that opens it."""

import os
import re
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from urllib.request import urlopen

import pytest
from playwright.sync_api import sync_playwright

from transformers_omnivinci.web.examples import make_examples

from .browser import FLAGS, Visitor
from .chromium import CHROMIUM
from .sounds import write_sound

FOLDERS = {}
"""The temporary files of a server, by its address."""


@contextmanager
def served(folder, command, *arguments, end=signal.SIGTERM):
    """The address of `omnivinci web` with nano in a process of its own, whose temporary files are in a folder."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    log = folder / "log"
    command = [*command, "--port", port, *arguments]
    environment = os.environ | {"TMPDIR": str(folder)}
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as process:
        try:
            address = f"http://127.0.0.1:{port}/"
            for _ in range(600):
                assert process.poll() is None, log.read_text()
                if "The page is at" in log.read_text():
                    break
                time.sleep(0.1)
            assert urlopen(address).status == 200
            FOLDERS[address] = folder
            yield address
        finally:
            process.send_signal(end)
            assert process.wait(30) == 0, log.read_text()
    left = {path.name for path in folder.iterdir() if not path.name.startswith("torchinductor")}
    assert left == {"log"}, "Temporary files are left behind."
    assert not re.search("Traceback|Error", log.read_text()), log.read_text()


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    command = ["omnivinci", "web"]
    with served(tmp_path_factory.mktemp("served"), command, "--max-upload", "3", "--max-clips", "3") as address:
        yield address


@pytest.fixture(scope="session")
def slow_address(tmp_path_factory):
    """That of a server whose answers take a while."""
    command = ["python", "-m", "engines.web.slow_server"]
    with served(tmp_path_factory.mktemp("slow"), command, end=signal.SIGINT) as address:
        yield address


@pytest.fixture(scope="session")
def uploads():
    """The names of the clips among the uploads that a server has."""
    return lambda address: sorted(path.name for path in FOLDERS[address].glob("omnivinci-web-*/uploads/*/*.mp4"))


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A real browser, with a microphone that hears a file and a camera that sees a test picture."""
    tone = write_sound(tmp_path_factory.mktemp("heard") / "tone.wav", 3.0)
    with sync_playwright() as playwright:
        flags = [*FLAGS, f"--use-file-for-fake-audio-capture={tone}"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags, headless=True)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, address):
    """Opens pages, each in a profile of its own. At the end, nothing has asked for anything beyond this machine."""
    contexts, outside, errors, usual = [], [], [], address

    def open_page(width=1440, height=900, address=usual, **options):
        options |= {"viewport": {"width": width, "height": height}, "permissions": ["camera", "microphone"]}
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: _is_here(request.url, address) or outside.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        return Visitor(page)

    yield open_page
    for context in contexts:
        context.close()
    assert not outside and not errors, (outside, errors)


def _is_here(url: str, address: str) -> bool:
    return url.startswith((address, address.replace("http:", "ws:"), "data:", "blob:"))


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    """The clips that the page has as examples, with questions whose answers are known."""
    return make_examples(tmp_path_factory.mktemp("examples"))
