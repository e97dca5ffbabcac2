"""`omnivinci chat`: questions in a terminal about media that are watched once."""

import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

from ..nano import NANO
from .ask import load_with_processor
from .evidence_text import print_evidence
from .options import (
    AttnImplementation,
    Audio,
    Device,
    DType,
    End,
    Evidence,
    Fps,
    MaxNewTokens,
    Model,
    NumFrames,
    Start,
    Traceback,
    Voice,
    WeightDType,
)
from .sources import check_model, content_item
from .terminal import (
    TOLD_ERRORS,
    count_watched,
    introduce_nano,
    plain_errors,
    print_table,
    show_progress,
    tell,
)

PROMPT = "> "


def chat(
    *,
    media: Annotated[
        list[str] | None,
        typer.Argument(metavar="MEDIA", help="Videos, images or sounds: files, URLs or folders of frames."),
    ] = None,
    independent: Annotated[
        bool, typer.Option("--independent", help="Answer each question by itself, without those before it.")
    ] = False,
    model: Model = NANO,
    num_frames: NumFrames = None,
    fps: Fps = None,
    start: Start = None,
    end: End = None,
    audio: Audio = None,
    evidence: Evidence = False,
    speak: Annotated[bool, typer.Option("--speak", help="Speak answers aloud, while they are generated.")] = False,
    speak_to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write spoken answers into this folder, as answer-1.wav etc.")
    ] = None,
    voice: Voice = "auto",
    listen: Annotated[
        bool,
        typer.Option("--listen", help="Take spoken questions: Enter records one, the name of a sound file is one."),
    ] = False,
    max_new_tokens: MaxNewTokens = 512,
    device: Device = "auto",
    dtype: WeightDType = DType.auto,
    attn_implementation: AttnImplementation = None,
    traceback: Traceback = False,
) -> None:
    """
    Ask many questions about media that are watched once.

    Questions are lines of the terminal, or of a pipe. Lines that begin with a slash are commands: /help lists them.
    """
    with plain_errors(traceback):
        speech = _prepare_speech(speak, speak_to, voice)
        items = [content_item(source) for source in media or []]
        check_model(model)
        introduce_nano(model)
        from ..sessions import Session

        with show_progress() as progress:
            processor, loaded = load_with_processor(progress, model, device, dtype, attn_implementation)
        options = {"num_frames": num_frames, "fps": fps, "video_start": start, "video_end": end}
        options = {name: value for name, value in options.items() if value is not None}
        if audio is not None:
            options["load_audio_from_video"] = audio
        talk = Chat(Session(loaded, processor), options, not independent, max_new_tokens, evidence)
        talk.speech, talk.listens = speech, listen
        for item in items:
            talk.show(item)
        talk.keep_beginning()
        if sys.stdin.isatty():
            typer.secho("Ask, or type /help for commands and /quit to leave.", dim=True, err=True)
            if listen:
                typer.secho("Enter records a question; the name of a sound file is one, too.", dim=True, err=True)
        _talk(talk, traceback)


def _prepare_speech(aloud: bool, folder: Path | None, voice: str) -> Callable | None:
    """Makes a [`SpokenAnswer`] for each answer; `None` if none is spoken. OSError or ValueError if none can be."""
    if not aloud and folder is None:
        return None
    from ..inference.speech import make_voice, write_spoken
    from ..inference.speech.files import check_player, play
    from .speaking import SpokenAnswer

    if aloud and folder is not None:
        raise ValueError("Answers are spoken aloud, `--speak`, or into files, `--speak-to`, not both.")
    if folder is not None and not folder.is_dir():
        raise OSError(f"There is no folder {str(folder)!r:.200} for spoken answers.")
    who, number = make_voice(voice), 0
    if aloud:
        check_player()

    def begin() -> SpokenAnswer:
        nonlocal number
        if folder is None:
            return SpokenAnswer(who, lambda spoken: [None for _ in play(spoken)])
        number += 1
        path = folder / f"answer-{number}.wav"
        return SpokenAnswer(who, lambda spoken: write_spoken(spoken, path, "the answer"))

    return begin


def _talk(talk: "Chat", with_traceback: bool) -> None:
    """Answers lines of stdin up to their end. What cannot be done is told, and the chat goes on."""
    is_terminal = sys.stdin.isatty()
    # So that a line of other bytes is an error of its own, and not of those that were read together with it.
    sys.stdin.reconfigure(errors="surrogateescape")
    if is_terminal:
        with suppress(ImportError):  # Windows, whose terminal has all of it
            import readline  # noqa: F401  (gives `input` a history and keys to edit lines)
    while not talk.has_ended:
        try:
            line = input(PROMPT if is_terminal else "").strip()
            if line:
                talk.take(line)
            elif talk.listens and is_terminal:
                talk.listen()
        except EOFError:
            if is_terminal:
                typer.echo()
            return
        except KeyboardInterrupt:
            typer.secho("\nStopped. /quit leaves the chat.", dim=True, err=True)
        except TOLD_ERRORS as error:
            if with_traceback or isinstance(error, BrokenPipeError):
                raise
            tell(error)


