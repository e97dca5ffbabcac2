"""`omnivinci web`: a page in which clips are watched and questions are asked."""

import math
import signal
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from ..nano import NANO
from .ask import load_with_processor
from .options import (
    AttnImplementation,
    Audio,
    Device,
    DType,
    Fps,
    MaxNewTokens,
    Model,
    NumFrames,
    Traceback,
    WeightDType,
)
from .sources import check_model
from .terminal import plain_errors, show_progress


def web(
    model: Model = NANO,
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="Port to listen on.")] = 7860,
    share: Annotated[
        bool, typer.Option("--share", help="Open a tunnel by Gradio, with an address that anybody can reach.")
    ] = False,
    max_upload: Annotated[float, typer.Option(metavar="MB", help="The largest file that is accepted.")] = 2000.0,
    max_clips: Annotated[
        int, typer.Option(metavar="N", min=1, help="Clips that are kept at a time, one for each open page.")
    ] = 16,
    voice: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Speak answers, too: auto, or a voice as of `omnivinci ask --voice`."),
    ] = None,
    num_frames: NumFrames = None,
    fps: Fps = None,
    audio: Audio = None,
    max_new_tokens: MaxNewTokens = 512,
    device: Device = "auto",
    dtype: WeightDType = DType.auto,
    attn_implementation: AttnImplementation = None,
    traceback: Traceback = False,
) -> None:
    """
    Open a page to watch clips and ask about them.

    Videos, pictures and sounds are uploaded or recorded, and watched once; questions are typed or spoken. Each open
    page has a session of its own, which is forgotten when it is closed.
    """
    with plain_errors(traceback):
        if not 0 < max_upload < math.inf:
            raise ValueError(f"`--max-upload {max_upload:g}` is not accepted: it must be a positive number of MB.")
        check_model(model)
        # Before the model is loaded, which takes long; it is imported when it is known where its files may be.
        if find_spec("gradio") is None:
            raise ImportError("The page needs an extra: pip install 'transformers-omnivinci[web]'.")
        if voice is not None:
            from ..inference.speech import make_voice

            make_voice(voice)
        from ..web.launch import run_page
        from ..web.visits import Visits

        with show_progress() as progress:
            processor, loaded = load_with_processor(progress, model, device, dtype, attn_implementation)
        options = {"num_frames": num_frames, "fps": fps, "load_audio_from_video": audio}
        options = {name: value for name, value in options.items() if value is not None}
        # So that what is temporary is deleted.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

        def make_visits(folder: str) -> Visits:
            return Visits(loaded, processor, folder, max_clips, max_new_tokens, **options)

        def tell(local: str, shared: str | None) -> None:
            for address in filter(None, (local, shared)):
                typer.echo(f"The page is at {address}")
            typer.secho("Ctrl-C ends it.", dim=True, err=True)

        title = "nano, a small model that only knows a synthetic world" if model == NANO else model
        run_page(make_visits, title, host, port, share, round(max_upload * 1e6), tell, voice)
