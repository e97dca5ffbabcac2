"""Voices by their names."""

import shutil
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from .programs import PROGRAMS, ProgramVoice, find_piper_voice
from .server_voice import AudioServer, ServerVoice
from .voice import Voice

AUTO = "auto"
"""Names the first voice that this machine has."""


def find_programs() -> list[str]:
    """The programs of this machine that can speak, the preferred one first; piper only with a voice."""
    found = [name for name, one in PROGRAMS.items() if shutil.which(one.program) is not None]
    return [name for name in found if name != "piper" or find_piper_voice() is not None]


def make_voice(name: str = AUTO, speed: float = 1.0, reads_out: bool = True) -> Voice:
    """
    A voice by its name, after checking that it is there.

    Args:
        name (`str`, defaults to `"auto"`):
            - `"auto"`: the first of piper, espeak-ng, festival and flite that is installed;
            - `"PROGRAM"` or `"PROGRAM:VOICE"`, such as `"flite:slt"`, `"espeak-ng:en-gb"` or `"piper:en_US-joe.onnx"`;
            - the URL of an OpenAI-compatible server, such as `"http://127.0.0.1:8880/v1?model=kokoro&voice=af_sky"`,
              where `api_key_env=NAME` names the environment variable that holds a key, and `language` that of texts.
        speed (`float`, defaults to 1.0): How fast, from 0.25 to 4; 1 is the voice's own speed.
        reads_out (`bool`, defaults to `True`): Whether numbers and units become words, see [`read_out`].

    Raises:
        ValueError: there is no such kind of voice, an option of the URL is unknown, or the speed is out of range.
        OSError: nothing on this machine speaks, the program or its voice is not installed, or a key is missing.
    """
    if name.startswith(("http://", "https://")):
        url, options = split_url(name, ("model", "voice", "api_key_env", "timeout", "language"))
        own = {entry: options.pop(entry) for entry in ("api_key_env", "timeout") if entry in options}
        return ServerVoice(AudioServer(url, **own), speed=speed, reads_out=reads_out, **options)
    if name == AUTO:
        found = find_programs()
        if not found:
            raise OSError(
                f"No voice is installed, of {', '.join(PROGRAMS)}: `apt install espeak-ng` installs one on Debian, "
                "`brew install espeak-ng` on macOS; the URL of a server of /v1/audio/speech is accepted, too."
            )
        name = found[0]
    kind, _, voice = name.partition(":")
    made = ProgramVoice(kind, voice, speed, reads_out)
    made.check()
    return made


def split_url(url: str, known: tuple[str, ...]) -> tuple[str, dict]:
    """A URL without its query, and the options in it; a ValueError if one is unknown."""
    parts = urlsplit(url)
    options: dict = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(options.keys() - set(known)):
        raise ValueError(
            f"The URL {url!r:.80} has unknown options: {', '.join(unknown)}. Known are: {', '.join(known)}."
        )
    if "timeout" in options:
        try:
            options["timeout"] = float(options["timeout"])
        except ValueError as error:
            raise ValueError(f"`timeout` is a number of seconds, got {options['timeout']!r:.40}.") from error
    return urlunsplit(parts._replace(query="", fragment="")), options