class Chat:
    """
    A session, and what lines do with it.

    Args:
        session ([`Session`]): It, without media.
        options (`dict`): Of the processor, for videos.
        keep (`bool`): Whether questions see those before them.
        max_new_tokens (`int`): Maximum length of an answer.
        evidence (`bool`): Whether what an answer rests on is told after it.

    Attributes:
        has_ended (`bool`): Whether it was left.
    """

    def __init__(self, session, options: dict, keep: bool, max_new_tokens: int, evidence: bool = False):
        self.session, self.options, self.keep, self.max_new_tokens = session, options, keep, max_new_tokens
        self.evidence = evidence
        self.has_ended = False
        self.speech: Callable | None = None  # makes what speaks an answer
        self.listens = False  # whether names of sound files are questions
        self.commands: dict[str, tuple[str, Callable[[str], None], str]] = {
            "/watch": ("MEDIUM", self._watch, "show another video, image or sound"),
            "/timeline": ("", self._timeline, "list the media, and which seconds of them are seen and heard"),
            "/seconds": ("A B", self._seconds, "tell what is seen and heard from second A to second B"),
            "/forget": ("S", self._forget, "forget the picture and sound before second S"),
            "/save": ("FOLDER", self._save, "write the media and the conversation to a new folder"),
            "/load": ("FOLDER", self._load, "go on with what was saved, instead of this chat"),
            "/reset": ("", self._reset, "go back to the beginning of the chat, or to what was loaded last"),
            "/help": ("", self._help, "list the commands"),
            "/quit": ("", self._quit, "leave; so does the end of the input"),
        }
        self.keep_beginning()

    def keep_beginning(self) -> None:
        """Has `/reset` go back to what was watched and said so far."""
        self._beginning = self.session.fork()

    def take(self, line: str) -> None:
        """
        Does what a line says: a command, or a question, whose answer is printed while it is generated.

        Raises:
            ValueError: there is no such command, or it takes other arguments; the line holds bytes that are no text;
                or nothing was watched.
            OSError, RuntimeError, TypeError: what it asks for cannot be done. The chat is then as before.
        """
        if self.listens and os.path.isfile(_path(line)):
            return self._answer_sound(_path(line))
        if not line.startswith("/"):
            return self._answer(line)
        name, _, argument = line.partition(" ")
        if name not in self.commands:
            raise ValueError(f"There is no command {name!r}: /help lists them.")
        takes, run, _ = self.commands[name]
        argument = argument.strip()
        if bool(argument) != bool(takes):
            raise ValueError(f"Type `{name} {takes}`." if takes else f"`{name}` takes nothing, got {argument!r}.")
        run(argument)

    def show(self, item: dict) -> None:
        """Watches a medium, an item of a message; errors are those of [`Session.watch`]."""
        session, options = self.session, self.options if item["type"] == "video" else {}
        with show_progress() as progress, count_watched(session.processor, session.model, progress):
            session.watch(item, **options)

    def _answer(self, question: str) -> None:
        if any("\ud800" <= letter <= "\udfff" for letter in question):
            raise ValueError(f"{question!r:.80} holds bytes that are no text in {sys.stdin.encoding}.")
        if not self.session.timeline():
            raise ValueError("Nothing was watched yet: `/watch MEDIUM` shows a video, an image or a sound.")
        self._ask(self.session, question)

    def _answer_sound(self, path: str) -> None:
        """Answers a spoken question, which stands behind what was said before; errors leave the chat as it was."""
        from ..media import kind_of

        kind = kind_of(path)
        if kind != "audio":
            raise ValueError(f"{path!r:.200} is a {kind}: a question is a sound. `/watch` shows what is asked about.")
        branch = self.session.fork()
        try:
            branch.watch({"type": "audio", "audio": path})
            self._ask(branch, "")
        except BaseException:
            branch.close()
            raise
        if self.keep:
            self._change(branch)
        else:
            branch.close()

    def listen(self) -> None:
        """Records a question up to the next Enter, and answers it."""
        from ..inference.speech.listening import record

        with tempfile.TemporaryDirectory(prefix="omnivinci-") as folder:
            path = Path(folder, "question.wav")
            record(path, lambda: input("Recording; Enter ends it. "))
            self._answer_sound(str(path))

    def _ask(self, session, question: str) -> None:
        """Prints an answer while it is generated, and has it spoken."""
        options = {"keep": self.keep, "max_new_tokens": self.max_new_tokens, "return_evidence": self.evidence}
        # Leaving the context, as Ctrl-C does, ends an answer; the session is then as before the question.
        speaking = nullcontext() if self.speech is None else self.speech()
        with speaking as spoken:
            with session.ask(question, stream=True, **options) as stream:
                for text in stream:
                    typer.echo(text, nl=False)
                    if spoken is not None:
                        spoken.say(text)
            typer.echo()
            if self.evidence:
                print_evidence(stream.answer, session)

    # ---------------------------------------------------------------------------------------------------- commands

    def _watch(self, argument: str) -> None:
        self.show(content_item(_path(argument)))

    def _timeline(self, _: str) -> None:
        self._list(-math.inf, math.inf)

    def _seconds(self, argument: str) -> None:
        start, end = _numbers(argument, 2, "`/seconds A B` takes two seconds of the timeline")
        if not start <= end:
            raise ValueError(f"`/seconds A B` goes from A to B, but {start:g} is after {end:g}.")
        self._list(start, end)

    def _list(self, start: float, end: float) -> None:
        """Prints what is seen and heard from one second of the session's clock to another one."""
        watched = self.session.timeline()
        ends = [one.start + one.duration for one in watched]
        is_whole = start == -math.inf
        rows = [
            (one, last, *seconds_of(one, start, end))
            for one, last in zip(watched, ends, strict=True)
            if is_whole or (one.start <= end and start < last)
        ]
        if not rows:
            typer.echo(f"The timeline ends at {max(ends):.1f} s." if ends else "Nothing was watched yet.")
            return
        columns = {
            "medium": [os.path.basename(one.name.strip("'\"")) for one, *_ in rows],
            "seconds": [f"{one.start:.1f} - {last:.1f}" if one.duration else "" for one, last, *_ in rows],
            "frames seen": [
                "image" if one.kind == "image" else "\n".join(_frames(*span) for span in seen) or "none"
                for one, _, seen, _ in rows
            ],
            "sound heard": [
                "" if one.kind == "image" else "\n".join(f"{a:.1f} - {b:.1f}" for a, b in heard) or "none"
                for one, _, _, heard in rows
            ],
        }
        if is_whole:
            columns["tokens"] = [f"{one.num_tokens:,}" for one, *_ in rows]
        print_table(columns, numbers=["tokens"])

    def _forget(self, argument: str) -> None:
        (before,) = _numbers(argument, 1, "`/forget S` takes a second of the timeline")
        self.session.forget(before)

    def _save(self, argument: str) -> None:
        path = _path(argument)
        self.session.save(path)
        typer.echo(f"Saved to {path}.")

    def _load(self, argument: str) -> None:
        self._change(type(self.session).load(_path(argument), self.session.model, self.session.processor))
        self.keep_beginning()
        names = ", ".join(one.name for one in self.session.timeline())
        typer.echo(f"Loaded: {names or 'nothing was watched'}.")

    def _reset(self, _: str) -> None:
        self._change(self._beginning.fork())

    def _change(self, session) -> None:
        self.session.close()
        self.session = session

    def _help(self, _: str) -> None:
        for name, (takes, _, text) in self.commands.items():
            typer.echo(f"{f'{name} {takes}':16}  {text}")
        typer.echo("Seconds count over all media, one after another, as /timeline lists them. Ctrl-C stops an answer.")

    def _quit(self, _: str) -> None:
        self.has_ended = True


