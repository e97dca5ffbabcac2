"""`response_format` of `omnivinci serve`, which llguidance holds answers to."""

import json

import pytest

from transformers_omnivinci import NANO
from transformers_omnivinci.data_engine.cross_modal_correction import Correction
from transformers_omnivinci.data_engine.typed import json_schema, read
from transformers_omnivinci.endpoint import EndpointHandler, RequestError
from transformers_omnivinci.serving.streaming import stream_chat

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 3, "maximum": 7}, "name": {"type": "string", "maxLength": 8}},
    "required": ["x", "name"],
    "additionalProperties": False,
}


SCHEMA = {"type": "json_schema", "json_schema": {"name": "wanted", "schema": POINT, "strict": True}}


@pytest.fixture(scope="module")
def handler():
    return EndpointHandler(NANO, trust_remote_code=False)


def request(schema, **changes):
    given = {**SCHEMA, "json_schema": {"name": "wanted", "schema": schema, "strict": True}}
    messages = [{"role": "user", "content": "Which shape is shown first?"}]
    return {"messages": messages, "max_tokens": 200, "temperature": 0, "response_format": given, **changes}


def test_a_model_that_never_wrote_json_writes_what_the_schema_wants(handler):
    (choice,) = handler.complete_chat(request(POINT))["choices"]
    assert choice["finish_reason"] == "stop"
    point = json.loads(choice["message"]["content"])
    assert set(point) == {"x", "name"} and 3 <= point["x"] <= 7 and len(point["name"]) <= 8


def test_each_of_several_answers_and_streams_are_held_to_it(handler):
    choices = handler.complete_chat(request(POINT, temperature=1.5, n=4, seed=0))["choices"]
    texts = [choice["message"]["content"] for choice in choices]
    assert len(set(texts)) > 1 and all(3 <= json.loads(text)["x"] <= 7 for text in texts)
    chunks = list(stream_chat(handler, request(POINT)))
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == handler.complete_chat(request(POINT))["choices"][0]["message"]["content"]


def test_structures_of_the_data_engine_are_followed_or_cut_off(handler):
    schema = json_schema(Correction)
    schema["properties"]["omni_caption"]["maxLength"] = 40
    schema["properties"]["rejected_statements"]["maxItems"] = 1
    for name in ("statement", "reason"):
        schema["properties"]["rejected_statements"]["items"]["properties"][name]["maxLength"] = 10
    (choice,) = handler.complete_chat(request(schema))["choices"]
    read(Correction, json.loads(choice["message"]["content"]), "the answer")
    (choice,) = handler.complete_chat(request(schema, max_tokens=8))["choices"]
    assert choice["finish_reason"] == "length" and choice["message"]["content"].startswith('{"omni_c')
    (choice,) = handler.complete_chat(request(None, response_format={"type": "json_object"}, max_tokens=4))["choices"]
    assert choice["message"]["content"].startswith("{")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"response_format": {"type": "yaml"}}, "'yaml': text, json_object, json_schema are accepted"),
        ({"response_format": "json"}, "is an object"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "thing"}}}},
            "cannot be followed",
        ),
        ({"num_beams": 2}, "does not go with `num_beams`"),
    ],
)
def test_what_cannot_be_followed_is_refused(handler, changes, told):
    with pytest.raises(RequestError, match=told) as caught:
        handler.complete_chat(request(POINT, **changes))
    assert caught.value.status == 422
