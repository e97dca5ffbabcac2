"""
What differs between the versions of transformers that this package works with, 5.8 and newer. No other module asks for
a version; each entry tells from which on it can go. Importing it imports neither torch nor transformers.
"""

import os
import re
from contextvars import ContextVar
from importlib.metadata import version

OLDEST, TESTED = (5, 8), (5, 24)
"""The first version that works, and the newest that was tested. Those after it are not refused."""

INSTALLED = version("transformers")
VERSION = tuple(map(int, re.findall(r"\d+", INSTALLED)[:2]))

if VERSION < OLDEST:
    raise ImportError(
        f"transformers {INSTALLED} is too old for transformers_omnivinci: pip install 'transformers>={OLDEST[0]}."
        f"{OLDEST[1]}'."
    )


def require(owner, *names: str) -> None:
    """
    Raises an `ImportError` if a class or module of transformers no longer has the attributes that this package
    overrides or adds to. Were one renamed, ours would no longer be called, and nothing would tell.
    """
    if gone := [name for name in names if not hasattr(owner, name)]:
        owner_name = getattr(owner, "__name__", type(owner).__name__)
        tested = " to ".join(".".join(map(str, one)) for one in (OLDEST, TESTED))
        raise ImportError(
            f"transformers {INSTALLED} has no {', '.join(gone)} in {owner_name}, upon which transformers_omnivinci "
            f"builds: {tested} are tested, and a newer release of this package may know this version."
        )


CACHE = "cache" if VERSION >= (5, 24) else "past_key_values"
"""What forwards and outputs of transformers call the cache."""


class CacheByBothNames:
    """Mixin of outputs, which are asked for the cache by both names. From 5.24 on transformers itself has this."""

    if CACHE == "past_key_values":

        @property
        def cache(self):
            """The keys and values of the language model."""
            return self.past_key_values

        def __getitem__(self, key):
            return super().__getitem__(CACHE if key == "cache" else key)


def choose_cache(past_key_values, cache):
    """The cache that a forward was given, by either name. A `ValueError` if it was given two by both."""
    if past_key_values is not None and cache is not None and past_key_values is not cache:
        raise ValueError("Got both `cache` and `past_key_values`, which are names of the same: give one of them.")
    return cache if past_key_values is None else past_key_values


_prompt_start: ContextVar[int] = ContextVar("prompt_start", default=0)
"""How many positions stand before the ids that are given to the `generate` that is running."""


class PromptMedia(dict):
    """
    Embeddings of the media of prompts, with what tells where they stand: the `input_ids` of the prompts, of shape
    `(batch_size, sequence_length)`, if they have any; how many embeddings of each prompt are `held` here, where a
    cache holds the ones before; and how many positions stand before these ids (`start`).
    """

    def __init__(self, encoded: dict, input_ids, held: dict[str, list[int]], start: int):
        super().__init__(encoded)
        self.input_ids, self.held, self.start = input_ids, held, start


