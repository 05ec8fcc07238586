"""Constrained writing on servers: the fields that ask for it, and the check that the server did it.

A server that does not know a field mostly ignores it, so every text is checked, and a way of asking is used only after
it has been seen to work on words that no model would write by itself.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.writing import Grammar

Way = Literal["structured_outputs", "guided", "response_format"]
WAYS: tuple[Way, ...] = ("structured_outputs", "response_format", "guided")
"""vLLM since 0.12; OpenAI and most others, JSON only; vLLM before."""

NAME = "answer"
TEST = {
    "choice": Grammar(kind="choice", text="qzx-17\nvkw-42"),
    "regex": Grammar(kind="regex", text="(qzx|vkw)-[0-9]{2}"),
    "json": Grammar(
        kind="json",
        text='{"type": "object", "properties": {"qzx": {"enum": ["vkw-42"]}}, "required": ["qzx"], '
        '"additionalProperties": false}',
    ),
}
"""Texts that are written only by a server that is made to."""


def fields(grammar: Grammar, way: Way) -> dict[str, Any] | None:
    r"""What to send; None if this way cannot say it.

    Raises:
        ConfigError: the grammar is none.

    >>> fields(Grammar(kind="choice", text="yes\nno"), "structured_outputs")
    {'structured_outputs': {'choice': ['yes', 'no']}}
    >>> fields(Grammar(kind="regex", text="a+"), "response_format") is None
    True
    """
    said: Any = schema_of(grammar) if grammar.kind == "json" else grammar.text
    if grammar.kind == "choice":
        said = choices_of(grammar)
    if way == "structured_outputs":
        return {"structured_outputs": {grammar.kind: said}}
    if way == "guided":
        return {f"guided_{grammar.kind}": said}
    if grammar.kind == "regex":
        return None
    if grammar.kind == "choice":
        inner = {"type": "string", "enum": said}
        said = {"type": "object", "properties": {NAME: inner}, "required": [NAME], "additionalProperties": False}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": NAME, "schema": said, "strict": True}}}


def choices_of(grammar: Grammar) -> list[str]:
    """The choices of a grammar of that kind."""
    return grammar.text.split("\n")


def schema_of(grammar: Grammar) -> dict[str, Any]:
    """The schema of a grammar of kind "json".

    Raises:
        ConfigError: it is none.
    """
    try:
        schema = json.loads(grammar.text)
    except ValueError:
        schema = None
    if not isinstance(schema, dict):
        raise ConfigError(say("grammar", "must be a JSON schema", grammar.text))
    return schema


def unwrapped(text: str, grammar: Grammar, way: Way) -> str:
    r"""The text itself, where a choice had to be asked for as JSON.

    >>> unwrapped('{"answer": "no"}', Grammar(kind="choice", text="yes\nno"), "response_format")
    'no'
    """
    if grammar.kind != "choice" or way != "response_format":
        return text
    try:
        said = json.loads(text)
    except ValueError:
        return text
    return str(said.get(NAME, text)) if isinstance(said, dict) else text


def obeys(text: str, grammar: Grammar) -> bool:
    r"""A whole text is what the grammar allows.

    >>> obeys("no", Grammar(kind="choice", text="yes\nno")), obeys("aab", Grammar(kind="regex", text="a+"))
    (True, False)
    >>> obeys('{"a": 1}', Grammar(kind="json", text='{"type": "object", "required": ["a", "b"]}'))
    False
    """
    if grammar.kind == "choice":
        return text in choices_of(grammar)
    if grammar.kind == "regex":
        return re.fullmatch(grammar.text, text) is not None
    try:
        return fits(json.loads(text), schema_of(grammar))
    except ValueError:
        return False


def verify(text: str, grammar: Grammar, where: str) -> None:
    """Make sure that the server kept to the grammar.

    Raises:
        CapabilityError: it did not.
    """
    if not obeys(text, grammar):
        remedy = "The server lets texts pass that its grammar forbids; write freely and parse, or use another server."
        raise CapabilityError(say(where, f"must keep to the grammar ({grammar.kind})", text, remedy))


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "null": (type(None),),
    "integer": (int,), "number": (int, float),
}  # fmt: skip


def fits(value: Any, schema: Any) -> bool:
    """A JSON value fits a schema, by the keywords that say what answers look like; others are not looked at.

    These are type, enum, const, pattern, anyOf, properties, required, additionalProperties and items.

    >>> schema = {"type": "array", "items": {"type": "integer"}}
    >>> fits([1, 2], schema), fits([1, True], schema), fits({}, schema)
    (True, False, False)
    """
    if not isinstance(schema, Mapping):
        return schema is not False
    parts = (_fits_type(value, schema.get("type")), _fits_values(value, schema), _fits_inside(value, schema))
    return all(parts) and ("anyOf" not in schema or any(fits(value, one) for one in schema["anyOf"]))


def _fits_type(value: Any, wanted: Any) -> bool:
    names = wanted if isinstance(wanted, list) else [wanted]
    if wanted is None:
        return True
    if isinstance(value, bool):
        return "boolean" in names
    return any(isinstance(value, _TYPES.get(name, (object,))) for name in names)


def _fits_values(value: Any, schema: Mapping[str, Any]) -> bool:
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    return not (isinstance(value, str) and "pattern" in schema) or re.search(schema["pattern"], value) is not None


def _fits_inside(value: Any, schema: Mapping[str, Any]) -> bool:
    if isinstance(value, list):
        return all(fits(one, schema.get("items", True)) for one in value)
    if not isinstance(value, dict):
        return True
    known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
    return all(name in value for name in schema.get("required", ())) and all(
        fits(one, known.get(name, other)) for name, one in value.items()
    )
