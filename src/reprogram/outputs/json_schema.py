"""JSON in texts that a model wrote, and whether it is what a schema asks for.

A subset of JSON Schema (draft 2020-12) is known: `type`, `enum`, `const`, `properties`, `required`,
`additionalProperties`, `items`, `minItems`, `maxItems`, `uniqueItems`, `minLength`, `maxLength`, `minimum`, `maximum`,
`exclusiveMinimum`, `exclusiveMaximum` and `anyOf`; `title`, `description`, `default` and `$schema` say nothing about a
value. A schema with another keyword is refused, rather than that a part of it be passed over.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from reprogram.core.errors import ConfigError, say

STARTS = 256
"""So many places at most are tried for a JSON value, so that a text of opening brackets takes no quadratic time."""

_SILENT = frozenset({"title", "description", "default", "$schema"})
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "integer": lambda v: not isinstance(v, bool) and (isinstance(v, int) or (isinstance(v, float) and v.is_integer())),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
}
_LIMITS: dict[str, tuple[type | tuple[type, ...], Callable[[Any, Any], bool]]] = {
    "minItems": (list, lambda v, n: len(v) >= n),
    "maxItems": (list, lambda v, n: len(v) <= n),
    "minLength": (str, lambda v, n: len(v) >= n),
    "maxLength": (str, lambda v, n: len(v) <= n),
    "minimum": ((int, float), lambda v, n: v >= n),
    "maximum": ((int, float), lambda v, n: v <= n),
    "exclusiveMinimum": ((int, float), lambda v, n: v > n),
    "exclusiveMaximum": ((int, float), lambda v, n: v < n),
    "uniqueItems": (list, lambda v, yes: not yes or len({canonical_json(item) for item in v}) == len(v)),
}
_NESTED = frozenset({"properties", "required", "additionalProperties", "items", "anyOf", "type", "enum", "const"})


def canonical_json(value: object) -> str:
    """The one spelling of a JSON value: sorted keys, no space; a number that is whole has no decimals.

    >>> canonical_json({"b": 1.0, "a": [True, None]})
    '{"a":[true,null],"b":1}'
    """
    return json.dumps(_whole(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def json_values(text: str, *, last: bool = False) -> Iterator[tuple[int, int, object]]:
    """JSON objects and lists in a text that lie in no other: (start, end, value). `last` begins with the last.

    >>> [v for _, _, v in json_values('so {"a": [1]} or [2, {3')]
    [{'a': [1]}]
    """
    found: list[tuple[int, int, object]] = []
    decoder, at, tried = json.JSONDecoder(parse_constant=_refuse), 0, 0
    while tried < STARTS and (at := _opening(text, at)) >= 0:
        tried += 1
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        found.append((at, end, value))
        at = end
    yield from reversed(found) if last else found


def read_schema(text: str) -> Mapping[str, Any]:
    """A schema from its JSON text.

    Raises:
        ConfigError: it is no JSON object, or has keywords that are not known here.
    """
    try:
        schema = json.loads(text)
    except ValueError as problem:
        raise ConfigError(say("schema", "must be JSON", text)) from problem
    _check_schema(schema)
    return schema


def fault(value: object, schema: Mapping[str, Any], where: str = "value") -> str:
    """What is wrong with a value, in words; empty if it is what the schema asks for.

    >>> schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 0}}}
    >>> fault({"n": 3}, schema), fault({"n": -1}, schema), fault({}, schema)
    ('', 'value.n must have minimum 0', 'value must have n')
    """
    for check in (_fault_here, _fault_of_object, _fault_of_list):
        found = check(value, schema, where)
        if found:
            return found
    options = schema.get("anyOf")
    if options is not None and all(fault(value, option, where) for option in options):
        return f"{where} must be one of {len(options)} kinds"
    return ""


def _fault_here(value: Any, schema: Mapping[str, Any], where: str) -> str:
    kinds = schema.get("type")
    if kinds is not None and not any(_TYPES[kind](value) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return f"{where} must be of type {kinds}"
    if "enum" in schema and canonical_json(value) not in [canonical_json(v) for v in schema["enum"]]:
        return f"{where} must be one of {canonical_json(schema['enum'])}"
    if "const" in schema and canonical_json(value) != canonical_json(schema["const"]):
        return f"{where} must be {canonical_json(schema['const'])}"
    for name, (kind, holds) in _LIMITS.items():
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if name in schema and fits and not holds(value, schema[name]):
            return f"{where} must have {name} {schema[name]}"
    return ""


def _fault_of_object(value: object, schema: Mapping[str, Any], where: str) -> str:
    if not isinstance(value, dict):
        return ""
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name in schema.get("required", ()):
        if name not in value:
            return f"{where} must have {name}"
    for name, item in cast("dict[str, object]", value).items():
        rule = known.get(name, others)
        if rule is False:
            return f"{where} must not have {name}"
        found = "" if rule is True else fault(item, rule, f"{where}.{name}")
        if found:
            return found
    return ""


def _fault_of_list(value: object, schema: Mapping[str, Any], where: str) -> str:
    if not isinstance(value, list) or "items" not in schema:
        return ""
    faults = (fault(item, schema["items"], f"{where}[{i}]") for i, item in enumerate(cast("list[object]", value)))
    return next((found for found in faults if found), "")


def _check_schema(schema: object) -> None:
    if not isinstance(schema, dict):
        raise ConfigError(say("schema", "must be a JSON object", schema))
    known = cast("dict[str, Any]", schema)
    strange = sorted(set(known) - _SILENT - _NESTED - set(_LIMITS))
    if strange:
        raise ConfigError(say("schema", "must keep to the keywords that are known here", strange))
    kinds = known.get("type", [])
    unknown = sorted(set([kinds] if isinstance(kinds, str) else kinds) - set(_TYPES))
    if unknown:
        raise ConfigError(say("schema.type", f"must be among {sorted(_TYPES)}", unknown))
    inner: list[object] = [*known.get("properties", {}).values(), *known.get("anyOf", ())]
    inner += [known[name] for name in ("items", "additionalProperties") if not isinstance(known.get(name, True), bool)]
    for one in inner:
        _check_schema(one)


def _opening(text: str, start: int) -> int:
    places = [place for place in (text.find("{", start), text.find("[", start)) if place >= 0]
    return min(places, default=-1)


def _refuse(name: str) -> float:
    raise ValueError(name)


def _whole(value: object) -> object:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in cast("dict[str, object]", value).items()}
    return value
