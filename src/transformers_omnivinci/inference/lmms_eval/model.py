"""The model `omnivinci` of lmms-eval, as the entry point names it."""

import os
from collections import defaultdict
from pathlib import Path

from accelerate import Accelerator
from tqdm import tqdm
from transformers.utils import logging

from ...evaluation.asking import Asker, Prompt
from ...modeling import OmniVinciForConditionalGeneration
from ...processing import OmniVinciProcessor
from .answering import generation_options
from .chats import message_chat, task_chat
from .journal import Journal

try:
    from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
    from lmms_eval.api.model import lmms
except ImportError as error:
    raise ImportError(
        f"lmms-eval lacks what this package is written for, that is, lmms-eval 0.7.3: {error}"
    ) from error

logger = logging.get_logger(__name__)

OTHER_NAMES = {
    "num_video_frames": "num_frames",
    "use_audio_in_video": "load_audio_from_video",
    "load_audio_in_video": "load_audio_from_video",
}
"""Names that other models of lmms-eval, or its own wrapper of OmniVinci, have for arguments."""


class OmniVinciChat(lmms):
    """
    OmniVinci for lmms-eval: `lmms-eval --model omnivinci --model_args pretrained=DIR,num_frames=64 --tasks ...`.

    Several processes, as `accelerate launch` starts them, share the questions; each has a model of its own. What
    lmms-eval hands over is never left out: a medium that is not understood, or that cannot be read, is an error that
    names the task and the document.

    Args:
        pretrained (`str`): A folder or a repository, in the layout of transformers or in the published one.
        batch_size (`int`, *optional*, defaults to 1): Questions that are answered together.
        device (`str`, *optional*): Default: the one that accelerate finds for this process.
        device_map (`str`, *optional*): Spreads one model over several devices. Default: it is on one device.
        dtype (`str`, *optional*, defaults to `"auto"`): Of the weights. Default: as in the checkpoint.
        attn_implementation (`str`, *optional*): `eager`, `sdpa` or `flash_attention_2`.
        revision (`str`, *optional*): Of a repository.
        num_frames (`int`, *optional*): Frames to sample uniformly from each video. Default: as in the checkpoint.
        fps (`float`, *optional*): Frames per second to sample, instead of `num_frames`.
        max_frames (`int`, *optional*): The most frames that `fps` gives.
        load_audio_from_video (`bool`, *optional*): Whether videos are heard, too. Default: as in the checkpoint. Also
            `use_audio_in_video` and `load_audio_in_video`.
        system_prompt (`str`, *optional*): A text, or a file with it. Default: that of the chat template.
        encoded_media (`int`, *optional*): Of how many samples the encoded media are kept for further questions about
            them. Default: `batch_size`, at least 8.
        answers (`str`, *optional*): A folder where each answer of greedy decoding is written down at once: the same
            call after an interruption asks only what is missing there. lmms-eval's own `--use_cache` keeps answers
            when all questions are answered.

    Raises:
        ValueError, TypeError, OSError: an argument is not accepted, or the checkpoint cannot be loaded.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str = "nvidia/omnivinci",
        batch_size: int | str = 1,
        device: str | None = None,
        device_map: str | None = None,
        dtype: str = "auto",
        attn_implementation: str | None = None,
        revision: str | None = None,
        system_prompt: str | None = None,
        encoded_media: int | None = None,
        answers: str | None = None,
        **options,
    ):
        super().__init__()
        options = _read_options(options)
        self.batch_size = _whole("batch_size", batch_size)
        self.accelerator = Accelerator()
        if device_map is not None and (self.accelerator.num_processes > 1 or device is not None):
            raise ValueError(
                f"`device_map={device_map}` spreads one model over the devices of one process: it is accepted without "
                "`device`, and not with several processes, of which each has its own model."
            )
        loading = {"revision": revision, "attn_implementation": attn_implementation, "device_map": device_map}
        loading = {name: value for name, value in loading.items() if value is not None}
        self.processor = OmniVinciProcessor.from_pretrained(
            pretrained, **({} if revision is None else {"revision": revision})
        )
        self.model = OmniVinciForConditionalGeneration.from_pretrained(pretrained, dtype=dtype, **loading).eval()
        if device_map is None:
            self.model.to(device or self.accelerator.device)
        self.device = self.model.device
        self.system_prompt = _read_prompt(system_prompt)
        num_kept = max(self.batch_size, 8) if encoded_media is None else _whole("encoded_media", encoded_media)
        _check_sampling(self.processor, options)
        self.asker = Asker(self.model, self.processor, num_kept=num_kept, sanitize_control_tokens=True, **options)
        settings = {"pretrained": pretrained, "revision": revision, "dtype": str(self.model.dtype), **options}
        settings["system_prompt"] = self.system_prompt
        self.journal = None if answers is None else Journal(answers, self.rank, settings)

    @property
    def rank(self) -> int:
        """The number of this process."""
        return self.accelerator.process_index

    @property
    def world_size(self) -> int:
        """The number of processes."""
        return self.accelerator.num_processes

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """
        The answers to requests of lmms-eval, in their order.

        Raises:
            ValueError: a document cannot be asked about; the message names it and its task.
        """
        keys = [self._key(request) for request in requests]
        answers = [self.journal.answers.get(key) if key else None for key in keys]
        with tqdm(total=len(requests), disable=self.rank != 0, desc="Answering") as progress:
            progress.update(sum(answer is not None for answer in answers))
            for generation, places in self._group(requests):
                places = [place for place in places if answers[place] is None]
                given, stop = generation_options(generation, self.model.generation_config.max_new_tokens)
                for first in range(0, len(places), self.batch_size):
                    batch = places[first : first + self.batch_size]
                    prompts = [self._prepare(requests[place]) for place in batch]
                    for place, answer in zip(batch, self.asker.generate(prompts, stop, **given), strict=True):
                        answers[place] = answer
                        if keys[place]:
                            self.journal.put(keys[place], answer)
                    progress.update(len(batch))
        return [
            GenerationResult(answer.text, TokenCounts(answer.num_prompt_tokens, answer.num_tokens))
            for answer in answers
        ]

    def clean(self) -> None:
        """Frees the memory of the model, which lmms-eval asks for when all answers are there."""
        self.asker = None
        super().clean()

    def loglikelihood(self, requests):
        """Refused, as by the other chat models of lmms-eval, whose tasks of this kind they cannot run."""
        raise NotImplementedError(
            f"The model `omnivinci` generates answers and tells no likelihoods, which {_tasks(requests)} asks for."
        )

    def generate_until_multi_round(self, requests):
        """Refused: the answers of one round are not known when the next one is asked."""
        raise NotImplementedError(
            f"The model `omnivinci` answers in one round, where {_tasks(requests)} asks for several."
        )

    def _group(self, requests: list[Instance]) -> list[tuple[dict, list[int]]]:
        """Requests with the same options of generation, in their order, by their places."""
        groups = defaultdict(list)
        for place, request in enumerate(requests):
            groups[repr(sorted(self._generation(request).items()))].append(place)
        return [(self._generation(requests[places[0]]), places) for places in groups.values()]

    def _key(self, request: Instance) -> str | None:
        """What stands for a question in the journal, if there is one; what is sampled is not kept there."""
        generation = self._generation(request)
        if self.journal is None or generation_options(generation)[0]["do_sample"]:
            return None
        *_, doc_id, task, split = request.args
        return self.journal.key(
            task=task, split=split, document=doc_id, text=request.args[0], generation=generation, simple=self.is_simple
        )

    @staticmethod
    def _generation(request: Instance) -> dict:
        return next(one for one in request.args if isinstance(one, dict))

    def _prepare(self, request: Instance) -> Prompt:
        *_, doc_id, task, split = request.args
        try:
            return self.asker.prepare([self._chat(request, self.task_dict[task][split][doc_id])])[0]
        except (ValueError, TypeError, OSError) as error:
            raise ValueError(f"Document {doc_id} of the split {split!r} of task {task!r}: {error}") from error

    def _chat(self, request: Instance, doc) -> list[dict]:
        context, doc_to_messages = request.args[:2]
        # Of a task without messages of its own, lmms-eval makes messages in which sounds are called videos, and which
        # cannot hold decoders: such a task is read like one of a simple model.
        task = getattr(doc_to_messages, "__self__", None)
        if task is not None and task.config.doc_to_messages is None:
            return self._ask(context, task.doc_to_visual, doc, task.config.task)
        return message_chat(doc_to_messages(doc), self.system_prompt)

    def _ask(self, context: str, doc_to_visual, doc, task: str) -> list[dict]:
        visuals = doc_to_visual(doc) if doc_to_visual is not None else None
        if isinstance(visuals, (list, tuple)) and not visuals:
            logger.warning_once(
                f"Task {task!r} gives no medium for some documents, which are asked about without one. If it should, "
                "its files may be missing."
            )
        return task_chat(context, visuals, self.system_prompt)


class OmniVinciSimple(OmniVinciChat):
    """As [`OmniVinciChat`], for `lmms-eval --force_simple`: every task is asked as one text behind its media."""

    is_simple = True

    def _chat(self, request: Instance, doc) -> list[dict]:
        context, _, doc_to_visual, *_, task, _ = request.args
        return self._ask(context, doc_to_visual, doc, task)


def _read_options(given: dict) -> dict:
    """Options of the processor by the names that they have there."""
    known = ("num_frames", "fps", "max_frames", "load_audio_from_video")
    options = {}
    for name, value in given.items():
        own = OTHER_NAMES.get(name, name)
        if own not in known:
            raise TypeError(
                f"`{name}` is no argument of the model `omnivinci`: {', '.join(known)} and those of loading are."
            )
        if own in options:
            raise ValueError(f"`{own}` is given twice among the arguments of the model, under two names.")
        options[own] = value
    for name in ("num_frames", "max_frames"):
        if name in options:
            options[name] = _whole(name, options[name])
    if "fps" in options and (isinstance(options["fps"], bool) or not isinstance(options["fps"], (int, float))):
        raise TypeError(f"`fps={options['fps']!r}` is not accepted: it is a number of frames per second.")
    if not isinstance(options.get("load_audio_from_video", False), bool):
        raise TypeError(f"`load_audio_from_video={options['load_audio_from_video']!r}`: it is True or False.")
    return options


def _check_sampling(processor: OmniVinciProcessor, options: dict) -> None:
    if "num_frames" in options and "fps" in options:
        raise ValueError("Got both `num_frames` and `fps`: frames are sampled by one of them.")
    samples_by_rate = "fps" in options or ("num_frames" not in options and processor.video_processor.fps is not None)
    if "max_frames" in options and not samples_by_rate:
        raise ValueError("`max_frames` limits what `fps` gives, but frames are sampled by their number: give `fps`.")
    if "fps" in options:
        options["num_frames"] = None  # that of the checkpoint


def _read_prompt(given: str | None) -> str | None:
    """A system prompt, or what a file of that name holds."""
    if given is not None and os.path.isfile(given):
        return Path(given).read_text(encoding="utf-8").strip()
    return given


def _whole(name: str, value) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if isinstance(value, (bool, float)) or number < 1:
        raise ValueError(f"`{name}={value}` is not accepted: it is a whole number from 1 on.")
    return number


def _tasks(requests: list[Instance]) -> str:
    return ", ".join(repr(task) for task in sorted({request.task_name for request in requests})) or "a task"
