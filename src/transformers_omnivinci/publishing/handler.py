"""
Serves OmniVinci on Hugging Face Inference Endpoints, and reads the requests of `omnivinci serve`.

This file is copied as it is into the root of a repository, from where the inference toolkit imports it: it imports
nothing of this package by a relative import, and needs the standard library, torch and transformers alone.

What a request may fetch is bound: media come as http and https URLs or in base64, never as paths. URLs are opened by
the standard library's HTTP client at addresses of the public internet only, which is checked for the very address
that is connected to, of every redirect too; proxies of the environment are not used.
"""

import base64
import binascii
import http.client
import ipaddress
import math
import os
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, fields
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList, pipeline
from transformers.utils.chat_template_utils import Chat

# Where the package is installed, its classes are used rather than the code of the repository.
with suppress(ImportError):
    import transformers_omnivinci  # noqa: F401

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MEDIA_TYPES = {
    "image": "image",
    "image_url": "image",
    "video": "video",
    "video_url": "video",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
}
"""The modality of each type of content item."""

MEDIA_KEYS = {name: name for name in ("image", "video", "audio")} | {"images": "image", "videos": "video"}
"""The modality of each entry of a sample `{"text": ..., "video": ...}`."""

NUMBERS = {
    "max_new_tokens": (int, 1, "max_new_tokens"),
    "min_new_tokens": (int, 0, "max_new_tokens"),
    "num_return_sequences": (int, 1, "max_sequences"),
    "num_beams": (int, 1, "max_sequences"),
    "no_repeat_ngram_size": (int, 0, math.inf),
    "temperature": (float, 0, 100),
    "top_k": (int, -1, math.inf),
    "top_p": (float, 1e-6, 1),
    "min_p": (float, 0, 1),
    "repetition_penalty": (float, 1e-3, 100),
    "frequency_penalty": (float, -2, 2),
    "presence_penalty": (float, -2, 2),
    "seed": (int, -(2**63), 2**63 - 1),
    "num_frames": (int, 1, "max_frames"),
    "max_frames": (int, 1, "max_frames"),
    "fps": (float, 1e-6, 1000),
    "video_start": (float, 0, 1e9),
    "video_end": (float, 0, 1e9),
}
"""Parameters that are numbers: their type, the least, and the most or the name of the limit that tells it."""

FLAGS = ("do_sample", "load_audio_from_video")
PROCESSING = ("num_frames", "max_frames", "fps", "video_start", "video_end", "load_audio_from_video")
ITEM_OPTIONS = ("num_frames", "max_frames", "fps", "video_start", "video_end")
"""Options that an item gives for its video alone."""

PROCESSING_NAMES = {"use_audio_in_video": "load_audio_from_video"}
PROCESSING_OBJECTS = ("mm_processor_kwargs", "chat_template_kwargs")
"""What vLLM and the server of transformers call the objects that options of the processor stand in."""

OPENAI_NAMES = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "min_tokens": "min_new_tokens",
    "n": "num_return_sequences",
    **PROCESSING_NAMES,
}
HUB_NAMES = {"stop_sequence": "stop", "stop_sequences": "stop", **PROCESSING_NAMES}