def seconds_of(watched, start: float, end: float) -> tuple[list, list]:
    """
    What is seen and heard of a medium in a part of a session.

    Args:
        watched ([`Watched`]): The medium.
        start (`float`), end (`float`): The part, on the clock of the session.

    Returns:
        `tuple[list[tuple[float, float, float]], list[tuple[float, float]]]`: on that clock, spans from the first to
        the last frame with the frames per second; and spans of sound.
    """
    seen, heard = [], []
    for first, last, rate in watched.seen:
        # A span has a frame each 1/rate seconds: only those of the part count.
        number = round((last - first) * rate) + 1
        frames = [first + watched.start + (index / rate if rate else 0.0) for index in range(number)]
        frames = [second for second in frames if start <= second <= end]
        if frames:
            seen.append((frames[0], frames[-1], rate if len(frames) > 1 else 0.0))
    for first, last in watched.heard:
        first, last = max(first + watched.start, start), min(last + watched.start, end)
        if first <= last:
            heard.append((first, last))
    return seen, heard


def _frames(first: float, last: float, rate: float) -> str:
    return f"{first:.1f} - {last:.1f}, {rate:.2g} a second" if rate else f"{first:.1f}"


def _path(argument: str) -> str:
    """A path or URL as it is typed or dragged into a terminal: perhaps quoted, perhaps from the home folder."""
    if len(argument) > 1 and argument[0] == argument[-1] and argument[0] in "'\"":
        argument = argument[1:-1]
    return os.path.expanduser(argument)


def _numbers(argument: str, number: int, usage: str) -> Sequence[float]:
    try:
        values = [float(word) for word in argument.split()]
    except ValueError:
        values = []
    if len(values) != number or not all(map(math.isfinite, values)):
        raise ValueError(f"{usage}, got {argument!r}.")
    return values
