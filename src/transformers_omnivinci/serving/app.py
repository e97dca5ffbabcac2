"""The HTTP of the server: routes, server-sent events, and errors in OpenAI's format."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import wraps

from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ..endpoint import RequestError
from ..endpoint.generation import Cancelled
from ..endpoint.parameters import read_flag
from . import responses, speech
from .forms import read_form
from .models import ModelError, Models
from .second_opinion import RecogniserError, SecondOpinion
from .streaming import stream_chat
from .transcription import MEDIA_TYPES, Transcription

logger = logging.getLogger(__name__)

ROUTES = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/models",
    "/health",
)
HANDLED = (RequestError, ModelError, speech.VoiceError, RecogniserError, HTTPException, ClientDisconnect)
ROOTS = ("", "/v1")  # some versions of `transformers chat` look below the API for what others find beside it
OF_CONFIGS = ("transformers_version", "_from_model_config")  # of a `generation_config`, but no options of `generate`


def build_app(
    models: Models,
    max_body_bytes: int,
    enable_cors: bool = False,
    voices: speech.Speech | None = None,
    opinion: SecondOpinion | None = None,
) -> Starlette:
    """
    The application, whose `models` answer requests of at most `max_body_bytes`, whose `voices` speak, and whose
    recognisers of a second `opinion` listen beside the models. With `enable_cors`, web pages of any origin may send
    requests.
    """
    server = _Server(models, max_body_bytes, voices or speech.Speech(), opinion or SecondOpinion())
    origins = Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
    return Starlette(
        routes=[
            *(Route(f"{root}/health", server.health) for root in ROOTS),
            Route("/v1/models", server.list_models),
            Route("/v1/models/{name:path}", server.get_model),
            Route("/v1/chat/completions", server.complete_chat, methods=["POST"]),
            Route("/v1/responses", server.respond, methods=["POST"]),
            Route("/v1/audio/speech", server.speak, methods=["POST"]),
            Route("/v1/audio/transcriptions", server.transcribe, methods=["POST"]),
            *(Route(f"{root}/load_model", server.load_model, methods=["POST"]) for root in ROOTS),
        ],
        middleware=[origins] if enable_cors else [],
        exception_handlers=dict.fromkeys(HANDLED, lambda request, error: _tell_error(error)),
    )


def _telling_errors(endpoint: Callable) -> Callable:
    """An endpoint of [`_Server`] whose errors become a response: an unexpected one would end the connection."""

    @wraps(endpoint)
    async def answer(self: "_Server", request: Request) -> Response:
        try:
            return await endpoint(self, request)
        except Exception as error:
            return _tell_error(error)

    return answer


class _Server:
    """The functions behind the routes. Each takes a request and returns its response."""

    def __init__(self, models: Models, max_body_bytes: int, voices: speech.Speech, opinion: SecondOpinion):
        self.models, self.max_body_bytes, self.voices, self.opinion = models, max_body_bytes, voices, opinion

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "cache": await run_in_threadpool(self.models.cache_usage)})

    async def list_models(self, request: Request) -> Response:
        names = await run_in_threadpool(self.models.names)
        return JSONResponse({"object": "list", "data": [_describe_model(name) for name in names]})

    async def get_model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in await run_in_threadpool(self.models.names):
            raise ModelError(f"There is no model {name!r:.200}: /v1/models names those that there are.")
        return JSONResponse(_describe_model(name))

    @_telling_errors
    async def complete_chat(self, request: Request) -> Response:
        body = await self._read_body(request)
        chat = _merge_generation_config(body)
        spoken = await run_in_threadpool(self.voices.read_audio, chat, body.get("stream") is True)
        if spoken is None:
            return await self._complete(request, body, chat)
        return await self._complete(
            request,
            body,
            chat,
            as_object=lambda completion: self.voices.speak_completion(completion, *spoken),
            as_events=lambda chunks, name: self.voices.speak_chunks(chunks, spoken[0]),
            has_end=True,
        )

    @_telling_errors
    async def respond(self, request: Request) -> Response:
        body = await self._read_body(request)
        return await self._complete(
            request,
            body,
            responses.as_chat(body),
            as_object=lambda completion: responses.as_response(completion, body),
            as_events=lambda chunks, name: responses.as_events(chunks, name, body),
        )

    @_telling_errors
    async def speak(self, request: Request) -> Response:
        """Speaks a text; the sound is sent sentence by sentence."""
        body = await self._read_body(request)
        spoken, format, as_events = await run_in_threadpool(self.voices.read_request, body)
        if as_events:
            events = _as_lines(speech.encode_events(spoken, format), False, lambda: None)
            return StreamingResponse(events, media_type="text/event-stream")
        pieces = iterate_in_threadpool(speech.encode_pieces(spoken, format))
        return StreamingResponse(pieces, media_type=speech.MEDIA_TYPES[format])

    @_telling_errors
    async def transcribe(self, request: Request) -> Response:
        """Writes down the speech of a file that is sent as a form."""
        content = await self._read_content(request)
        fields = read_form(content, request.headers.get("content-type", ""))
        [name] = fields.get("model", [None])[:1]

        def listen(cancelled: Cancelled) -> tuple[Transcription, dict | str]:
            with self.models.use(name) as handler:
                heard = Transcription(fields, handler, self.opinion)
                segments = list(heard.segments(cancelled))
                if cancelled.is_set:
                    raise ClientDisconnect
                return heard, heard.write(segments)

        if fields.get("stream", ["false"])[0] in ("true", "True"):
            with ExitStack() as used:
                handler = await run_in_threadpool(used.enter_context, self.models.use(name))
                heard = await run_in_threadpool(Transcription, fields, handler, self.opinion)
                end = used.pop_all().close
            return StreamingResponse(_as_lines(heard.events(), False, end), media_type="text/event-stream")
        async with _while_connected(request) as cancelled:
            heard, body = await run_in_threadpool(listen, cancelled)
        if isinstance(body, str):
            return Response(body, media_type=MEDIA_TYPES[heard.format])
        return JSONResponse(body)

    async def load_model(self, request: Request) -> Response:
        """Loads a model ahead of its first request, which is how `transformers chat` begins."""
        name = (await self._read_body(request)).get("model")

        def events() -> Iterator[dict]:
            try:
                is_loaded = self.models.is_loaded(name)
                if not is_loaded:
                    yield {"status": "loading", "model": name, "stage": "weights"}
                with self.models.use(name):
                    yield {"status": "ready", "model": name, "cached": is_loaded}
            except ModelError as error:
                yield {"status": "error", "model": name, "message": str(error)}

        return StreamingResponse(_as_lines(events(), False, lambda: None), media_type="text/event-stream")

    async def _complete(
        self,
        request: Request,
        body: Mapping,
        chat: dict,
        as_object: Callable | None = None,
        as_events: Callable | None = None,
        has_end: bool = False,
    ) -> Response:
        """
        Completes a chat, whole or in chunks. `as_object` and `as_events` translate into another API; its events
        `has_end` if they end as those of chats do.
        """
        is_streamed = read_flag("stream", body.get("stream"))
        chat.pop("stream", None)

        def complete(cancelled: Cancelled) -> dict:
            with self.models.use(body.get("model")) as handler:
                completion = handler.complete_chat({**chat, "model": handler.name}, cancelled)
                if cancelled.is_set:
                    raise ClientDisconnect
                return completion if as_object is None else as_object(completion)

        if not is_streamed:
            async with _while_connected(request) as cancelled:
                return JSONResponse(await run_in_threadpool(complete, cancelled))

        with ExitStack() as used:
            handler = await run_in_threadpool(used.enter_context, self.models.use(body.get("model")))
            stream = await run_in_threadpool(stream_chat, handler, {**chat, "model": handler.name})
            used.callback(stream.cancel)
            end = used.pop_all().close
        events = stream if as_events is None else as_events(stream, handler.name)
        return StreamingResponse(_as_lines(events, as_events is None or has_end, end), media_type="text/event-stream")

    async def _read_content(self, request: Request) -> bytes:
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > (most := self.max_body_bytes):
                raise RequestError(413, f"The request has more than the {most} bytes that are accepted.")
        return bytes(content)

    async def _read_body(self, request: Request) -> dict:
        content = await self._read_content(request)
        try:
            body = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise RequestError(400, f"The body of the request is no JSON: {error}.") from error
        if not isinstance(body, dict):
            raise RequestError(400, "The body of a request is a JSON object.")
        return body


def _merge_generation_config(body: Mapping) -> dict:
    """A copy of a request with the entries of its `generation_config`, which `transformers chat` sends as JSON."""
    chat = dict(body)
    config = chat.pop("generation_config", None)
    if config is None:
        return chat
    try:
        config = json.loads(config) if isinstance(config, str) else config
        config = {name: value for name, value in config.items() if name not in OF_CONFIGS}
    except (AttributeError, ValueError) as error:
        raise RequestError(422, f"`generation_config` is an object, or its JSON, got {config!r:.80}.") from error
    return {**config, **chat}


def _describe_model(name: str) -> dict:
    """OpenAI's object `model`."""
    return {"id": name, "object": "model", "created": 0, "owned_by": name.partition("/")[0] if "/" in name else ""}