OPENAI_FIXED = {
    "stream": (False,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "service_tier": ("auto", "default"),
    "store": (False,),
}
HUB_FIXED = {"return_full_text": (False,), "stream": (False,)}
"""Parameters of which those values are accepted that change nothing."""

OPENAI_IGNORED = ("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
OPENAI_UNSUPPORTED = ("tools", "functions", "function_call", "audio", "prediction", "web_search_options")
"""Parameters that are accepted empty."""

MAX_TOP_LOGPROBS = 20
LEAST_LOGPROB = -9999.0  # as OpenAI writes the impossible, which JSON cannot

SPECIAL_NETWORKS = [
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # the wire server of Azure, inside its networks
        "192.0.0.0/24",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
    )
]
"""What `ipaddress` calls global, in some versions of Python, without being hosts of the internet."""

DEFAULT_NEW_TOKENS = 256  # of the pipeline, where the checkpoint does not tell
REDIRECTS = (301, 302, 303, 307, 308)
CHUNK_SIZE = 1 << 16


class RequestError(ValueError):
    """
    A request that is refused.

    The inference toolkit answers any exception with `{"error": str(exception)}` and the status 400: the message begins
    with the status that is meant, and other servers can take it from `status`.

    Attributes:
        status (`int`):
            400: malformed, or a URL that is not fetched; 413: too large; 415: not a medium of its kind; 422: a
            parameter that is unknown or out of range; 502, 504: a URL that does not answer, or not in time.
        reason (`str`): The message without the status.
    """

    def __init__(self, status: int, reason: str):
        super().__init__(f"{status} {HTTPStatus(status).phrase}: {reason}")
        self.status, self.reason = int(status), reason


@dataclass(frozen=True)
class Limits:
    """
    What one request may ask for. The endpoint's environment changes each: `OMNIVINCI_MAX_MEDIA_BYTES=50000000`.

    Attributes:
        max_media (`int`): Images, videos and sounds in all.
        max_media_bytes (`int`), max_total_bytes (`int`): Size of one medium, as a file, and of all.
        max_media_seconds (`float`): Seconds of videos and sounds in all; of a video what is looked at.
        max_pixels (`int`): Of an image, or of a frame of a video.
        max_frames (`int`): Frames that are sampled from each video.
        max_text_characters (`int`): Of all texts.
        max_new_tokens (`int`): Tokens of an answer.
        max_sequences (`int`): Answers, and beams.
        max_redirects (`int`): That a URL may lead through.
        max_download_seconds (`float`): Seconds that all downloads may take together.
    """

    max_media: int = 16
    max_media_bytes: int = 100 * 2**20
    max_total_bytes: int = 200 * 2**20
    max_media_seconds: float = 3600.0
    max_pixels: int = 50_000_000
    max_frames: int = 512
    max_text_characters: int = 100_000
    max_new_tokens: int = 4096
    max_sequences: int = 8
    max_redirects: int = 3
    max_download_seconds: float = 60.0

    def __post_init__(self):
        for field in fields(self):
            if not getattr(self, field.name) >= 0:
                raise ValueError(f"The limit {field.name}={getattr(self, field.name)!r} is not a number from 0 on.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Limits":
        """
        The defaults, and what the variables `OMNIVINCI_<LIMIT>` say instead.

        Raises:
            ValueError: a variable is not a number from 0 on.
        """
        limits = {}
        for field in fields(cls):
            name = f"OMNIVINCI_{field.name.upper()}"
            if name in environment:
                number_type = type(field.default)
                try:
                    limits[field.name] = number_type(environment[name])
                except ValueError as error:
                    raise ValueError(f"{name}={environment[name]!r} is no {number_type.__name__}.") from error
        return cls(**limits)


# --------------------------------------------------------------------------------------------------------- downloading


def is_public(address: str) -> bool:
    """
    Whether an IP address is one host of the public internet.

    IPv6 addresses that stand for IPv4 ones (mapped, NAT64, 6to4, Teredo) are not: what they lead to cannot be told.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6 and ip not in ipaddress.ip_network("2000::/3"):
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in SPECIAL_NETWORKS)


class _Connection(http.client.HTTPConnection):
    """A connection through a socket that `open_socket(host, port)` has opened."""

    def connect(self) -> None:
        self.sock = self.open_socket(self.host, self.port)


class _TLSConnection(http.client.HTTPSConnection, _Connection):
    """The same in TLS: `HTTPSConnection` wraps the socket that the next class opens."""


class Downloader:
    """Fetches URLs of the public internet: http on port 80 and https on port 443, or either on the other one."""

    ports = (80, 443)

    def allows_host(self, host: str, port: int) -> bool:
        """Whether a host may be connected to at whatever address it has. None is."""
        return False

    def allows(self, address: str, port: int) -> bool:
        """Whether the address of a peer may be connected to. Asked before connecting, and of the connected socket."""
        return port in self.ports and is_public(address)

    def fetch(self, url: str, max_bytes: int, max_redirects: int, deadline: float) -> bytes:
        """
        The content of a URL.

        Args:
            url (`str`): Of the scheme http or https, without user and password.
            max_bytes (`int`): The most bytes of content.
            max_redirects (`int`): How many redirects are followed.
            deadline (`float`): By which moment of `time.monotonic()` all must have come.

        Raises:
            RequestError: the URL is not accepted, leads to no public address, or cannot be fetched.
        """
        for _ in range(max_redirects + 1):
            location, content = self._get(url, max_bytes, deadline)
            if location is None:
                return content
            url = urljoin(url, location)
        raise RequestError(502, f"{url:.200} is the end of more than {max_redirects} redirects.")

    def _get(self, url: str, max_bytes: int, deadline: float) -> tuple[str | None, bytes]:
        """Where a URL redirects to, or else its content."""
        host, port, target, is_tls = _split_url(url)
        with ExitStack() as stack:

            def open_socket(host: str, port: int) -> socket.socket:
                peer = self._connect(host, port, url, deadline)
                stack.enter_context(_shut_at(deadline, peer))
                return peer

            try:
                if is_tls:
                    connection = _TLSConnection(host, port, context=ssl.create_default_context())
                else:
                    connection = _Connection(host, port)
                stack.callback(connection.close)
                connection.open_socket = open_socket
                connection.request("GET", target, headers={"Accept-Encoding": "identity", "User-Agent": "omnivinci"})
                result = _read_response(connection.getresponse(), url, max_bytes)
            except (OSError, http.client.HTTPException) as error:
                _check_time(url, deadline)
                raise RequestError(502, f"{url:.200} cannot be fetched: {type(error).__name__}.") from error
            _check_time(url, deadline)  # a connection that was shut down looks like the end of the content
            return result

    def _connect(self, host: str, port: int, url: str, deadline: float) -> socket.socket:
        """A socket to the host, resolved once, so that no other address is connected to than the one checked."""
        refusal = RequestError(
            400,
            f"{url:.200} is not fetched: only hosts of the public internet are, on the ports "
            f"{' and '.join(map(str, self.ports))}.",
        )
        candidates = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        is_trusted = self.allows_host(host, port)
        if not is_trusted and not all(self.allows(address[0], port) for *_, address in candidates):
            raise refusal
        failure = OSError("no address")
        for family, kind, protocol, _, address in candidates:
            peer = socket.socket(family, kind, protocol)
            try:
                _check_time(url, deadline)
                peer.settimeout(deadline - time.monotonic())
                peer.connect(address)
                if not is_trusted and not self.allows(peer.getpeername()[0], port):
                    raise refusal
            except BaseException as error:
                peer.close()
                if not isinstance(error, OSError):
                    raise
                failure = error
            else:
                return peer
        raise failure


def _split_url(url: str) -> tuple[str, int, str, bool]:
    """Host, port, request target and whether the URL is one of https."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError as error:
        raise RequestError(400, f"{url[:200]!r} is not a URL.") from error
    if parts.scheme not in ("http", "https") or not host:
        raise RequestError(400, f"{url[:200]!r} is not fetched: http, https and base64 data URLs are accepted.")
    if parts.username is not None or parts.password is not None:
        raise RequestError(400, "A URL with a user or password is not fetched.")
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~[]")
    if parts.query:
        target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~[]?")
    is_tls = parts.scheme == "https"
    return host, port or (443 if is_tls else 80), target, is_tls


@contextmanager
def _shut_at(deadline: float, peer: socket.socket) -> Iterator[None]:
    """Shuts a connection down at the deadline. Timeouts of sockets would start anew with every byte."""
    with peer.dup() as twin:  # wrapping it in TLS takes the socket itself away

        def shut() -> None:
            with suppress(OSError):
                twin.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(max(0.0, deadline - time.monotonic()), shut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _check_time(url: str, deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise RequestError(504, f"{url:.200} does not come within the time that downloads may take.")


def _read_response(response: http.client.HTTPResponse, url: str, max_bytes: int) -> tuple[str | None, bytes]:
    location = response.headers.get("Location")
    if response.status in REDIRECTS and location:
        return location, b""
    if response.status != 200:
        raise RequestError(502, f"{url:.200} cannot be fetched: the server answers {response.status}.")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise RequestError(502, f"{url:.200} comes with the content encoding {encoding[:40]!r}, which was not asked.")
    length, content = response.length, bytearray()
    while (length is None or length <= max_bytes) and len(content) <= max_bytes:
        chunk = response.read1(CHUNK_SIZE)
        if not chunk:
            break
        content += chunk
    if len(content) > max_bytes or (length is not None and length > max_bytes):
        raise RequestError(413, f"{url:.200} has more than the {max_bytes} bytes that are accepted.")
    if length is not None and len(content) < length:
        raise RequestError(502, f"{url:.200} ends after {len(content)} of {length} bytes.")
    return None, bytes(content)


def decode_base64(text: str, max_bytes: int) -> bytes:
    """
    The content of base64, plain or as a data URL, written as browsers read it: blanks and padding do not matter.

    Raises:
        RequestError: it is not base64, or more than `max_bytes`.
    """
    given = text
    if text.lstrip()[:5].lower() == "data:":
        header, _, text = text.strip().partition(",")
        if header.rpartition(";")[2].strip().lower() != "base64":
            raise RequestError(400, f"{header[:60]!r} is not accepted: `data:<media type>;base64,<content>` is.")
        text = unquote(text)
    text = "".join(text.split()).rstrip("=")
    if len(text) * 3 // 4 > max_bytes + 2:
        raise RequestError(413, f"A medium in base64 has more than the {max_bytes} bytes that are accepted.")
    try:
        text = text.replace("-", "+").replace("_", "/")
        content = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(
            400, f"{given[:40]!r} is neither an http or https URL nor base64; paths are not accepted."
        ) from error
    if not content:
        raise RequestError(400, "A medium in base64 is empty.")
    if len(content) > max_bytes:
        raise RequestError(413, f"A medium in base64 has more than the {max_bytes} bytes that are accepted.")
    return content


# ---------------------------------------------------------------------------------------------------------- parameters


def _read_parameters(given: Mapping, limits: Limits, names: Mapping[str, str], fixed: Mapping) -> dict:
    """
    Parameters of a request under the names of transformers, checked.

    Args:
        names: Other names of parameters.
        fixed: Parameters of which one value is accepted.
    """
    parameters = {}
    for name, value in given.items():
        known_as = names.get(name, name)
        if value is None:
            continue  # clients write out what they leave open
        if name in fixed:
            if value not in fixed[name]:
                accepted = " or ".join(map(repr, fixed[name]))
                raise RequestError(422, f"`{name}` can be {accepted} alone here, got {value!r:.80}.")
            continue
        if name in OPENAI_UNSUPPORTED:
            if value:
                raise RequestError(422, f"The parameter {name!r} is not supported.")
            continue
        if known_as in parameters:
            raise RequestError(422, f"`{name}` is given twice, under two names.")
        if known_as in NUMBERS:
            parameters[known_as] = _read_number(name, value, limits, *NUMBERS[known_as])
        elif known_as in FLAGS:
            if not isinstance(value, bool):
                raise RequestError(422, f"`{name}` is true or false, got {value!r:.80}.")
            parameters[known_as] = value
        elif known_as == "stop":
            stop = [value] if isinstance(value, str) else value
            if not isinstance(stop, list) or not stop or not all(isinstance(text, str) and text for text in stop):
                raise RequestError(422, f"`{name}` is a string or a list of strings, got {value!r:.80}.")
            parameters[known_as] = stop
        else:
            known = sorted({*NUMBERS, *FLAGS, "stop", *names, *fixed})
            raise RequestError(422, f"The parameter {name!r:.80} is unknown. Known are: {', '.join(known)}.")
    if "fps" in parameters and "num_frames" in parameters:
        raise RequestError(422, "Frames are sampled by `fps` or by `num_frames`, not by both.")
    return parameters


def read_processing(given: Mapping, limits: Limits) -> dict:
    """
    Options of the processor, checked.

    Raises:
        RequestError: one is unknown, or out of range.
    """
    refuse_unknown("What is said of the processor", given, [*PROCESSING, *PROCESSING_NAMES])
    return _read_parameters(given, limits, PROCESSING_NAMES, {})


def _read_processing_objects(request: dict) -> dict:
    """The entries of the objects that options of the processor stand in, which are taken out of a request."""
    options = {}
    for name in PROCESSING_OBJECTS:
        given = request.pop(name, None)
        if given is None:
            continue
        if not isinstance(given, Mapping):
            raise RequestError(422, f"`{name}` is an object, got {given!r:.80}.")
        refuse_unknown(f"`{name}`", given_entries(given), [*PROCESSING, *PROCESSING_NAMES])
        twice = sorted(given_entries(given).keys() & (options.keys() | given_entries(request).keys()))
        if twice:
            raise RequestError(422, f"`{twice[0]}` is given twice, in `{name}` and elsewhere.")
        options |= given_entries(given)
    return options


def _read_logprobs(request: dict) -> int | None:
    """How many likeliest tokens are told beside each one; `None`: no log probabilities. Taken out of a request."""
    wanted, num_top = request.pop("logprobs", None), request.pop("top_logprobs", None)
    if not isinstance(wanted, (bool, type(None))):
        raise RequestError(422, f"`logprobs` is true or false, got {wanted!r:.80}.")
    if num_top is not None:
        if not isinstance(num_top, int) or isinstance(num_top, bool) or not 0 <= num_top <= MAX_TOP_LOGPROBS:
            raise RequestError(422, f"`top_logprobs` is an integer from 0 to {MAX_TOP_LOGPROBS}, got {num_top!r:.80}.")
        if not wanted and num_top:
            raise RequestError(422, "`top_logprobs` needs `logprobs` to be true.")
    return (num_top or 0) if wanted else None


def _read_bias(request: dict, num_tokens: int) -> dict[int, float]:
    """What is added to the logits of tokens. Taken out of a request."""
    given = request.pop("logit_bias", None) or {}
    try:
        bias = {int(token): float(value) for token, value in given.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise RequestError(422, f"`logit_bias` is an object of token ids and numbers, got {given!r:.80}.") from error
    for token, value in bias.items():
        if not 0 <= token < num_tokens or not -100 <= value <= 100:
            raise RequestError(
                422,
                f"`logit_bias` has {value:g} for token {token}: numbers from -100 to 100 for tokens from 0 to "
                f"{num_tokens - 1} are accepted.",
            )
    return bias


def _read_number(name: str, value, limits: Limits, number_type: type, low: float, high: float | str) -> int | float:
    limit = f" ({high} of this endpoint)" if isinstance(high, str) else ""
    high = getattr(limits, high) if isinstance(high, str) else high
    is_number = isinstance(value, int if number_type is int else (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        kind = "an integer" if number_type is int else "a number"
        raise RequestError(422, f"`{name}` is {kind} from {low} to {high}{limit}, got {value!r:.80}.")
    return number_type(value)


# ------------------------------------------------------------------------------------------------------------- content


def given_entries(mapping: Mapping) -> dict:
    """The entries that are not null."""
    return {name: value for name, value in mapping.items() if value is not None}


def refuse_unknown(what: str, given: Mapping, known: Sequence[str]) -> None:
    unknown = sorted(str(name)[:40] for name in given.keys() - set(known))
    if unknown:
        raise RequestError(422, f"{what} has unknown entries: {', '.join(unknown)}. Known are: {', '.join(known)}.")


class _Contents:
    """The texts and media of one request, fetched and checked against the limits as they are read."""

    def __init__(self, processor, limits: Limits, downloader: Downloader, span: tuple[float, float]):
        self.processor, self.limits, self.downloader, self.span = processor, limits, downloader, span
        self.deadline = time.monotonic() + limits.max_download_seconds
        self.num_characters = self.num_media = self.num_bytes = 0
        self.seconds = 0.0

    def read_messages(self, messages) -> list[dict]:
        """Messages with their media in memory."""
        if not isinstance(messages, list) or not messages:
            raise RequestError(400, "The messages are a list of at least one message with `role` and `content`.")
        return [self._read_message(message) for message in messages]

    def read_sample(self, sample: Mapping) -> list[dict]:
        """`{"text": ..., "video": ...}` as the turn of a user: the media in the order given, then the text."""
        sample = given_entries(sample)
        refuse_unknown("The sample in `inputs`", sample, ["text", *MEDIA_KEYS])
        if "text" not in sample:
            raise RequestError(400, 'The sample in `inputs` has no "text".')
        text = self._read_text(sample.pop("text"))
        content = []
        for name, sources in sample.items():
            for source in sources if isinstance(sources, list) else [sources]:
                content.append(self._read_medium(MEDIA_KEYS[name], source))
        return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]

    def _read_message(self, message) -> dict:
        if not isinstance(message, Mapping):
            raise RequestError(400, f"A message is an object with `role` and `content`, got {message!r:.80}.")
        message = {name: value for name, value in message.items() if value or name == "content"}  # clients write all
        refuse_unknown("A message", given_entries(message), ["role", "content"])
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or role not in ROLES:
            raise RequestError(400, f"The role of a message is one of {', '.join(ROLES)}, got {role!r:.80}.")
        if isinstance(content, str):
            content = self._read_text(content)
        elif isinstance(content, list) and content:
            content = [self._read_item(item) for item in content]
        else:
            raise RequestError(400, f"The content of a message is a string or a list of items, got {content!r:.80}.")
        return {"role": ROLES[role], "content": content}

    def _read_item(self, item) -> dict:
        kind = item.get("type") if isinstance(item, Mapping) else None
        if kind == "text":
            refuse_unknown("A content item", given_entries(item), ["type", "text"])
            return {"type": "text", "text": self._read_text(item.get("text"))}
        if not isinstance(kind, str) or kind not in MEDIA_TYPES:
            accepted = ", ".join(["text", *MEDIA_TYPES])
            raise RequestError(400, f"The type of a content item is one of {accepted}, got {kind!r:.80}.")
        modality = MEDIA_TYPES[kind]
        entries = {name: value for name, value in given_entries(item).items() if name != "type"}
        options = {name: entries.pop(name) for name in ITEM_OPTIONS if modality == "video" and name in entries}
        options = _read_parameters(options, self.limits, {}, {})
        refuse_unknown(
            f"A content item of type {kind!r}", entries, list(dict.fromkeys([kind, modality, "url", "base64"]))
        )
        if len(entries) != 1:
            raise RequestError(
                400, f"A content item of type {kind!r} has its medium in one entry, got {list(entries)}."
            )
        [source] = entries.values()
        if isinstance(source, Mapping):
            source = given_entries(source)
            refuse_unknown(f"`{kind}`", source, ["url", "data", "format", "detail"])
            if source.get("detail", "auto") != "auto":
                raise RequestError(
                    422, f"The `detail` of an image is 'auto' alone here, got {source['detail']!r:.80}."
                )
            sources = [source[name] for name in ("url", "data") if name in source]  # contents tell their format
            if len(sources) != 1:
                raise RequestError(400, f"`{kind}` has one of `url` and `data`, got {list(source)}.")
            [source] = sources
        span = options.get("video_start", self.span[0]), options.get("video_end", self.span[1])
        return {**self._read_medium(modality, source, span), **options}

    def _read_text(self, text) -> str:
        if not isinstance(text, str):
            raise RequestError(400, f"A text is a string, got {text!r:.80}.")
        self.num_characters += len(text)
        if self.num_characters > self.limits.max_text_characters:
            raise RequestError(413, f"The texts have more than {self.limits.max_text_characters} characters.")
        return text

    def _read_medium(self, modality: str, source, span: tuple[float, float] | None = None) -> dict:
        limits = self.limits
        if not isinstance(source, str):
            raise RequestError(400, f"A medium is a URL or base64, in a string, got {type(source).__name__}.")
        self.num_media += 1
        if self.num_media > limits.max_media:
            raise RequestError(413, f"More than {limits.max_media} media are not accepted.")
        max_bytes = min(limits.max_media_bytes, limits.max_total_bytes - self.num_bytes)
        if ":" in source[:40] and source.lstrip()[:5].lower() != "data:":
            content = self.downloader.fetch(source, max_bytes, limits.max_redirects, self.deadline)
        else:
            content = decode_base64(source, max_bytes)
        self.num_bytes += len(content)
        try:
            num_pixels, seconds = getattr(self, f"_probe_{modality}")(content, self.span if span is None else span)
        except (ValueError, OSError) as error:
            raise RequestError(415, f"Medium {self.num_media} is not accepted as {modality}: {error}") from error
        if num_pixels > limits.max_pixels:
            raise RequestError(
                413, f"Medium {self.num_media} has {num_pixels} pixels: {limits.max_pixels} are accepted."
            )
        self.seconds += seconds
        if self.seconds > limits.max_media_seconds:
            raise RequestError(
                413,
                f"The videos and sounds last {self.seconds:.1f} s up to medium {self.num_media}: "
                f"{limits.max_media_seconds:g} s are accepted in all. `video_start` and `video_end` choose a part.",
            )
        return {"type": modality, modality: content}

    # Headers alone are read here: nothing is decoded before it is known how large it is.

    def _probe_image(self, content: bytes, span: tuple[float, float]) -> tuple[int, float]:
        return math.prod(self.processor.image_processor.probe_image(content)), 0.0

    def _probe_video(self, content: bytes, span: tuple[float, float]) -> tuple[int, float]:
        try:
            self.processor.image_processor.probe_image(content)
        except ValueError:
            pass  # as it should be: only decoding all of an animation tells how long it is
        else:
            raise ValueError("it is an image, still or animated, where a video file is accepted.")
        metadata = self.processor.video_processor.probe_video(content)
        start, end = span
        seconds = min(end, max(metadata.duration, metadata.audio_duration or 0.0)) - start
        return metadata.height * metadata.width, max(0.0, seconds)

    def _probe_audio(self, content: bytes, span: tuple[float, float]) -> tuple[int, float]:
        return 0, self.processor.probe_audio(content)


# ---------------------------------------------------------------------------------------------------------- generation


@dataclass(frozen=True)
class Token:
    """
    A token of an answer.

    Attributes:
        index (`int`): Its id.
        logprob (`float`, *optional*): The logarithm of its probability, before penalties and the temperature.
        top (`list[tuple[int, float]]`): The likeliest tokens with theirs.
    """

    index: int
    logprob: float | None = None
    top: Sequence[tuple[int, float]] = ()


@dataclass(frozen=True)
class Answer:
    """An answer, the tokens it took, and why it ended, `"stop"` or `"length"`."""

    text: str
    num_tokens: int
    finish_reason: str
    tokens: Sequence[Token] = ()


@dataclass
class Job:
    """
    A prompt that is ready to be answered.

    Attributes:
        inputs (`Mapping`): What the pipeline has made of it.
        num_prompt_tokens (`int`): Its length.
        generation (`dict`): Options of `generate`.
        stop (`Sequence[str]`), seed (`int`, *optional*): What ends an answer, and what chance depends on.
        penalties (`tuple[float, float]`): Of frequency and of presence.
        bias (`Mapping[int, float]`, *optional*): What is added to the logits of tokens.
        num_top (`int`, *optional*): How many likeliest tokens are told beside each one. `None`: no log probabilities.
        model_name (`str`): What the model is called in the answer.
    """

    inputs: Mapping
    num_prompt_tokens: int
    generation: dict
    stop: Sequence[str] = ()
    seed: int | None = None
    penalties: tuple[float, float] = (0.0, 0.0)
    bias: Mapping[int, float] | None = None
    num_top: int | None = None
    model_name: str = ""

    @property
    def has_beams(self) -> bool:
        return self.generation.get("num_beams", 1) > 1


class Scores(LogitsProcessor):
    """Penalties of what an answer has said, in OpenAI's way, and a bias. Keeps log probabilities from before."""

    def __init__(self, job: Job):
        self.num_prompt_tokens, self.bias, self.keeps = job.num_prompt_tokens, job.bias, job.num_top is not None
        self.frequency, self.presence = job.penalties
        self.logprobs = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.keeps:
            self.logprobs = scores.float().log_softmax(-1)
        said = input_ids[:, self.num_prompt_tokens :]
        if said.shape[1] and (self.frequency or self.presence):
            counts = torch.zeros_like(scores).scatter_add_(1, said, torch.ones_like(said, dtype=scores.dtype))
            scores = scores - self.frequency * counts - self.presence * (counts > 0)
        if self.bias:
            scores = scores.clone()
            scores[:, list(self.bias)] += scores.new_tensor(list(self.bias.values()))
        return scores


class Watch(StoppingCriteria):
    """
    Follows the answers as they grow: ends each one at a stop sequence, and all of them when they are cancelled.

    A stop sequence is looked for in what was generated alone, not across the end of the prompt.
    """

    def __init__(self, job: Job, scores: Scores, decode: Callable, ends: set[int], on_token: Callable | None):
        self.job, self.scores, self.decode, self.ends, self.on_token = job, scores, decode, ends, on_token
        self.num_seen, self.rows, self.is_done = job.num_prompt_tokens, [], []
        self.cancelled = threading.Event()
        # Every token has a byte at least, but for special ones.
        self.reach = max((len(word.encode()) for word in job.stop), default=0) + 8

    def __call__(self, input_ids: torch.Tensor, scores, **kwargs) -> torch.Tensor:
        num_rows, length = input_ids.shape
        if self.cancelled.is_set():
            done = [True] * num_rows
        elif self.job.has_beams:  # rows change their places
            start = max(self.job.num_prompt_tokens, length - self.reach)
            done = [self._has_stopped(row) for row in input_ids[:, start:].tolist()]
        else:
            if not self.rows:
                self.rows, self.is_done = [[] for _ in range(num_rows)], [False] * num_rows
            for index, new in enumerate(input_ids[:, self.num_seen :].tolist()):
                for token in new:
                    self._take(index, token)
            self.num_seen, done = length, self.is_done
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)

    def _take(self, index: int, token: int) -> None:
        if self.is_done[index]:
            return  # what follows fills the row up
        logprob, top = None, []
        if self.scores.logprobs is not None:
            row = self.scores.logprobs[index]
            logprob = max(row[token].item(), LEAST_LOGPROB)
            best = row.topk(self.job.num_top)
            top = [
                (found, max(value, LEAST_LOGPROB))
                for found, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        tokens = self.rows[index]
        tokens.append(Token(token, logprob, top))
        ids = [known.index for known in tokens[-self.reach :]]
        self.is_done[index] = token in self.ends or self._has_stopped(ids)
        if self.on_token is not None:
            self.on_token(index, tokens[-1])

    def _has_stopped(self, ids: list[int]) -> bool:
        if not self.job.stop:
            return False
        text = self.decode(ids)
        return any(word in text for word in self.job.stop)


# ------------------------------------------------------------------------------------------------------------- handler


class EndpointHandler:
    """
    Answers requests in the style of the Hub's widgets, or in that of OpenAI's chat completions.

    Args:
        path (`str`): Folder of the repository.
        limits ([`Limits`], *optional*): What a request may ask for. `None`: as the environment says.
        downloader ([`Downloader`], *optional*): What fetches URLs.
        name (`str`, *optional*): What the model is called in answers. Default: the name of the folder.
        processing (`dict`, *optional*): Options of the processor for requests that do not say otherwise.
        options: Of the pipeline, such as `device` and `dtype`. Code that the repository has is trusted, unless
            `trust_remote_code` says otherwise.

    Example:

    ```python
    >>> handler = EndpointHandler("omnivinci")
    >>> handler({"inputs": {"video": "https://example.com/clip.mp4", "text": "What happens?"}})
    [{'generated_text': 'A dog barks at a passing train.'}]
    ```
    """

    def __init__(
        self,
        path: str = "",
        limits: Limits | None = None,
        downloader: Downloader | None = None,
        name: str | None = None,
        processing: Mapping | None = None,
        **options,
    ):
        self.limits = Limits.from_environment() if limits is None else limits
        self.downloader = Downloader() if downloader is None else downloader
        self.name = Path(path).resolve().name if name is None else name
        self.processing = read_processing(processing or {}, self.limits)
        self.pipeline = pipeline("video-text-to-text", model=path, **{"trust_remote_code": True, **options})
        # Tokenizers and the state of random numbers are shared: one request is worked at, others wait.
        self.lock = threading.Lock()

    def __call__(self, data: dict) -> list[dict] | dict:
        """
        Args:
            data (`dict`): The body of a request.

                - `{"inputs": ..., "parameters": {...}}`, where `inputs` is a question, a sample
                  `{"text": ..., "image" | "video" | "audio": ...}` with one medium or a list of each kind, or a list
                  of chat messages;
                - `{"messages": [...], "max_tokens": ..., ...}` as of OpenAI's chat completions, or the same as
                  `{"inputs": {"messages": ...}}`, for the inference toolkit takes no body without `inputs`.

                Media are http and https URLs, data URLs and base64. Parameters of generation and of sampling frames
                are named as in the pipeline, in OpenAI's style also as there. Control tokens in texts are read as
                plain text.

        Returns:
            `[{"generated_text": ...}]` with the answer alone, one entry for each of `num_return_sequences`; or an
            object `chat.completion`.

        Raises:
            RequestError: the request is refused; the message says why and what is accepted.
        """
        if not isinstance(data, Mapping):
            raise RequestError(400, "The body of a request is a JSON object.")
        if "messages" in data:
            return self.complete_chat(data)
        if data.get("inputs") is None:
            raise RequestError(400, "The body of a request has neither `inputs` nor `messages`.")
        refuse_unknown("The body of the request", given_entries(data), ["inputs", "parameters"])
        inputs, given = data["inputs"], data.get("parameters")
        given = {} if given is None else given
        if not isinstance(given, Mapping):
            raise RequestError(400, f"`parameters` is an object, got {given!r:.80}.")
        if isinstance(inputs, Mapping) and "messages" in inputs:
            return self.complete_chat({**inputs, **given})
        given = dict(given)
        parameters = _read_parameters({**_read_processing_objects(given), **given}, self.limits, HUB_NAMES, HUB_FIXED)
        contents = self._contents(parameters)
        if isinstance(inputs, list):
            messages = contents.read_messages(inputs)
        elif isinstance(inputs, (str, Mapping)):
            messages = contents.read_sample({"text": inputs} if isinstance(inputs, str) else inputs)
        else:
            raise RequestError(400, "`inputs` is a text, an object with `text` and media, or a list of messages.")
        return [{"generated_text": answer.text} for answer in self._answer(self._prepare(messages, parameters))]

    def complete_chat(self, request: Mapping) -> dict:
        """
        The object `chat.completion` for a request of OpenAI's chat completions.

        Raises:
            RequestError: the request is refused.
        """
        job = self.read_chat(request)
        answers = self._answer(job)
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": cut_at(answer.text, job.stop)},
                "finish_reason": answer.finish_reason,
                "logprobs": None if job.num_top is None else self.write_logprobs(self._told(answer, job.stop)),
            }
            for index, answer in enumerate(answers)
        ]
        usage = write_usage(job.num_prompt_tokens, sum(answer.num_tokens for answer in answers))
        return {**write_envelope("chat.completion", job), "choices": choices, "usage": usage}

    def read_chat(self, request: Mapping) -> Job:
        """
        Reads a request of OpenAI's chat completions, with its media.

        Raises:
            RequestError: the request is refused.
        """
        request = dict(request)
        model, messages = request.pop("model", None), request.pop("messages", None)
        if not isinstance(model, (str, type(None))):
            raise RequestError(400, f"`model` is a string, got {model!r:.80}.")
        for name in OPENAI_IGNORED:
            request.pop(name, None)
        if request.get("stream_options"):
            raise RequestError(422, "`stream_options` needs `stream` to be true.")
        request.pop("stream_options", None)
        num_top = _read_logprobs(request)
        bias = _read_bias(request, self.pipeline.model.config.get_text_config().vocab_size)
        parameters = _read_parameters(
            {**_read_processing_objects(request), **request}, self.limits, OPENAI_NAMES, OPENAI_FIXED
        )
        job = self._prepare(self._contents(parameters).read_messages(messages), parameters)
        if job.has_beams and num_top is not None:
            raise RequestError(422, "`logprobs` does not go with `num_beams`.")
        job.num_top, job.bias, job.model_name = num_top, bias, model or self.name
        return job

    def _contents(self, parameters: Mapping) -> _Contents:
        span = parameters.get("video_start", 0.0), parameters.get("video_end", math.inf)
        return _Contents(self.pipeline.processor, self.limits, self.downloader, span)

    def _prepare(self, messages: list[dict], parameters: Mapping) -> Job:
        """Reads the media of messages."""
        generation = {name: value for name, value in parameters.items() if name not in PROCESSING}
        seed, stop = generation.pop("seed", None), generation.pop("stop", [])
        penalties = generation.pop("frequency_penalty", 0.0), generation.pop("presence_penalty", 0.0)
        generation = self._generation_options(generation)
        try:
            with self.lock:
                inputs = self.pipeline.preprocess(
                    Chat(messages), sanitize_control_tokens=True, **self._processing_options(parameters)
                )
        except (ValueError, TypeError, OSError) as error:
            raise RequestError(422, f"{error}") from error
        num_prompt_tokens = inputs["input_ids"].shape[1]
        limit = self.pipeline.tokenizer.model_max_length - generation["max_new_tokens"]
        if num_prompt_tokens > limit:
            raise RequestError(
                422,
                f"The prompt has {num_prompt_tokens} tokens, where the model has room for {limit} besides the "
                "answer: take fewer frames, less sound or a shorter answer.",
            )
        return Job(inputs, num_prompt_tokens, generation, stop, seed, penalties)

    def watch(self, job: Job, on_token: Callable | None = None) -> Watch:
        """What follows the answers of a job; `on_token` is called with the answer's index and each of its tokens."""
        return Watch(job, Scores(job), self.decode, self.ends, on_token)

    def generate(self, job: Job, watch: Watch) -> torch.Tensor:
        """The ids of all rows, prompts included."""
        options = {
            **job.generation,
            "logits_processor": LogitsProcessorList([watch.scores]),
            "stopping_criteria": StoppingCriteriaList([watch]),
        }
        try:
            with self.lock, nullcontext() if job.seed is None else torch.random.fork_rng():
                if watch.cancelled.is_set():
                    return job.inputs["input_ids"]
                if job.seed is not None:
                    torch.manual_seed(job.seed)
                outputs = self.pipeline.forward(job.inputs, generate_kwargs=options)
        except (ValueError, TypeError) as error:
            raise RequestError(422, f"{error}") from error
        rows = outputs["generated_sequence"]
        return rows.reshape(-1, rows.shape[-1])

    def _answer(self, job: Job) -> list[Answer]:
        watch = self.watch(job)
        rows = self.generate(job, watch)
        if not job.has_beams:
            return [self._finish(tokens, job) for tokens in watch.rows]
        rows = rows[:, job.num_prompt_tokens :].tolist()
        return [self._finish([Token(index) for index in self._strip(row)], job) for row in rows]

    def _strip(self, ids: list[int]) -> list[int]:
        """The ids of an answer out of a row, which is filled up after its end where others are longer."""
        length = next((index + 1 for index, token in enumerate(ids) if token in self.ends), None)
        ids = ids[:length]
        while length is None and ids and ids[-1] == self.pipeline.tokenizer.pad_token_id:
            ids.pop()
        return ids

    def _finish(self, tokens: Sequence[Token], job: Job) -> Answer:
        ids = [token.index for token in tokens]
        text = self.decode(ids)
        return Answer(text, len(ids), self.finish_reason(ids, text, job), tokens)

    def finish_reason(self, ids: list[int], text: str, job: Job) -> str:
        """Why an answer ended."""
        has_ended = bool(ids) and ids[-1] in self.ends
        has_ended = has_ended or len(ids) < job.generation["max_new_tokens"] or any(word in text for word in job.stop)
        return "stop" if has_ended else "length"

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids without special tokens."""
        [text] = self.pipeline.processor.post_process_image_text_to_text([list(ids)], skip_special_tokens=True)
        return text

    @property
    def ends(self) -> set[int]:
        """Ids of the tokens that end an answer."""
        ends = self.pipeline.model.generation_config.eos_token_id
        return {ends} if isinstance(ends, int) else set(ends or ())

    def _told(self, answer: Answer, stop: Sequence[str]) -> list[Token]:
        """The tokens of an answer's text: not the one that ends it, and none behind a stop sequence."""
        tokens = [token for token in answer.tokens if token.index not in self.ends]
        length = len(cut_at(answer.text, stop))
        if length == len(answer.text):
            return tokens
        ids = [token.index for token in tokens]
        return [token for count, token in enumerate(tokens) if len(self.decode(ids[:count])) < length]

    def write_logprobs(self, tokens: Sequence[Token]) -> dict:
        """Log probabilities as OpenAI has them. Tokens that are a part of a character have no bytes of their own."""

        def entry(index: int, logprob: float) -> dict:
            token = self.pipeline.tokenizer.decode([index])
            return {
                "token": token,
                "logprob": logprob,
                "bytes": None if "\ufffd" in token else list(token.encode()),
            }

        content = [
            {**entry(token.index, token.logprob), "top_logprobs": [entry(*one) for one in token.top]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}

    def _generation_options(self, given: Mapping) -> dict:
        """Options of `generate`. Naming how to sample is asking for it; a temperature of 0 is asking not to."""
        options = dict(given)
        names = [name for name in ("temperature", "top_k", "top_p", "min_p") if name in options]
        if options.get("temperature") == 0:
            if options.get("do_sample"):
                raise RequestError(422, "`do_sample` with a `temperature` of 0 contradict each other.")
            options = {name: value for name, value in options.items() if name not in names} | {"do_sample": False}
        elif names and not options.setdefault("do_sample", True):
            raise RequestError(422, f"`do_sample` is false, with which `{names[0]}` has no effect.")
        if "top_k" in options:
            options["top_k"] = max(options["top_k"], 0)  # 0 and -1: any
        usual = self.pipeline.model.generation_config
        samples = options.get("do_sample", usual.do_sample)
        if options.get("num_return_sequences", 1) > 1 and not samples and options.get("num_beams", 1) == 1:
            raise RequestError(
                422,
                f"`num_return_sequences` (`n`) is {options['num_return_sequences']}, but without sampling there is "
                "one answer: give a `temperature` above 0.",
            )
        most = usual.max_new_tokens or DEFAULT_NEW_TOKENS
        return {"max_new_tokens": min(most, self.limits.max_new_tokens), **options}

    def _processing_options(self, parameters: Mapping) -> dict:
        """Options of the processor, by which no more frames than the limit are sampled."""
        options = {name: parameters[name] for name in PROCESSING if name in parameters}
        is_sampled = "fps" in options or "num_frames" in options
        usual = {name: value for name, value in self.processing.items() if not is_sampled or name != "num_frames"}
        options = {**usual, **options}
        video_processor, limit = self.pipeline.processor.video_processor, self.limits.max_frames
        if "fps" in options or ("num_frames" not in options and getattr(video_processor, "fps", None)):
            most = options.get("max_frames") or getattr(video_processor, "max_frames", None) or limit
            options["max_frames"] = min(most, limit)
        elif video_processor.num_frames and video_processor.num_frames > limit:
            options.setdefault("num_frames", limit)
        return options


def write_envelope(kind: str, job: Job) -> dict:
    """What stands around an answer."""
    created = int(time.time())
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": created, "model": job.model_name}


def write_usage(num_prompt_tokens: int, num_answer_tokens: int) -> dict:
    """What an answer took."""
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_answer_tokens,
        "total_tokens": num_prompt_tokens + num_answer_tokens,
    }


def cut_at(text: str, stop: Sequence[str]) -> str:
    """A text up to the first stop sequence, which OpenAI's style leaves out."""
    return text[: min([text.find(word) for word in stop if word in text], default=None)]
