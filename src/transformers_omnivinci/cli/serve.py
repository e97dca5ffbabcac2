"""`omnivinci serve`: an OpenAI-compatible API."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import DType
from .terminal import plain_errors


class Quantization(StrEnum):
    bnb_4bit = "bnb-4bit"
    bnb_8bit = "bnb-8bit"


class LogLevel(StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def serve(
    force_model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            show_default=False,
            help="Checkpoint that answers all requests: a folder, a repository, or nano. Default: the one that a "
            "request names.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="The same as an option.")] = None,
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen at.")] = "localhost",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen at.")] = 8000,
    device: Annotated[str, typer.Option(metavar="cpu|cuda|auto", help="Where models run.")] = "auto",
    dtype: Annotated[DType, typer.Option(help="Of the weights. auto: as stored.")] = DType.auto,
    attn_implementation: Annotated[
        str | None, typer.Option(metavar="NAME", help="Such as sdpa, eager or flash_attention_2.")
    ] = None,
    quantization: Annotated[
        Quantization | None, typer.Option(help="Of the weights as they are loaded, by bitsandbytes.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that a repository carries.")
    ] = False,
    model_timeout: Annotated[
        float, typer.Option(metavar="S", min=0, help="Seconds after which a model that requests name is forgotten.")
    ] = 300,
    mm_processor_kwargs: Annotated[
        str,
        typer.Option(
            "--mm-processor-kwargs",
            "--chat-template-kwargs",
            metavar="JSON",
            help="Options of the processor where a request has none, such as fps. {}: the checkpoint's.",
        ),
    ] = '{"num_frames": 32}',
    allowed_local_media_path: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder below which file:// URLs are read. Default: none are.")
    ] = None,
    allow_media_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]", help="Host that media may come from beside the public internet; may be repeated."
        ),
    ] = None,
    default_seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the process.")] = None,
    enable_cors: Annotated[bool, typer.Option("--enable-cors", help="Let pages of any origin ask.")] = False,
    log_level: Annotated[LogLevel, typer.Option(help="What is logged.")] = LogLevel.info,
) -> None:
    """
    Serve models over an OpenAI-compatible API: /v1/chat/completions and /v1/responses, streaming too, /v1/models and
    /health.

    Media are http and https URLs of the public internet, data URLs and base64. Environment variables bound what a
    request may ask for: OMNIVINCI_MAX_NEW_TOKENS, OMNIVINCI_MAX_MEDIA_BYTES, ...
    """
    with plain_errors(with_traceback=False):
        try:
            import uvicorn

            from ..serving.app import build_app
        except ImportError as error:
            raise ImportError(f"Serving needs more: pip install 'transformers-omnivinci[serve]' ({error}).") from error
        if force_model is not None and model is not None:
            raise ValueError(f"The model is given twice, as {force_model!r} and as `--model {model}`.")
        import torch

        from ..endpoint import EndpointHandler, Limits, RequestError
        from ..endpoint.parameters import read_processing
        from ..serving.models import Models
        from ..serving.sources import AllowedSources

        limits, sources = Limits.from_environment(), AllowedSources(allowed_local_media_path, allow_media_host)
        processing = _read_object("--mm-processor-kwargs", mm_processor_kwargs)
        try:
            read_processing(processing, limits)
        except RequestError as error:
            raise ValueError(f"`--mm-processor-kwargs`: {error.reason}") from error
        options = {
            "trust_remote_code": trust_remote_code,
            "dtype": dtype.value,
            "model_kwargs": _model_options(attn_implementation, quantization),
            **_place(device),
        }
        if default_seed is not None:
            torch.manual_seed(default_seed)

        def load(path: str, name: str) -> EndpointHandler:
            return EndpointHandler(path, limits, sources, name, processing, **options)

        models = Models(load, force_model or model, model_timeout)
        if models.only is not None:
            with models.use(models.only):
                pass
        # In base64 media take a third more.
        app = build_app(models, 2 * limits.max_total_bytes + 8 * limits.max_text_characters, enable_cors)
        uvicorn.run(app, host=host, port=port, log_level=log_level.value)


def _read_object(option: str, text: str) -> dict:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"`{option}` is no JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ValueError(f'`{option}` is an object such as {{"fps": 2}}, got {text!r:.80}.')
    return value


def _model_options(attn_implementation: str | None, quantization: Quantization | None) -> dict:
    options = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    if quantization is not None:
        from transformers import BitsAndBytesConfig

        bits = "load_in_4bit" if quantization is Quantization.bnb_4bit else "load_in_8bit"
        options["quantization_config"] = BitsAndBytesConfig(**{bits: True})
    return options


def _place(device: str) -> dict:
    """Options of a pipeline that say where its model is."""
    import torch

    from .ask import choose_device

    if device == "auto" and torch.cuda.device_count() > 1:
        return {"device_map": "auto"}
    return {"device": choose_device(device)}
