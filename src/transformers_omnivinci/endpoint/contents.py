"""Reads the messages of requests, and fetches their media."""

import math
import time
from collections.abc import Mapping

from .fetch import Downloader, decode_base64
from .limits import Limits, RequestError
from .parameters import ITEM_OPTIONS, given_entries, read_parameters, refuse_unknown

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MODALITIES = ("image", "video", "audio")
MEDIA_TYPES = {f"{name}{end}": name for name in MODALITIES for end in ("", "_url")} | {"input_audio": "audio"}
"""The modality of each type of content item."""
MEDIA_KEYS = {name: name for name in MODALITIES} | {"images": "image", "videos": "video"}
"""The modality of each entry of a sample `{"text": ..., "video": ...}`."""


class Contents:
    """
    The texts and media of one request, fetched and checked against the limits one after another. Its methods raise a
    `RequestError` if what they read is malformed, cannot be fetched or exceeds the limits.

    Args:
        processor ([`OmniVinciProcessor`]): Probes the media.
        limits ([`Limits`]), downloader ([`Downloader`]): What is accepted, and what fetches URLs.
        options (`dict`): Parameters of the request; `video_start` and `video_end` choose a part of each video.
    """

    def __init__(self, processor, limits: Limits, downloader: Downloader, options: Mapping):
        self.processor, self.limits, self.downloader, self.options = processor, limits, downloader, options
        self.deadline = time.monotonic() + limits.max_download_seconds
        self.num_characters = self.num_media = self.num_bytes = 0
        self.seconds = 0.0

    def read_messages(self, messages) -> list[dict]:
        """Chat messages with the files of their media, as `bytes`."""
        if not isinstance(messages, list) or not messages:
            raise RequestError(400, "The messages are a list of at least one message with `role` and `content`.")
        return [self._read_message(message) for message in messages]

    def read_sample(self, sample: Mapping) -> list[dict]:
        """The message for a sample `{"text": ..., "video": ...}`: the media in the order given, then the text."""
        sample = given_entries(sample)
        refuse_unknown("The sample in `inputs`", sample, ["text", *MEDIA_KEYS])
        if "text" not in sample:
            raise RequestError(400, 'The sample in `inputs` has no "text".')
        text = self._read_text(sample.pop("text"))
        content = [
            self._read_medium(MEDIA_KEYS[name], source, {})
            for name, sources in sample.items()
            for source in (sources if isinstance(sources, list) else [sources])
        ]
        return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]

    def _read_message(self, message) -> dict:
        """A message as the processor takes it."""
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
        """A content item as the processor takes it, with the options of its video."""
        kind = item.get("type") if isinstance(item, Mapping) else None
        if kind == "text":
            refuse_unknown("A content item", given_entries(item), ["type", "text"])
            return {"type": "text", "text": self._read_text(item.get("text"))}
        if not isinstance(kind, str) or kind not in MEDIA_TYPES:
            accepted = ", ".join(["text", *MEDIA_TYPES])
            raise RequestError(400, f"The type of a content item is one of {accepted}, got {kind!r:.80}.")
        modality, entries = MEDIA_TYPES[kind], given_entries(item)
        del entries["type"]
        options = {name: entries.pop(name) for name in ITEM_OPTIONS if modality == "video" and name in entries}
        options = read_parameters(options, self.limits, {}, {})
        what = f"A content item of type {kind!r}"
        refuse_unknown(what, entries, list(dict.fromkeys([kind, modality, "url", "base64"])))
        if len(entries) != 1:
            raise RequestError(400, f"{what} has its medium in one entry, got {list(entries)}.")
        [source] = entries.values()
        if isinstance(source, Mapping):
            source = _read_source(kind, source)
        return self._read_medium(modality, source, options)

    def _read_text(self, text) -> str:
        if not isinstance(text, str):
            raise RequestError(400, f"A text is a string, got {text!r:.80}.")
        self.num_characters += len(text)
        if self.num_characters > self.limits.max_text_characters:
            raise RequestError(413, f"The texts have more than {self.limits.max_text_characters} characters.")
        return text

    def _read_medium(self, modality: str, source, options: Mapping) -> dict:
        """The content item for a medium, which is fetched and counted."""
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
            num_pixels, seconds = self._probe(modality, content, {**self.options, **options})
        except (ValueError, OSError) as error:
            raise RequestError(415, f"Medium {self.num_media} is not accepted as {modality}: {error}") from error
        if num_pixels > (most := limits.max_pixels):
            raise RequestError(413, f"Medium {self.num_media} has {num_pixels} pixels: {most} are accepted.")
        self.seconds += seconds
        if self.seconds > limits.max_media_seconds:
            raise RequestError(
                413,
                f"The videos and sounds last {self.seconds:.1f} s up to medium {self.num_media}: "
                f"{limits.max_media_seconds:g} s are accepted in all. `video_start` and `video_end` choose a part.",
            )
        return {"type": modality, modality: content, **options}

    def _probe(self, modality: str, content: bytes, options: Mapping) -> tuple[int, float]:
        """Pixels of an image or frame, and seconds. Only headers are read: the size is known before the decoding."""
        processor = self.processor
        if modality == "image":
            return math.prod(processor.image_processor.probe_image(content)), 0.0
        if modality == "audio":
            return 0, processor.probe_audio(content)
        try:
            processor.image_processor.probe_image(content)
        except ValueError:
            pass  # as it should be: only decoding all of an animation tells how long it is
        else:
            raise ValueError("it is an image, still or animated, where a video file is accepted.")
        metadata = processor.video_processor.probe_video(content)
        end = min(options.get("video_end", math.inf), max(metadata.duration, metadata.audio_duration or 0.0))
        return metadata.height * metadata.width, max(0.0, end - options.get("video_start", 0.0))


def _read_source(kind: str, source: Mapping) -> str:
    """The URL or base64 of OpenAI's objects `{"url": ...}` and `{"data": ..., "format": ...}`."""
    source = given_entries(source)
    refuse_unknown(f"`{kind}`", source, ["url", "data", "format", "detail"])
    if source.get("detail", "auto") != "auto":
        raise RequestError(422, f"The `detail` of an image is 'auto' alone here, got {source['detail']!r:.80}.")
    sources = [source[name] for name in ("url", "data") if name in source]  # contents tell their format
    if len(sources) != 1:
        raise RequestError(400, f"`{kind}` has one of `url` and `data`, got {list(source)}.")
    return sources[0]
