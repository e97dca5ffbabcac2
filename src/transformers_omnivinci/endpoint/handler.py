"""Answers requests in the style of the Hub's widgets and of OpenAI's chat completions."""

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList, pipeline

from .contents import Contents
from .fetch import Downloader
from .generation import Answer, Cancelled, Job, Token, Watch
from .limits import Limits, RequestError
from .parameters import (
    HUB_FIXED,
    HUB_NAMES,
    OPENAI_FIXED,
    OPENAI_IGNORED,
    OPENAI_NAMES,
    PROCESSING,
    given_entries,
    read_bias,
    read_logprobs,
    read_object,
    read_parameters,
    read_processing,
    refuse_unknown,
)
from .structured_output import StructuredOutput, read_format

DEFAULT_NEW_TOKENS = 256  # the pipeline's, for checkpoints that set none


class EndpointHandler:
    """
    Answers requests in the style of the Hub's widgets, or in that of OpenAI's chat completions.

    Args:
        path (`str`): Folder of the repository.
        limits ([`Limits`], *optional*): What a request may ask for. Default: read from the environment.
        downloader ([`Downloader`], *optional*): Fetches the URLs of media.
        name (`str`, *optional*): The model's name in answers. Default: the name of the folder.
        processing (`dict`, *optional*): Options of the processor for requests that set none.
        options: Passed to the pipeline, such as `device`, `dtype` and `cache_gb`. The repository's code is trusted,
            unless `trust_remote_code=False` is among them.

    Raises:
        RequestError: `processing` has an option that is unknown or out of range.
        OSError, ValueError: the limits in the environment are wrong, or the folder does not load.

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
        self.limits = limits or Limits.from_environment()
        self.downloader = downloader or Downloader()
        self.name = Path(path).resolve().name if name is None else name
        self.processing = read_processing(processing or {}, self.limits)
        self.pipeline = pipeline("video-text-to-text", model=path, **{"trust_remote_code": True, **options})
        self.pipeline.memory.is_model_fixed = True
        # Tokenizers and the state of random numbers are shared: requests are processed one at a time.
        self.lock = threading.Lock()

    def __call__(self, data: dict) -> list[dict] | dict:
        """
        Answers a request, of which `data` is the body:

        - `{"inputs": ..., "parameters": {...}}`, where `inputs` is a question, a list of chat messages, or a sample
          `{"text": ..., "image" | "video" | "audio": ...}` with one medium or a list of each kind. The answer is
          `[{"generated_text": ...}]`, with an entry for each of `num_return_sequences`.
        - `{"messages": [...], "max_tokens": ..., ...}` as in OpenAI's chat completions, or the same as
          `{"inputs": {"messages": ...}}`, as the inference toolkit takes no body without `inputs`. The answer is an
          object `chat.completion`.

        Media are http and https URLs, data URLs and base64. Parameters of generation and frame sampling have the
        pipeline's names, in OpenAI's style too. With `return_evidence` answers have `evidence`. Control tokens in
        texts are read as plain text.

        Raises:
            RequestError: the request is refused; the message says why and what is accepted.
        """
        if not isinstance(data, Mapping):
            raise RequestError(400, "The body of a request is a JSON object.")
        if "messages" in data:
            return self.complete_chat(data)
        inputs = data.get("inputs")
        if inputs is None:
            raise RequestError(400, "The body of a request has neither `inputs` nor `messages`.")
        refuse_unknown("The body of the request", given_entries(data), ["inputs", "parameters"])
        given = read_object("parameters", data.get("parameters"), status=400)
        if isinstance(inputs, Mapping) and "messages" in inputs:
            return self.complete_chat({**inputs, **given})
        parameters = read_parameters(given, self.limits, HUB_NAMES, HUB_FIXED)
        contents = self._contents(parameters)
        if isinstance(inputs, list):
            messages = contents.read_messages(inputs)
        elif isinstance(inputs, (str, Mapping)):
            messages = contents.read_sample({"text": inputs} if isinstance(inputs, str) else inputs)
        else:
            raise RequestError(400, "`inputs` is a text, an object with `text` and media, or a list of messages.")
        job = self._prepare(messages, parameters)
        return [{"generated_text": answer.text, **write_evidence(job)} for answer in self._answer(job)]

    def complete_chat(self, request: Mapping, cancelled: Cancelled | None = None) -> dict:
        """
        The object `chat.completion` for a request of OpenAI's chat completions. Errors are those of a call. If it is
        `cancelled`, answers are incomplete, or there are none.
        """
        job = self.read_chat(request)
        answers = self._answer(job, cancelled)
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": cut_at(answer.text, job.stop)},
                "finish_reason": answer.finish_reason,
                "logprobs": None if job.num_top is None else self.write_logprobs(self._shown(answer, job.stop)),
            }
            for index, answer in enumerate(answers)
        ]
        usage = write_usage(job, sum(len(answer.tokens) for answer in answers))
        envelope = write_envelope("chat.completion", job)
        return {**envelope, "choices": choices, "usage": usage, **write_evidence(job)}

    def read_chat(self, request: Mapping) -> Job:
        """Reads a request of OpenAI's chat completions and fetches its media. Errors are those of a call."""
        request = {name: value for name, value in request.items() if name not in OPENAI_IGNORED}
        model, messages = request.pop("model", None), request.pop("messages", None)
        if not isinstance(model, (str, type(None))):
            raise RequestError(400, f"`model` is a string, got {model!r:.80}.")
        if request.pop("stream_options", None):
            raise RequestError(422, "`stream_options` needs `stream` to be true.")
        num_top = read_logprobs(request)
        bias = read_bias(request, self.pipeline.model.config.get_text_config().vocab_size)
        schema = read_format(request)
        held = None if schema is None else self._structured_output.hold(schema)
        parameters = read_parameters(request, self.limits, OPENAI_NAMES, OPENAI_FIXED)
        job = self._prepare(self._contents(parameters).read_messages(messages), parameters)
        if job.has_beams and num_top is not None:
            raise RequestError(422, "`logprobs` does not go with `num_beams`.")
        if job.has_beams and held is not None:
            raise RequestError(422, "`response_format` does not go with `num_beams`.")
        job.num_top, job.bias, job.held, job.model_name = num_top, bias, held, model or self.name
        return job

    @cached_property
    def _structured_output(self) -> StructuredOutput:
        vocab_size = self.pipeline.model.config.get_text_config().vocab_size
        return StructuredOutput(self.pipeline.tokenizer, vocab_size, self.ends)

    def _contents(self, parameters: Mapping) -> Contents:
        return Contents(self.pipeline.processor, self.limits, self.downloader, parameters)

    def _prepare(self, messages: list[dict], parameters: Mapping) -> Job:
        """Turns messages, their media in memory, into the inputs of the model."""
        generation = {name: value for name, value in parameters.items() if name not in PROCESSING}
        seed, stop = generation.pop("seed", None), generation.pop("stop", [])
        penalties = generation.pop("frequency_penalty", 0.0), generation.pop("presence_penalty", 0.0)
        with_evidence = generation.pop("return_evidence", False)
        generation, options = self._generation_options(generation), self._processing_options(parameters)
        options |= {"return_evidence": True} if with_evidence else {}
        try:
            with self.lock:
                inputs = self.pipeline.preprocess(messages, remember=True, sanitize_control_tokens=True, **options)
        except (ValueError, TypeError, OSError) as error:
            raise RequestError(422, f"{error}") from error
        [evidence] = [one.to_dict() for one in inputs.pop("evidence")] if with_evidence else [None]
        num_prompt_tokens = inputs["input_ids"].shape[1]
        limit = self.pipeline.tokenizer.model_max_length - generation["max_new_tokens"]
        if num_prompt_tokens > limit:
            raise RequestError(
                422,
                f"The prompt has {num_prompt_tokens} tokens, where the model has room for {limit} besides the "
                "answer: take fewer frames, less sound or a shorter answer.",
            )
        return Job(inputs, num_prompt_tokens, generation, stop, seed, penalties, evidence=evidence)

    def watch(self, job: Job, on_token: Callable | None = None, cancelled: Cancelled | None = None) -> Watch:
        """
        Follows the answers of a job, which `cancelled` ends. `on_token` is called with the index of the answer and
        each of its tokens.
        """
        return Watch(job, self.decode, self.ends, on_token, cancelled)

    def generate(self, job: Job, watch: Watch) -> torch.Tensor:
        """
        The token ids of all answers with their prompts, of shape (answers, tokens). Raises a `RequestError` if the
        model refuses the options of the job.
        """
        processors = [watch.scores] if job.held is None else [watch.scores, job.held]
        hooks = {"logits_processor": LogitsProcessorList(processors)}
        hooks["stopping_criteria"] = StoppingCriteriaList([watch])
        try:
            with self.lock, nullcontext() if job.seed is None else torch.random.fork_rng():
                if watch.cancelled.is_set:
                    return job.inputs["input_ids"]
                if job.seed is not None:
                    torch.manual_seed(job.seed)
                outputs = self.pipeline.forward(job.inputs, generate_kwargs={**job.generation, **hooks})
                job.num_cached_tokens = outputs.get("cached_tokens", 0)
        except (ValueError, TypeError) as error:
            raise RequestError(422, f"{error}") from error
        rows = outputs["generated_sequence"]
        return rows.reshape(-1, rows.shape[-1])

    def _answer(self, job: Job, cancelled: Cancelled | None = None) -> list[Answer]:
        watch = self.watch(job, cancelled=cancelled)
        rows, answers = self.generate(job, watch)[:, job.num_prompt_tokens :].tolist(), []
        if job.has_beams:
            watch.rows = [[Token(index) for index in self._strip(row)] for row in rows]
        for tokens in watch.rows:
            ids = [token.index for token in tokens]
            text = self.decode(ids)
            answers.append(Answer(text, self.finish_reason(ids, text, job), tokens))
        return answers

    def _strip(self, ids: list[int]) -> list[int]:
        """The ids of a row without its padding."""
        for index, token in enumerate(ids):
            if token in self.ends:
                return ids[: index + 1]
        while ids and ids[-1] == self.pipeline.tokenizer.pad_token_id:
            ids.pop()
        return ids

    def finish_reason(self, ids: list[int], text: str, job: Job) -> str:
        """Why an answer ended: `"stop"`, or `"length"` if it has as many tokens as it may have."""
        has_ended = len(ids) < job.generation["max_new_tokens"] or job.is_ended_by(text)
        return "stop" if has_ended or self.ends.intersection(ids[-1:]) else "length"

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        [text] = self.pipeline.processor.post_process_image_text_to_text([list(ids)], skip_special_tokens=True)
        return text

    @property
    def ends(self) -> set[int]:
        """Ids of the tokens that end an answer."""
        ends = self.pipeline.model.generation_config.eos_token_id
        return {ends} if isinstance(ends, int) else set(ends or ())

    def _shown(self, answer: Answer, stop: Sequence[str]) -> list[Token]:
        """The tokens of the text that is returned: without the one that ends it, and up to the first stop sequence."""
        tokens = [token for token in answer.tokens if token.index not in self.ends]
        length = len(cut_at(answer.text, stop))
        if length == len(answer.text):
            return tokens
        ids = [token.index for token in tokens]
        return [token for count, token in enumerate(tokens) if len(self.decode(ids[:count])) < length]

    def write_logprobs(self, tokens: Sequence[Token]) -> dict:
        """OpenAI's object of log probabilities. A token that is only a part of a character has no `bytes`."""

        def entry(index: int, logprob: float) -> dict:
            token = self.pipeline.tokenizer.decode([index])
            return {"token": token, "logprob": logprob, "bytes": None if "\ufffd" in token else list(token.encode())}

        tops = [[entry(*one) for one in token.top] for token in tokens]
        content = [{**entry(token.index, token.logprob), "top_logprobs": top} for token, top in zip(tokens, tops)]
        return {"content": content, "refusal": None}

    def _generation_options(self, given: Mapping) -> dict:
        """Options of `generate`. Parameters of sampling turn it on; a temperature of 0 turns it off."""
        options = dict(given)
        names = [name for name in ("temperature", "top_k", "top_p", "min_p") if name in options]
        if options.get("temperature") == 0:
            if options.get("do_sample"):
                raise RequestError(422, "`do_sample` with a `temperature` of 0 contradict each other.")
            options = {name: value for name, value in options.items() if name not in names} | {"do_sample": False}
        elif names and not options.setdefault("do_sample", True):
            raise RequestError(422, f"`do_sample` is false, with which `{names[0]}` has no effect.")
        if "top_k" in options:
            options["top_k"] = max(options["top_k"], 0)  # 0 and -1 mean no limit
        usual = self.pipeline.model.generation_config
        samples = options.get("do_sample", usual.do_sample)
        num_answers = options.get("num_return_sequences", 1)
        if num_answers > 1 and not samples and options.get("num_beams", 1) == 1:
            told = "but without sampling there is one answer: give a `temperature` above 0."
            raise RequestError(422, f"`num_return_sequences` (`n`) is {num_answers}, {told}")
        most = usual.max_new_tokens or DEFAULT_NEW_TOKENS
        return {"max_new_tokens": min(most, self.limits.max_new_tokens), **options}

    def _processing_options(self, parameters: Mapping) -> dict:
        """Options of the processor, which never samples more frames than the limit."""
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
    """The entries that OpenAI's objects of chat completions begin with."""
    name = f"chatcmpl-{uuid.uuid4().hex}"
    return {"id": name, "object": kind, "created": int(time.time()), "model": job.model_name}


def write_usage(job: Job, num_answer_tokens: int) -> dict:
    """OpenAI's object that tells how many tokens were processed, and how many of the prompt had been before."""
    return {
        "prompt_tokens": job.num_prompt_tokens,
        "completion_tokens": num_answer_tokens,
        "total_tokens": job.num_prompt_tokens + num_answer_tokens,
        "prompt_tokens_details": {"cached_tokens": job.num_cached_tokens},
    }


def write_evidence(job: Job) -> dict:
    """The entry that says what of the media answers rest on, where that is asked for. OpenAI's API has none."""
    return {} if job.evidence is None else {"evidence": job.evidence}


def cut_at(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop sequence, which OpenAI's style leaves out."""
    return text[: min([text.find(word) for word in stop if word in text], default=None)]