class EncodesMediaOnce:
    """
    Mixin for generation, in front of `GenerationMixin`: media are encoded before the prompt is read and repeated with
    it, and each part of the prompt that is read gets what stands in it. From 5.23 on transformers itself does so, but
    for assistants. An empty dictionary says that what is read is no prompt any more.
    """

    if VERSION >= (5, 23):
        # `generate` reads the name `inputs_embeds` off the signature.
        def prepare_inputs_for_generation(
            self, input_ids, *args, inputs_embeds=None, is_first_iteration: bool = False, **kwargs
        ) -> dict:
            inputs = super().prepare_inputs_for_generation(
                input_ids, *args, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
            )
            if not is_first_iteration and kwargs.get("use_cache", True):
                # An assistant begins by what is no first iteration: it reads the media, too.
                cache = inputs.get(CACHE)
                begins = inputs["input_ids"].shape[1] > 1 and (cache is None or cache.get_seq_length() == 0)
                inputs["mm_encoder_outputs"] = kwargs.get("mm_encoder_outputs") if begins else {}
            return inputs

    else:

        def generate(self, inputs=None, *args, **kwargs):
            # Only here the mask is sure to be seen: some versions leave out one that masks nothing.
            ids, mask = kwargs.get("input_ids") if inputs is None else inputs, kwargs.get("attention_mask")
            start = 0 if ids is None or mask is None or mask.ndim != 2 else max(0, mask.shape[1] - ids.shape[1])
            token = _prompt_start.set(start)
            try:
                return super().generate(inputs, *args, **kwargs)
            finally:
                _prompt_start.reset(token)

        def _expand_inputs_for_generation(
            self, expand_size=1, is_encoder_decoder=False, input_ids=None, **model_kwargs
        ):
            model_kwargs = self._prepare_multimodal_encoder_kwargs_for_generation(model_kwargs)
            encoded = model_kwargs.pop("mm_encoder_outputs", None) or {}
            held = {
                name: [count for count in output["per_prompt"] for _ in range(expand_size)]
                for name, output in encoded.items()
                if output.get("per_prompt") is not None
            }
            embeds = model_kwargs.get("inputs_embeds")
            if encoded and expand_size > 1:
                encoded = self._expand_multimodal_outputs(input_ids, encoded, expand_size, embeds)
            input_ids, model_kwargs = super()._expand_inputs_for_generation(
                expand_size, is_encoder_decoder, input_ids, **model_kwargs
            )
            ids, start = (input_ids, _prompt_start.get()) if embeds is None else (None, 0)
            model_kwargs["mm_encoder_outputs"] = PromptMedia(encoded, ids, held, start)
            return input_ids, model_kwargs

        def prepare_inputs_for_generation(self, input_ids, past_key_values=None, inputs_embeds=None, **kwargs) -> dict:
            inputs = super().prepare_inputs_for_generation(
                input_ids, past_key_values=past_key_values, inputs_embeds=inputs_embeds, **kwargs
            )
            media = kwargs.get("mm_encoder_outputs")  # of later parts some versions drop it
            length = 0 if past_key_values is None else int(past_key_values.get_seq_length())
            if not isinstance(media, PromptMedia):
                return inputs if media or not length else {**inputs, "mm_encoder_outputs": {}}
            inputs.pop("mm_encoder_outputs", None)
            start = length - media.start
            if media.input_ids is None:
                return {**inputs, "mm_encoder_outputs": {} if start else dict(media)}
            if start >= media.input_ids.shape[1]:
                return {**inputs, "mm_encoder_outputs": {}}
            stop = start + inputs["input_ids"].shape[1]
            parts = {name: self._between(name, media, start, stop) for name in media}
            parts = {name: part for name, part in parts.items() if part is not None}
            return {**inputs, "mm_encoder_outputs": parts} if parts else inputs

        def _between(self, modality: str, media: PromptMedia, start: int, stop: int):
            """The embeddings that stand in some columns of the prompts, as one medium of each prompt."""
            mask = media.input_ids == getattr(self.config, f"{modality}_token_id")
            whole, before, within = (part.sum(1).tolist() for part in (mask, mask[:, :start], mask[:, start:stop]))
            if not sum(within):
                return None
            held = media.held.get(modality, whole)
            rows = self.flatten_embeddings(media[modality]).split(held)
            firsts = [first - (total - left) for first, total, left in zip(before, whole, held, strict=True)]
            spans = zip(rows, firsts, within, strict=True)
            return type(media[modality])(pooler_output=[row[first : first + count] for row, first, count in spans])


def video_processor_names(name: str) -> str | dict[str, str]:
    """How the mapping of `AutoVideoProcessor` holds the name of a class: until 5.19 it is a string alone."""
    return name if VERSION < (5, 19) else {"torchvision": name}


def pipeline_class(path: str) -> str | type:
    """How the table of pipelines holds a class, given its path: until 5.23 as the class itself."""
    if VERSION >= (5, 23):
        return path
    from importlib import import_module

    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def fsdp_options(arguments) -> list[str]:
    """Command-line options of `TrainingArguments`, in which `--fsdp` alone asks for FSDP2, as it does from 5.10 on."""
    arguments = list(arguments)
    if VERSION >= (5, 10) or "--fsdp" not in arguments:
        return arguments
    place = arguments.index("--fsdp") + 1
    if place < len(arguments) and not arguments[place].startswith("--"):
        return arguments
    # What it saves has all weights in one file then, too.
    os.environ.setdefault("FSDP_STATE_DICT_TYPE", "FULL_STATE_DICT")
    is_configured = any(one.replace("_", "-") == "--fsdp-config" for one in arguments)
    version = [] if is_configured else ["--fsdp-config", '{"version": 2}']
    return [*arguments[:place], "full_shard auto_wrap", *version, *arguments[place:]]


def end_training(trainer) -> None:
    """Finishes trackers and the group of processes. `Trainer` has this from 5.19 on."""
    trainer.end() if hasattr(trainer, "end") else trainer.accelerator.end_training()


def http_library():
    """The library through which huggingface_hub speaks: httpx, or httpx2 from its 2.0 on. It tells from 1.31 on."""
    try:
        from huggingface_hub.utils import httpx
    except ImportError:
        import httpx
    return httpx
