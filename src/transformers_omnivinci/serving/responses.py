"""OpenAI's responses API, translated to and from its chat completions."""

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping

from ..endpoint import RequestError
from ..endpoint.parameters import given_entries, refuse_others

ONLY = {
    "background": (False,),
    "store": (True, False),  # an answer can never be fetched again
    "truncation": ("disabled",),
    "tool_choice": ("none", "auto"),
    "include": ([],),
    "text": ({"format": {"type": "text"}},),
    "tools": ([],),
    "reasoning": ({},),
}
"""Parameters of which only the values that change nothing are accepted."""

TYPES = {"input_text": "text", "output_text": "text", "input_image": "image_url"}


def as_chat(request: Mapping) -> dict:
    """The request of chat completions that asks for the same. Raises a `RequestError` if it is refused."""
    request = given_entries(request)
    request.pop("stream", None)
    messages = _read_input(request.pop("input", None))
    if "instructions" in request:
        messages.insert(0, {"role": "system", "content": request.pop("instructions")})
    chat = {"messages": messages}
    if "max_output_tokens" in request:
        chat["max_completion_tokens"] = request.pop("max_output_tokens")
    for name, accepted in ONLY.items():
        if name in request:
            refuse_others(name, request.pop(name), accepted)
    if request.pop("top_logprobs", None):
        raise RequestError(422, "`top_logprobs` is not supported here: /v1/chat/completions tells them.")
    if "previous_response_id" in request or "conversation" in request:
        raise RequestError(422, "Responses are not kept: give the messages of the conversation in `input`.")
    return {**request, **chat}


def _read_input(given) -> list[dict]:
    """The messages of a chat for the `input` of a response."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise RequestError(400, "`input` is a text or a list of messages.")
    messages = []
    for item in given:
        if not isinstance(item, Mapping) or item.get("type", "message") != "message":
            raise RequestError(400, f"An item of `input` is a message with `role` and `content`, got {item!r:.80}.")
        content = item.get("content")
        if isinstance(content, list):
            content = [_read_part(part) for part in content]
        messages.append({"role": item.get("role"), "content": content})
    return messages


def _read_part(part):
    """A content item of a chat for a part of a message."""
    if not isinstance(part, Mapping) or str(part.get("type")) not in TYPES:
        return part  # of the chat's own types, or refused there
    part = given_entries(part)
    kind = TYPES[part["type"]]
    if kind == "text":
        return {"type": kind, "text": part.get("text")}
    if "image_url" not in part:
        raise RequestError(400, "An item of type 'input_image' has its image in `image_url`.")
    return {"type": kind, "image_url": {"url": part["image_url"], "detail": part.get("detail")}}


def as_response(completion: Mapping, request: Mapping) -> dict:
    """The object `response` for a chat completion."""
    [choice] = completion["choices"]
    end = _end(choice["finish_reason"], _message(choice["message"]["content"]), completion["usage"])
    return {**_envelope(completion["model"], request), **end, **_evidence(completion)}


def as_events(chunks: Iterable[Mapping], model: str, request: Mapping) -> Iterator[dict]:
    """The events of a streamed response, for the chunks of a chat completion."""
    envelope, text, finish_reason, usage = _envelope(model, request), "", "stop", None
    evidence = {}
    item = _message("")
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}

    def events() -> Iterator[dict]:
        nonlocal text, finish_reason, usage, evidence
        started = {**envelope, "status": "in_progress"}
        yield {"type": "response.created", "response": started}
        yield {"type": "response.in_progress", "response": started}
        opened = {**item, "status": "in_progress", "content": []}
        yield {"type": "response.output_item.added", "output_index": 0, "item": opened}
        yield {"type": "response.content_part.added", **place, "part": _part("")}
        for chunk in chunks:
            usage, evidence = chunk.get("usage") or usage, evidence | _evidence(chunk)
            for choice in chunk["choices"]:
                finish_reason = choice["finish_reason"] or finish_reason
                delta = choice["delta"].get("content")
                if delta:
                    text += delta
                    yield {"type": "response.output_text.delta", **place, "delta": delta, "logprobs": []}
        yield {"type": "response.output_text.done", **place, "text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **place, "part": _part(text)}
        end = _end(finish_reason, {**item, "content": [_part(text)]}, usage)
        yield {"type": "response.output_item.done", "output_index": 0, "item": end["output"][0]}
        yield {"type": f"response.{end['status']}", "response": {**envelope, **end, **evidence}}

    for number, event in enumerate(events()):
        yield {**event, "sequence_number": number}


def _envelope(model: str, request: Mapping) -> dict:
    """The object `response` before anything is generated."""
    given = {name: request.get(name) for name in ("instructions", "max_output_tokens", "temperature", "top_p")}
    empty = {"output": [], "error": None, "incomplete_details": None, "tools": [], "usage": None}
    fixed = {"object": "response", "parallel_tool_calls": False, "tool_choice": "none"}
    own = {"id": f"resp_{uuid.uuid4().hex}", "created_at": int(time.time()), "model": model}
    return {**own, **fixed, **empty, **given, "metadata": request.get("metadata") or {}}


def _end(finish_reason: str, message: dict, usage: Mapping | None) -> dict:
    """The entries of a response that are known at its end."""
    status = "completed" if finish_reason == "stop" else "incomplete"
    end = {"status": status, "output": [{**message, "status": status}]}
    if status == "incomplete":
        end["incomplete_details"] = {"reason": "max_output_tokens"}
    if usage is not None:
        end["usage"] = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": usage["prompt_tokens_details"],
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }
    return end


def _evidence(told: Mapping) -> dict:
    """The entry of a completion or chunk that says what of the media the answer rests on, if it has one."""
    return {"evidence": told["evidence"]} if "evidence" in told else {}


def _message(text: str) -> dict:
    """The item of `output` that holds the answer."""
    item = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant"}
    return {**item, "status": "completed", "content": [_part(text)]}


def _part(text: str) -> dict:
    """The content of that item."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