@asynccontextmanager
async def _while_connected(request: Request) -> AsyncIterator[Cancelled]:
    """What ends a generation when the client of a request, of which all was read, disconnects."""
    cancelled = Cancelled()

    async def watch() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(0.1)
        cancelled.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield cancelled
    finally:
        watching.cancel()


async def _as_lines(events: Iterable[dict], has_end: bool, end: Callable) -> AsyncIterator[str]:
    """Server-sent events. An error on the way becomes the last of them. `end` is called in any case."""
    try:
        try:
            async for event in iterate_in_threadpool(iter(events)):
                kind = f"event: {event['type']}\n" if "type" in event else ""
                yield f"{kind}data: {json.dumps(event)}\n\n"
        except Exception as error:
            yield f"data: {json.dumps(_describe_error(error)[1])}\n\n"
        if has_end:
            yield "data: [DONE]\n\n"
    finally:
        end()


def _describe_error(error: Exception) -> tuple[int, dict]:
    """Status and body of an error. All errors of a request are 4xx, also if it names a host that does not answer."""
    kind, code = "invalid_request_error", None
    if isinstance(error, RequestError):
        status, message = (error.status if error.status < 500 else 400), error.reason
    elif isinstance(error, ModelError):
        status, message, code = 404, str(error), "model_not_found"
    elif isinstance(error, (speech.VoiceError, RecogniserError)):
        status, message, kind = 503, str(error), "server_error"
    elif isinstance(error, HTTPException):
        status, message = error.status_code, f"{error.detail}. The routes are {', '.join(ROUTES)}."
    else:
        logger.error("A request failed.", exc_info=error)
        status, message, kind = 500, f"The server failed: {type(error).__name__}.", "server_error"
    return status, {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _tell_error(error: Exception) -> Response:
    """The response for an error."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)
    status, body = _describe_error(error)
    return JSONResponse(body, status, headers=error.headers if isinstance(error, HTTPException) else None)
