"""Validates a value against the part of JSON Schema (2020-12) that manifest.schema.json uses.

The device has no `jsonschema` package. tests/bundle/test_schema.py compares the verdicts with that package's.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from bottlefit_jax.errors import quote

TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    # in JSON Schema 1.0 is an integer
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    ),
}
# keyword -> the type that it applies to, whether a value keeps to it, the message if not
LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool], str]] = {
    "minimum": ("number", lambda value, limit: value >= limit, "must be at least {}"),
    "maximum": ("number", lambda value, limit: value <= limit, "must be at most {}"),
    "exclusiveMinimum": ("number", lambda value, limit: value > limit, "must be above {}"),
    "minLength": ("string", lambda value, limit: len(value) >= limit, "must have at least {} characters"),
    "maxLength": ("string", lambda value, limit: len(value) <= limit, "must have at most {} characters"),
    "pattern": ("string", lambda value, limit: re.search(limit, value) is not None, "must match {}"),
    "minItems": ("array", lambda value, limit: len(value) >= limit, "must have at least {} items"),
    "maxItems": ("array", lambda value, limit: len(value) <= limit, "must have at most {} items"),
    "minProperties": ("object", lambda value, limit: len(value) >= limit, "must have at least {} entries"),
}
STRUCTURE = {
    "type",
    "const",
    "enum",
    "$ref",
    "required",
    "properties",
    "additionalProperties",
    "propertyNames",
    "items",
}
ANNOTATIONS = {"$schema", "$defs", "title", "description"}


class SchemaError(Exception):
    """The schema uses a feature that this validator does not have: a bug of this package, never the user's."""


def check(schema: Any) -> None:
    """Raise SchemaError if `schema`, or a part of it, uses an unknown keyword, type or reference."""
    _check(schema, schema)


def problems(value: Any, schema: Any) -> Iterator[str]:
    """Yield a phrase for each problem of a value, as "latent.scale is -1; it must be above 0".

    Args:
        value: as json.loads returns it.
        schema: one that `check` accepts.
    """
    return _problems(value, schema, schema, "")


def _check(schema: Any, root: dict[str, Any]) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise SchemaError(f"{schema!r} is not a schema")
    unknown = schema.keys() - STRUCTURE - ANNOTATIONS - LIMITS.keys()
    unknown |= set(_types(schema)) - TYPES.keys()
    if unknown:
        raise SchemaError(f"unknown keywords or types in a schema: {', '.join(sorted(unknown))}")
    scalars = schema.get("enum", []) + ([schema["const"]] if "const" in schema else [])
    if any(isinstance(scalar, dict | list) for scalar in scalars):
        raise SchemaError(f"const and enum must hold scalars, not {scalars!r}")
    if "$ref" in schema:
        _resolve(schema["$ref"], root)
    parts = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    parts += [schema[keyword] for keyword in ("items", "additionalProperties", "propertyNames") if keyword in schema]
    for part in parts:
        _check(part, root)


def _problems(value: Any, schema: Any, root: dict[str, Any], where: str) -> Iterator[str]:
    """Yield the problems of the value at the path `where`, which is "" at the top."""
    if isinstance(schema, bool):
        if not schema:
            yield f"{where} is not known"
        return
    if "$ref" in schema:
        yield from _problems(value, _resolve(schema["$ref"], root), root, where)
    subject = f"{where or 'the manifest'} is {quote(value)}; it"
    types = _types(schema)
    if types and not any(TYPES[name](value) for name in types):
        yield f"{subject} must be {' or '.join(_with_article(name) for name in types)}"
        return
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if allowed is not None and not any(_same(value, scalar) for scalar in allowed):
        yield f"{subject} must be {' or '.join(map(repr, allowed))}"
    for keyword, (kind, holds, message) in LIMITS.items():
        if keyword in schema and TYPES[kind](value) and not holds(value, schema[keyword]):
            yield f"{subject} {message.format(schema[keyword])}"
    if isinstance(value, dict):
        yield from _object_problems(value, schema, root, where)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _problems(item, schema["items"], root, f"{where}[{index}]")


def _object_problems(value: dict, schema: dict, root: dict[str, Any], where: str) -> Iterator[str]:
    known = schema.get("properties", {})
    for key in schema.get("required", []):
        if key not in value:
            yield f"{_join(where, key)} is missing"
    for key, item in value.items():
        if "propertyNames" in schema:
            yield from _problems(key, schema["propertyNames"], root, f"a name in {where or 'the manifest'}")
        yield from _problems(item, known.get(key, schema.get("additionalProperties", True)), root, _join(where, key))


def _types(schema: dict) -> list[str]:
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else types


def _resolve(reference: str, root: dict[str, Any]) -> Any:
    place, _, name = reference.rpartition("/")
    if place != "#/$defs" or name not in root.get("$defs", {}):
        raise SchemaError(f"unknown reference {reference!r}")
    return root["$defs"][name]


def _same(value: Any, scalar: Any) -> bool:
    """Compare as JSON does: 1 equals 1.0, and neither equals true."""
    return isinstance(value, bool) == isinstance(scalar, bool) and value == scalar


def _join(where: str, key: str) -> str:
    key = key if key.isidentifier() else quote(key)
    return f"{where}.{key}" if where else key


def _with_article(name: str) -> str:
    return name if name == "null" else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
