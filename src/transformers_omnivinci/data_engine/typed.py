"""
Dataclasses as the one description of what is accepted: plain values of YAML or JSON become instances, what does not
fit is an error of one sentence that says where, and the same description is a JSON schema for models that write JSON.

Fields may be `str`, `int`, `float`, `bool`, `Literal`, `dict`, another dataclass, `list`, `dict[str, ...]` and
`... | None`.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache

NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object"}


def read(kind, value, where: str):
    """
    Reads a plain value as an instance.

    Args:
        kind: A dataclass, or any other type that the module's description names.
        value: What YAML or JSON gave.
        where (`str`): What messages call the value, such as `"split"`.

    Raises:
        ValueError: the value, or a part of it, is not accepted. Names that are not known come with the nearest one.
    """
    origin, parameters = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in parameters:
            return None
        (kind,) = [one for one in parameters if one is not type(None)]
        return read(kind, value, where)
    if origin is typing.Literal:
        if value not in parameters or isinstance(value, bool):
            raise ValueError(f"{where} is {value!r:.60}: {', '.join(map(repr, parameters))} are accepted.")
        return value
    if origin is list:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} is {value!r:.60}: a list is accepted.")
        return [read(parameters[0], one, f"{where}[{place}]") for place, one in enumerate(value)]
    if origin is dict:
        _check_mapping(value, where)
        return {name: read(parameters[1], one, f"{where}.{name}") for name, one in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} is {value!r:.60}: {NAMES[kind]} is accepted.")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{where} is {value}: a finite number is accepted.")
    return value


def plain(value):
    """The opposite of [`read`]: what JSON can write."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value


def json_schema(kind) -> dict:
    """The JSON schema of a type, as servers take it for structured output: all fields required, no others."""
    origin, parameters = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        properties = {}
        for name, hint in hints(kind).items():
            properties[name] = json_schema(hint)
            if told := kind.__dataclass_fields__[name].metadata.get("description"):
                properties[name]["description"] = told
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [json_schema(one) for one in parameters]}
    if origin is typing.Literal:
        return {"type": "string", "enum": list(parameters)}
    if origin is list:
        return {"type": "array", "items": json_schema(parameters[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": json_schema(parameters[1])}
    simple = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", type(None): "null"}
    return {"type": simple[kind]}


@cache
def hints(kind) -> dict[str, type]:
    """The fields of a dataclass and their types."""
    found = typing.get_type_hints(kind)
    return {field.name: found[field.name] for field in dataclasses.fields(kind)}


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest of those that are known, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, 1, 0.5)
    return f"did you mean {close[0]!r}?" if close else f"{', '.join(known) or 'none'} are accepted."


def _check_mapping(value, where: str) -> None:
    if not isinstance(value, Mapping) or any(not isinstance(name, str) for name in value):
        raise ValueError(f"{where} is {value!r:.60}: an object with names is accepted.")


def _read_dataclass(kind, value, where: str):
    if isinstance(value, kind):
        return value
    _check_mapping(value, where)
    known = hints(kind)
    for name in value:
        if name not in known:
            raise ValueError(f"{where} has an unknown entry {name!r:.40}: {nearest(name, known)}")
    for field in dataclasses.fields(kind):
        is_optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if field.name not in value and not is_optional:
            raise ValueError(f"{where} has no {field.name!r}, which is needed.")
    try:
        return kind(**{name: read(known[name], one, f"{where}.{name}") for name, one in value.items()})
    except TypeError as error:
        raise ValueError(f"{where} is not accepted: {error}") from error
