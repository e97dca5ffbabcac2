"""`omnivinci serve`: serves models over an OpenAI-compatible API."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .ask import choose_device
from .options import AttnImplementation, Bits, Device, DType, Quantization, WeightDType, quantization_config
from .terminal import plain_errors

LogLevel = StrEnum("LogLevel", ["debug", "info", "warning", "error"])


def serve(
    force_model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="Checkpoint that answers all requests: a folder, a repository of the Hub, or nano. Default: the "
            "checkpoint that a request names.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="The same, as an option.")] = None,
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen on.")] = "localhost",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen on.")] = 8000,
    device: Device = "auto",
    dtype: WeightDType = DType.auto,
    attn_implementation: AttnImplementation = None,
    quantization: Quantization = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with a repository.")
    ] = False,
    model_timeout: Annotated[
        float,
        typer.Option(metavar="S", min=0, help="Seconds after which an unused model that a request named is unloaded."),
    ] = 300,
    cache_gb: Annotated[
        float,
        typer.Option(
            "--cache-gb",
            metavar="GB",
            min=0,
            help="What each model remembers of media and prompts, on its devices; 0: nothing.",
        ),
    ] = 2.0,
    mm_processor_kwargs: Annotated[
        str,
        typer.Option(
            "--mm-processor-kwargs",
            "--chat-template-kwargs",
            metavar="JSON",
            help="Default options of the processor, such as fps; {} keeps those of the checkpoint.",
        ),
    ] = '{"num_frames": 32}',
    allowed_local_media_path: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder in which requests may read file:// URLs.")
    ] = None,
    allow_media_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]", help="Host outside the public internet that media may come from; repeatable."
        ),
    ] = None,
    voice: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Voice that speaks answers and /v1/audio/speech, as of `omnivinci ask --voice`, such as auto or "
            "flite:slt; repeatable, the first is the usual one. Default: none, requests for speech are refused.",
        ),
    ] = None,
    external: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Recogniser whose text enters the prompt of /v1/audio/transcriptions, as of `omnivinci transcribe "
            "--external`; with --decide repeatable.",
        ),
    ] = None,
    decide: Annotated[
        bool,
        typer.Option("--decide", help="Models decide about what the others heard, as of `omnivinci transcribe`."),
    ] = False,
    default_seed: Annotated[int | None, typer.Option(metavar="N", help="Random seed at start.")] = None,
    enable_cors: Annotated[bool, typer.Option("--enable-cors", help="Allow web pages of any origin.")] = False,
    log_level: Annotated[LogLevel, typer.Option(help="Least severe messages to log.")] = LogLevel.info,
) -> None:
    """
    Serve models over an OpenAI-compatible API.

    The routes are /v1/chat/completions and /v1/responses, with streaming, /v1/audio/speech and
    /v1/audio/transcriptions, /v1/models and /health.

    Requests give media as http or https URLs of the public internet, data URLs or base64. Environment variables such
    as OMNIVINCI_MAX_NEW_TOKENS and OMNIVINCI_MAX_MEDIA_BYTES limit what a request may ask for.
    """
    with plain_errors(with_traceback=False):
        try:
            import uvicorn

            from ..serving.app import build_app
        except ImportError as error:
            raise ImportError(
                f"Serving needs an extra: pip install 'transformers-omnivinci[serve]' ({error})."
            ) from error
        if force_model is not None and model is not None:
            raise ValueError(f"The model is given twice, as {force_model!r} and as `--model {model}`.")
        import torch

        from ..endpoint import EndpointHandler, Limits, RequestError
        from ..endpoint.parameters import read_processing
        from ..serving.models import Models
        from ..serving.second_opinion import SecondOpinion
        from ..serving.sources import AllowedSources
        from ..serving.speech import Speech

        voices, opinion = Speech(voice or []), SecondOpinion(external or [], decide)
        limits, sources = Limits.from_environment(), AllowedSources(allowed_local_media_path, allow_media_host)
        processing = _read_object("--mm-processor-kwargs", mm_processor_kwargs)
        try:
            read_processing(processing, limits)
        except RequestError as error:
            raise ValueError(f"`--mm-processor-kwargs`: {error.reason}") from error
        is_spread = device == "auto" and torch.cuda.device_count() > 1
        options = {
            "trust_remote_code": trust_remote_code,
            "dtype": dtype.value,
            "cache_gb": cache_gb,
            "model_kwargs": _model_options(attn_implementation, quantization),
            **({"device_map": "auto"} if is_spread else {"device": choose_device(device)}),
        }
        if default_seed is not None:
            torch.manual_seed(default_seed)

        def load(path: str, name: str) -> EndpointHandler:
            return EndpointHandler(path, limits, sources, name, processing, **options)

        models = Models(load, force_model or model, model_timeout)
        if models.only is not None:
            with models.use(models.only):
                pass
        # Base64 makes media a third larger.
        most = 2 * limits.max_total_bytes + 8 * limits.max_text_characters
        app = build_app(models, most, enable_cors, voices, opinion)
        uvicorn.run(app, host=host, port=port, log_level=log_level.value)


def _read_object(option: str, text: str) -> dict:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"`{option}` is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ValueError(f'`{option}` is an object such as {{"fps": 2}}, but got {text!r:.80}.')
    return value


def _model_options(attn_implementation: str | None, quantization: Bits | None) -> dict:
    options = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    if quantization is not None:
        options["quantization_config"] = quantization_config(quantization)
    return options
