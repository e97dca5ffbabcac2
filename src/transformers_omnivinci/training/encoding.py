"""From a chat to the tensors of one sample."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers.processing_utils import ProcessorMixin

from ..labels import IGNORED, without_placeholders
from ..planning import PromptPlan
from ..processing.conversation import MODALITIES, item_options
from .data import BadSample, Sample
from .sharing import SplitSample, count_shared

TENSORS = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True, "return_tensors": "pt"}
_MAX_TEXTS = 2**16
"""Tokenized chats that are kept: each is measured, split and encoded, and many clips are asked the same."""


@dataclass(frozen=True)
class Measure:
    """
    What is known of a sample before its media are decoded.

    Attributes:
        length (`int`): Positions in the sequence.
        modalities (`frozenset[str]`): Which of `"image"`, `"video"` and `"audio"` it has; a video's track is audio.
    """

    length: int
    modalities: frozenset[str]

    @property
    def kind(self) -> str:
        """`"text"`, `"image"`, `"video"` and `"audio"` are specific to one modality; `"omni"` is heard and seen."""
        if "audio" in self.modalities:
            return "omni" if len(self.modalities) > 1 else "audio"
        return "video" if "video" in self.modalities else "image" if self.modalities else "text"


class SampleEncoder:
    """
    Encodes chats with a processor. The labels are those of the answers, the end of each turn included.

    Args:
        processor ([`OmniVinciProcessor`]): What expands, decodes and tokenizes.
        max_length (`int`, *optional*): The most positions of a sample. `None`: any.
        load_audio_from_video (`bool`, *optional*):
            Whether videos take their track along. `None`: as the processor says.
        options: Options of the processor, such as `num_frames`, `fps` and `max_frames`.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        max_length: int | None = None,
        load_audio_from_video: bool | None = None,
        **options,
    ):
        self.processor, self.max_length = processor, max_length
        if load_audio_from_video is None:
            load_audio_from_video = processor.load_audio_from_video
        self.options = {"load_audio_from_video": load_audio_from_video, **options}
        self._media: dict[tuple, Measure] = {}
        self._texts: dict[str, tuple[torch.Tensor, torch.Tensor, list[int]]] = {}

    def measure(self, sample: Sample) -> Measure:
        """
        Length and modalities of a sample, from the headers of its media.

        Raises:
            BadSample: a medium cannot be read, or the sample is too long.
        """
        with _naming(sample):
            items, (input_ids, _, places) = media_items(sample), self._read(sample)
            # Several images of a prompt are not tiled; and a text that holds a placeholder is refused with the prompt.
            if len(places) != len(items) or sum(item["type"] == "image" for item in items) > 1:
                plan = self._plan(sample.messages)
                length, media = plan.length, plan.media
            else:
                media = [self._measure_medium(item) for item in items]
                length = len(input_ids) - len(items) + sum(medium.length for medium in media)
        self._check_length(sample, length)
        return Measure(length, frozenset().union(*(medium.modalities for medium in media)))

    def encode(self, sample: Sample, *others: Sample) -> dict:
        """
        The tensors of a sample, or of one sequence of several that share their media.

        Args:
            sample (`Sample`): Its media are decoded.
            others (`Sample`): Samples that [`group_by_media`] has found to share them.

        Returns:
            `dict`: `input_ids` and `labels` (sequence,), the media as [`OmniVinciProcessor`] returns them, and its
            `sample_ids`. With others also `position_ids` and `segment_ids` (sequence,): 0 where all of them read, 1
            where the first one does alone, and so on.

        Raises:
            BadSample: a medium cannot be read or is not shared, nothing is answered, or the sequence is too long.
        """
        with _naming(sample):
            encoded = self.processor.apply_chat_template(sample.messages, **TENSORS, **self.options)
            input_ids = encoded.pop("input_ids")[0]
            is_answer = encoded.pop("assistant_masks")[0].bool()
            labels = without_placeholders(input_ids.masked_fill(~is_answer, IGNORED), self._placeholders)
            if not (labels != IGNORED).any():
                raise ValueError(
                    "no token of it is an answer: the chat template needs a {% generation %} block around answers."
                )
        del encoded["attention_mask"]
        text = {"input_ids": input_ids, "labels": labels}
        if others:
            splits = [self.split(one) for one in (sample, *others)]
            for one, split in zip(others, splits[1:], strict=True):
                if split is None or splits[0] is None or not split.shares_media(splits[0]):
                    raise BadSample(one.id, f"it does not begin with the media of sample {sample.id}.")
            text = self._join(input_ids, splits)
        self._check_length(sample, len(text["input_ids"]))
        return {**text, **encoded, "sample_ids": [one.id for one in (sample, *others)]}

    def split(self, sample: Sample) -> SplitSample | None:
        """
        Cuts a sample behind its last medium, without reading any. `None`: it has nothing to share, as it has no media,
        or no answer that comes after them alone.

        Raises:
            BadSample: the chat template does not accept it.
        """
        media = [((item["type"], *item_options(item).items()), item[item["type"]]) for item in media_items(sample)]
        if not media:
            return None
        with _naming(sample):
            input_ids, is_answer, places = self._read(sample)
        answers = is_answer.nonzero()[:, 0].tolist()
        if len(places) != len(media) or not answers or answers[0] <= places[-1] + 1:
            return None
        end = places[-1] + 1
        before, after = input_ids.tensor_split([end])
        labels = after.masked_fill(~is_answer[end:], IGNORED)
        return SplitSample(before.tolist(), media, after.tolist(), labels.tolist(), answers[0] - end)

    @staticmethod
    def _join(input_ids: torch.Tensor, samples: list[SplitSample]) -> dict:
        """One sequence of samples, of which the first one is given with its media in place."""
        shared = count_shared(samples)
        prefix = input_ids[: len(input_ids) - len(samples[0].after) + shared]
        rests = [torch.tensor(sample.after[shared:]) for sample in samples]
        labels = [torch.tensor(sample.labels[shared:]) for sample in samples]
        start, lengths = len(prefix), [len(rest) for rest in rests]
        return {
            "input_ids": torch.cat([prefix, *rests]),
            "labels": torch.cat([torch.full_like(prefix, IGNORED), *labels]),
            "position_ids": torch.cat([torch.arange(start), *(torch.arange(start, start + n) for n in lengths)]),
            "segment_ids": torch.arange(len(samples) + 1).repeat_interleave(torch.tensor([start, *lengths])),
        }

    @property
    def _placeholders(self) -> list[int]:
        return [getattr(self.processor, f"{name}_token_id") for name in MODALITIES]

    def _check_length(self, sample: Sample, length: int) -> None:
        if self.max_length is not None and length > self.max_length:
            raise BadSample(
                sample.id,
                f"it has {length:,} positions, more than the limit of {self.max_length:,}: take fewer frames "
                "(`num_frames`), shorter media or a higher limit (`max_length`).",
            )

    def _read(self, sample: Sample) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """
        Tokens (sequence,) with one placeholder for each medium, which of them are answers, and where placeholders are.
        A placeholder is a token of its own: the text around it is read alike wherever it is expanded.
        """
        key = repr(_without_sources(sample))
        if key not in self._texts:
            template = {"chat_template": self.processor.chat_template}
            encoded = self.processor.tokenizer.apply_chat_template(sample.messages, **template, **TENSORS)
            input_ids, is_answer = encoded["input_ids"][0], encoded["assistant_masks"][0].bool()
            places = torch.isin(input_ids, torch.tensor(self._placeholders)).nonzero()[:, 0].tolist()
            if len(self._texts) == _MAX_TEXTS:
                self._texts.clear()
            self._texts[key] = input_ids, is_answer, places
        return self._texts[key]

    def _measure_medium(self, item: dict) -> Measure:
        """What a medium takes alone. It is planned once for all the samples that ask about it."""
        key = tuple(item.items())
        is_named = all(isinstance(value, (str, int, float)) for value in item.values())
        if is_named and key in self._media:
            return self._media[key]
        plan = self._plan([{"role": "user", "content": [item]}])
        measure = Measure(plan.media[0].length, frozenset(plan.media[0].modalities))
        if is_named:
            self._media[key] = measure
        return measure

    def _plan(self, messages: list[dict]) -> PromptPlan:
        return self.processor.plan(messages, add_generation_prompt=False, **self.options)


def media_items(sample: Sample) -> list[dict]:
    """The items of all messages that are media."""
    return [
        item
        for message in sample.messages
        if not isinstance(message["content"], str)
        for item in message["content"]
        if item["type"] != "text"
    ]


def _without_sources(sample: Sample) -> list[dict]:
    """Its messages as the chat template reads them: a source is no part of the text."""
    messages = [dict(message) for message in sample.messages]
    for message in messages:
        if not isinstance(message["content"], str):
            content = message["content"]
            message["content"] = [item if item["type"] == "text" else {"type": item["type"]} for item in content]
    return messages


@contextmanager
def _naming(sample: Sample) -> Iterator[None]:
    """Says of what goes wrong with which sample it does."""
    try:
        yield
    except BadSample:
        raise
    except (OSError, TypeError, ValueError) as error:
        raise BadSample(sample.id, " ".join(str(error).split())) from error
