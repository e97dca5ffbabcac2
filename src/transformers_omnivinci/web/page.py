"""The page: a clip on one side, questions about it on the other."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from inspect import isgeneratorfunction
from pathlib import Path
from urllib.parse import quote

import gradio as gr

from .aloud import Aloud
from .examples import Example
from .stage import show_stage
from .transcript import Exchange, show_notice, show_transcript
from .visits import Visits

FOLDER = Path(__file__).parent
HINT = "Open a clip, then ask what is seen and heard in it, and when."
READY = "Ask about the clip. It was watched once; each answer tells what it rests on."
SUGGESTIONS = ("What happens?",)
UNEXPECTED = "That did not work because of an error in the program, which its log describes."
TOLD_ERRORS = (ImportError, OSError, RuntimeError, TypeError, ValueError)
"""Errors of the library, which have a sentence for the user."""
QUIET = {"api_visibility": "private", "show_progress": "hidden"}
# A mirrored picture would have to be turned by the system's FFmpeg; a larger one would only slow the recording down.
CAMERA = gr.WebcamOptions(mirror=False, constraints={"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}})
LONGEST_PASTE = 100_000
"""Letters that are pasted as text; Gradio makes a file of more."""

THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.blue,
    neutral_hue=gr.themes.colors.slate,
    radius_size=gr.themes.sizes.radius_md,
    # Those of the system, as the page works without any network.
    font=["system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"],
    font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
)


def build_page(
    visits: Visits, examples: Sequence[Example], title: str, max_bytes: int, aloud: Aloud | None = None
) -> gr.Blocks:
    """
    The page of `omnivinci web`.

    Args:
        visits ([`Visits`]): What watches and answers.
        examples (`Sequence[Example]`): Clips to begin with.
        title (`str`): What is said of the model.
        max_bytes (`int`): The largest upload, which is told beside it.
        aloud ([`Aloud`], *optional*): What speaks answers. `None`: they are text alone.
    """
    with gr.Blocks(title="OmniVinci", analytics_enabled=False, fill_width=True) as page:
        exchanges, truths = gr.State(()), gr.State({})
        gr.HTML(f'<div class="ov-title"><h1>OmniVinci</h1><p>{escape(title)}</p></div>')
        with gr.Row(elem_id="ov-columns"):
            with gr.Column(scale=7, min_width=320, elem_id="ov-left"):
                notice = gr.HTML(elem_id="ov-notice")
                with gr.Column(elem_id="ov-sources") as sources:
                    file, camera, microphone, buttons = _place_sources(examples, max_bytes)
                    back = gr.Button("Back to the clip", size="sm", visible=False, elem_id="ov-back")
                with gr.Column(visible=False, elem_id="ov-stage") as stage:
                    clip = gr.HTML(js_on_load=(FOLDER / "stage.js").read_text(encoding="utf-8"), elem_id="ov-clip")
                    again = gr.Button("Another clip", size="sm", elem_id="ov-again")
            with gr.Column(scale=5, min_width=320, elem_id="ov-right"):
                talk, suggestions, question, remember = _place_talk()
                spoken = gr.HTML(visible=aloud is not None, elem_id="ov-spoken")

        # The model works for one visit at a time; the others wait for it in threads of their own.
        busy = {**QUIET, "concurrency_limit": visits.most, "concurrency_id": "model", "trigger_mode": "once"}
        free = {**QUIET, "concurrency_limit": None}

        shown = [sources, stage, clip, notice, talk, suggestions, exchanges, truths]
        watch = partial(_watch, visits, {str(example.path): example for example in examples})
        for source, event in (
            (file, file.upload),
            (camera, camera.stop_recording),
            (microphone, microphone.stop_recording),
        ):
            # Emptied afterwards, so that the same file can be chosen again.
            event(_of_visit(watch), source, shown, **busy).then(lambda: None, None, source, **free)
        for button, example in zip(buttons, examples, strict=True):
            button.click(_of_visit(partial(watch, path=str(example.path))), None, shown, **busy)
        again.click(lambda: _turn(to_sources=True), None, [sources, stage, notice, back], **free)
        back.click(lambda: _turn(to_sources=False), None, [sources, stage, notice, back], **free)

        asked = (
            _of_visit(partial(_ask, visits)),
            [question, remember, exchanges, truths],
            [talk, question, exchanges],
        )
        answers = [
            question.submit(*asked, **busy),
            suggestions.click(lambda sample: {"text": sample[0], "files": []}, suggestions, question, **free).then(
                *asked, **busy
            ),
        ]
        for answer in answers if aloud is not None else ():
            answer.then(partial(_speak, aloud), exchanges, spoken, **free)
        question.stop(_of_visit(visits.stop), None, None, **free | {"queue": False})
        page.unload(_of_visit(visits.leave))
    return page


def _place_sources(examples: Sequence[Example], max_bytes: int) -> tuple:
    """Where clips come from: a file, a camera, a microphone, and buttons of examples."""
    with gr.Tabs():
        with gr.Tab("File"):
            gr.HTML(_help(f"A video, a picture or a sound of up to {format_bytes(max_bytes)}."))
            file = gr.File(label="A video, a picture or a sound", show_label=False, elem_id="ov-file")
        with gr.Tab("Camera"):
            gr.HTML(_help("A clip with its sound. It is watched when the recording is stopped."))
            camera = gr.Video(
                sources=["webcam"],
                include_audio=True,
                webcam_options=CAMERA,
                show_label=False,
                elem_id="ov-camera",
            )
        with gr.Tab("Microphone"):
            gr.HTML(_help("A sound to ask about. It is heard when the recording is stopped."))
            microphone = gr.Audio(sources=["microphone"], type="filepath", show_label=False, elem_id="ov-microphone")
        with gr.Tab("Examples"):
            gr.HTML(_help("Clips of the synthetic world that nano knows, with questions."))
            with gr.Row(elem_id="ov-examples"):
                buttons = [
                    gr.Button(one.title, icon=one.picture, min_width=240, elem_classes="ov-example")
                    for one in examples
                ]
    return file, camera, microphone, buttons


def _place_talk() -> tuple:
    """The conversation, questions to choose from, a box for others, and whether they are remembered."""
    talk = gr.HTML(show_transcript((), HINT), elem_id="ov-talk", autoscroll=True)
    suggestions = gr.Dataset(
        components=["textbox"],
        samples=[[text] for text in SUGGESTIONS],
        show_label=False,
        visible=False,
        elem_id="ov-suggestions",
    )
    question = gr.MultimodalTextbox(
        sources=["microphone"],
        file_types=["audio"],
        placeholder="Ask about the clip",
        label="Question",
        show_label=False,
        max_lines=4,
        max_plain_text_length=LONGEST_PASTE,
        html_attributes=gr.InputHTMLAttributes(spellcheck=False),
        elem_id="ov-question",
    )
    remember = gr.Checkbox(
        label="Remember earlier questions", info="Otherwise each one is answered by itself.", elem_id="ov-remember"
    )
    return talk, suggestions, question, remember


def _watch(visits: Visits, examples: Mapping[str, Example], key: str, path: str | None) -> Iterator[list]:
    """Watches a file; gives updates of the parts that show it."""
    if path is None:
        return
    name = os.path.basename(path)
    yield [gr.skip()] * 3 + [show_notice(f"Watching {name} …")] + [gr.skip()] * 4
    try:
        clip = show_stage(visits.watch(key, path), f"gradio_api/file={quote(path)}")
    except Exception as error:
        yield [gr.skip()] * 3 + [show_notice(_sentence(error), is_error=True)] + [gr.skip()] * 4
        return
    questions = dict(examples[path].questions) if path in examples else {}
    yield [
        gr.Column(visible=False),
        gr.Column(visible=True),
        clip,
        "",
        show_transcript((), READY),
        gr.Dataset(samples=[[text] for text in questions or SUGGESTIONS], visible=True),
        (),
        questions,
    ]


def _ask(
    visits: Visits, key: str, asked: dict | None, remembers: bool, before: tuple[Exchange, ...], truths: dict
) -> Iterator[tuple]:
    """Answers a question; gives updates of the conversation, of the box for questions, and of the exchanges."""
    asked = asked or {}
    text, files = (asked.get("text") or "").strip(), asked.get("files") or []
    exchange = Exchange(text, bool(files), bool(remembers), truth="" if files else truths.get(text, ""))
    waiting = gr.MultimodalTextbox(value=None, submit_btn=False, stop_btn=True)
    yield show_transcript([*before, exchange]), waiting, gr.skip()
    try:
        if len(files) > 1:
            raise ValueError(f"A question has one recording, but this one has {len(files)}.")
        for reply in visits.ask(key, text, *files, remember=exchange.is_remembered):
            exchange = replace(exchange, reply=reply)
            yield show_transcript([*before, exchange]), gr.skip(), gr.skip()
    except Exception as error:
        exchange = replace(exchange, error=_sentence(error))
    after = (*before, exchange)
    yield show_transcript(after), gr.MultimodalTextbox(submit_btn=True, stop_btn=False), after


def _speak(aloud: Aloud, exchanges: tuple[Exchange, ...]) -> str:
    """The last answer as sound."""
    reply = exchanges[-1].reply if exchanges else None
    return "" if reply is None else aloud.show(reply.text)


def _of_visit(handler: Callable) -> Callable:
    """A handler for Gradio of one whose first argument is the key of a visit: that of the page as it is open."""
    # Gradio looks at the annotation, and streams what is a generator.
    if not isgeneratorfunction(handler.func if isinstance(handler, partial) else handler):

        def answer(request: gr.Request, *arguments):
            return handler(request.session_hash, *arguments)

        return answer

    def stream(request: gr.Request, *arguments):
        yield from handler(request.session_hash, *arguments)

    return stream


def format_bytes(number: int) -> str:
    """A size as `"2.0 GB"` or `"0.5 MB"`, as `limit.js` tells it."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def _help(text: str) -> str:
    return f'<p class="ov-help">{escape(text)}</p>'


def page_head(max_bytes: int) -> str:
    """What stands in the head of the page: files beyond a limit are refused before they are uploaded."""
    script = (FOLDER / "limit.js").read_text(encoding="utf-8")
    return f"<script>const OMNIVINCI_MAX_BYTES = {json.dumps(max_bytes)};\n{script}</script>"


def _sentence(error: Exception) -> str:
    """What a visitor is told of an error. What was not foreseen goes to the log."""
    if isinstance(error, TOLD_ERRORS):
        return " ".join(str(error).split()) or UNEXPECTED
    logging.getLogger(__name__).error("An error of the page", exc_info=error)
    return UNEXPECTED


def _turn(to_sources: bool) -> tuple:
    """Updates that show where clips come from, or the one that was watched."""
    return gr.Column(visible=to_sources), gr.Column(visible=not to_sources), "", gr.Button(visible=True)
