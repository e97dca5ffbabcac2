"""Reads the parameters of requests: their names, types and ranges."""

import math
from collections.abc import Mapping, Sequence

from .limits import Limits, RequestError

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
"""Numeric parameters: type, minimum, and maximum or the name of the limit that sets it. Times are in seconds."""

FLAGS = ("do_sample", "load_audio_from_video", "return_evidence")
ITEM_OPTIONS = ("num_frames", "max_frames", "fps", "video_start", "video_end")
"""Options that a content item can set for its own video."""

PROCESSING = (*ITEM_OPTIONS, "load_audio_from_video")
PROCESSING_NAMES = {"use_audio_in_video": "load_audio_from_video"}
PROCESSING_OBJECTS = ("mm_processor_kwargs", "chat_template_kwargs")
"""The objects in which vLLM and the server of transformers take options of the processor."""

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
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "service_tier": ("auto", "default"),
    "store": (False,),
}
HUB_FIXED = {"return_full_text": (False,), "stream": (False,)}
"""Parameters of which only the values that change nothing are accepted."""

OPENAI_IGNORED = ("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
OPENAI_UNSUPPORTED = ("tools", "functions", "function_call", "audio", "prediction", "web_search_options")
"""Parameters that are accepted only if they are empty."""

MAX_TOP_LOGPROBS = 20


def given_entries(mapping: Mapping) -> dict:
    """The entries that are not null: clients write out what they leave open."""
    return {name: value for name, value in mapping.items() if value is not None}


def refuse_unknown(what: str, given: Mapping, known: Sequence[str]) -> None:
    """Raises a `RequestError` (422) that begins with `what` if an entry is not among the known ones."""
    unknown = sorted(str(name)[:40] for name in given.keys() - set(known))
    if unknown:
        raise RequestError(422, f"{what} has unknown entries: {', '.join(unknown)}. Known are: {', '.join(known)}.")


def refuse_others(name: str, value, accepted: Sequence) -> None:
    """Raises a `RequestError` (422) if the value of a parameter is not among the accepted ones."""
    if value not in accepted:
        raise RequestError(422, f"`{name}` can be {' or '.join(map(repr, accepted))} alone here, got {value!r:.80}.")


def read_object(name: str, value, status: int = 422) -> dict:
    """The entries of an object that are not null; none if there is no object. `status` is that of the refusal."""
    if not isinstance(value, (Mapping, type(None))):
        raise RequestError(status, f"`{name}` is an object, got {value!r:.80}.")
    return given_entries(value or {})


def read_flag(name: str, value) -> bool | None:
    """A boolean that may be left out."""
    if not isinstance(value, (bool, type(None))):
        raise RequestError(422, f"`{name}` is true or false, got {value!r:.80}.")
    return value


def read_number(name: str, value, number_type: type, low: float, high: float | str, limits: Limits | None = None):
    """A number from `low` to `high`, or to the limit of the name `high`."""
    limit = ""
    if isinstance(high, str):
        limit, high = f" ({high} of this endpoint)", getattr(limits, high)
    is_number = isinstance(value, int if number_type is int else (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        kind = "an integer" if number_type is int else "a number"
        raise RequestError(422, f"`{name}` is {kind} from {low} to {high}{limit}, got {value!r:.80}.")
    return number_type(value)


def read_parameters(given: Mapping, limits: Limits, names: Mapping[str, str], fixed: Mapping[str, Sequence]) -> dict:
    """
    The parameters of a request that are not null, checked, under the names that transformers uses. Raises a
    `RequestError` (422) if one is unknown, given twice, or out of range.

    Args:
        given (`dict`): Parameters as they were sent.
        limits ([`Limits`]): The maxima of some of them.
        names (`dict`): Other names of parameters.
        fixed (`dict`): Parameters of which only some values are accepted, and these values.
    """
    parameters = {}
    for name, value in _unpack_processing(given).items():
        known_as = names.get(name, name)
        if name in fixed:
            refuse_others(name, value, fixed[name])
        elif name in OPENAI_UNSUPPORTED:
            if value:
                raise RequestError(422, f"The parameter {name!r} is not supported.")
        elif known_as in parameters:
            raise RequestError(422, f"`{name}` is given twice, under two names.")
        elif known_as in NUMBERS:
            parameters[known_as] = read_number(name, value, *NUMBERS[known_as], limits)
        elif known_as in FLAGS:
            parameters[known_as] = read_flag(name, value)
        elif known_as == "stop":
            stop = [value] if isinstance(value, str) else value
            if not isinstance(stop, list) or not stop or not all(isinstance(text, str) and text for text in stop):
                raise RequestError(422, f"`{name}` is a string or a list of strings, got {value!r:.80}.")
            parameters[known_as] = stop
        else:
            known = ", ".join(sorted({*NUMBERS, *FLAGS, "stop", *names, *fixed}))
            raise RequestError(422, f"The parameter {name!r:.80} is unknown. Known are: {known}.")
    if "fps" in parameters and "num_frames" in parameters:
        raise RequestError(422, "Frames are sampled by `fps` or by `num_frames`, not by both.")
    return parameters


def read_processing(given: Mapping, limits: Limits) -> dict:
    """Options of the processor, checked as [`read_parameters`] checks."""
    refuse_unknown("What is said of the processor", given, [*PROCESSING, *PROCESSING_NAMES])
    return read_parameters(given, limits, PROCESSING_NAMES, {})


def _unpack_processing(request: Mapping) -> dict:
    """The parameters that are not null, those in `PROCESSING_OBJECTS` beside the others."""
    parameters = {name: value for name, value in given_entries(request).items() if name not in PROCESSING_OBJECTS}
    for name in PROCESSING_OBJECTS:
        options = read_object(name, request.get(name))
        refuse_unknown(f"`{name}`", options, [*PROCESSING, *PROCESSING_NAMES])
        if twice := sorted(options.keys() & parameters.keys()):
            raise RequestError(422, f"`{twice[0]}` is given twice, in `{name}` and elsewhere.")
        parameters |= options
    return parameters


def read_logprobs(request: dict) -> int | None:
    """How many of the likeliest tokens to report, if any, by `logprobs` and `top_logprobs`, which it takes out."""
    wanted, num_top = read_flag("logprobs", request.pop("logprobs", None)), request.pop("top_logprobs", None)
    if num_top is not None:
        num_top = read_number("top_logprobs", num_top, int, 0, MAX_TOP_LOGPROBS)
        if not wanted and num_top:
            raise RequestError(422, "`top_logprobs` needs `logprobs` to be true.")
    return (num_top or 0) if wanted else None


def read_bias(request: dict, num_tokens: int) -> dict[int, float]:
    """What to add to the logits of which tokens. Takes `logit_bias` out of the request."""
    given = request.pop("logit_bias", None) or {}
    try:
        bias = {int(token): float(value) for token, value in given.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise RequestError(422, f"`logit_bias` is an object of token ids and numbers, got {given!r:.80}.") from error
    for token, value in bias.items():
        if not 0 <= token < num_tokens or not -100 <= value <= 100:
            accepted = f"numbers from -100 to 100 for tokens from 0 to {num_tokens - 1} are accepted."
            raise RequestError(422, f"`logit_bias` has {value:g} for token {token}: {accepted}")
    return bias
