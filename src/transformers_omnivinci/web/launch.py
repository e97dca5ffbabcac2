"""The server of the page."""

import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress

from .examples import make_examples
from .visits import Visits


def run_page(
    make_visits: Callable[[str], Visits],
    title: str,
    host: str,
    port: int,
    share: bool,
    max_bytes: int,
    ready: Callable[[str, str | None], None],
    voice: str | None = None,
) -> None:
    """
    Serves the page until it is interrupted. Uploads and examples are in a temporary folder, which goes with it.

    Args:
        make_visits (`Callable[[str], Visits]`): Makes what watches and answers, with the folder of uploads.
        title (`str`): What the page says of the model.
        host (`str`), port (`int`): Where it listens.
        share (`bool`): Whether Gradio opens a tunnel, with an address that anybody can reach.
        max_bytes (`int`): The largest upload.
        ready (`Callable[[str, str | None], None]`): Is told the address, and that of the tunnel.
        voice (`str`, *optional*): Who speaks answers, see [`Aloud`].

    Raises:
        OSError: the port is in use.
    """
    with tempfile.TemporaryDirectory(prefix="omnivinci-web-") as folder:
        uploads, clips = os.path.join(folder, "uploads"), os.path.join(folder, "examples")
        os.mkdir(uploads)
        os.mkdir(clips)
        # Gradio reads it when it is imported, and when a page is made.
        os.environ["GRADIO_TEMP_DIR"] = uploads
        from .aloud import Aloud
        from .page import FOLDER, THEME, build_page, page_head

        aloud = None if voice is None else Aloud(voice)
        visits = make_visits(uploads)
        page = build_page(visits, make_examples(clips), title, max_bytes, aloud)
        try:
            _, local, shared = page.launch(
                server_name=host,
                server_port=port,
                share=share,
                max_file_size=max_bytes,
                allowed_paths=[clips],
                theme=THEME,
                css_paths=FOLDER / "page.css",
                head=page_head(max_bytes),
                footer_links=[],
                run_history=False,
                state_session_capacity=1000,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
                inbrowser=False,
                quiet=True,
                prevent_thread_lock=True,
            )
            ready(local, shared)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
        finally:
            page.close(verbose=False)
            visits.close()
