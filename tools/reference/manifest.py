"""manifest.md: every field of a bundle's manifest, from its schema, and what older formats have instead."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

from bottlefit_jax.bundle import FORMAT, folder, older_formats, validation
from bottlefit_jax.bundle.validation import manifest_schema
from tools.reference.markdown import code, page, paragraph, table

INTRODUCTION = f"""
`manifest.json` in a bundle's folder is UTF-8 JSON of at most {folder.MAX_BYTES >> 20} MiB, and describes the other
files. A reader refuses unknown keys, but for those in `extensions`, repeated keys, NaN and infinity. Every field must
be there, unless it is said to be optional. `[]` in a field's name stands for each item of an array, and `NAME` for each
name in an object. A path inside the bundle has `/` between its parts, and none of them begins with a dot. The machine's
form of this page is `bottlefit_jax/bundle/manifest.schema.json` (JSON Schema 2020-12). The newest format is {FORMAT}.
"""
# limit of the schema -> words
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minProperties": "at least {} names",
    "pattern": "matches `{}`",
}
NAMED = {
    "sha256": "64 hexadecimal digits",
    "file": "path inside the bundle",
}  # rules whose pattern says less than words


def manifest() -> str:
    """Return the page."""
    rules = manifest_schema()
    parts = [f"## Fields of format {FORMAT}", table(("field", "value", "meaning"), _rows(rules, rules, ""))]
    parts += ["## What must go together", _verbatim_list(validation)]
    parts += ["## Older formats", paragraph(str(older_formats.__doc__))]
    for number in sorted(older_formats.FORMATS, reverse=True):
        parts += [f"### Format {number}", *_older(number, rules)]
    parts += ["How a reader makes the newest format of them:", _verbatim_list(older_formats.upgrade)]
    return page("Manifest", paragraph(INTRODUCTION), *parts)


def _fields(rule: dict[str, Any], rules: dict[str, Any], path: str) -> Iterator[tuple[str, Any, Any]]:
    for name, own in rule.get("properties", {}).items():
        whole, here = _resolved(own, rules), f"{path}.{name}".lstrip(".")
        yield here, own, whole
        yield from _fields(whole, rules, here)
        items = whole.get("items")
        if isinstance(items, dict) and "properties" in _resolved(items, rules):
            yield from _fields(_resolved(items, rules), rules, f"{here}[]")
        others = whole.get("additionalProperties")
        if isinstance(others, dict):
            yield f"{here}.NAME", others, others
            yield from _fields(others, rules, f"{here}.NAME")


def _rows(rule: dict[str, Any], rules: dict[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    for name, own, whole in _fields(rule, rules, path):
        optional = " Optional." if name in rules["properties"] and name not in rules["required"] else ""
        yield (
            code(name),
            _value(own, whole, rules),
            f"{own.get('description') or whole.get('description', '')}{optional}",
        )


def _resolved(rule: dict[str, Any], rules: dict[str, Any]) -> dict[str, Any]:
    """Return a rule with what it refers to; its own description comes first."""
    if "$ref" not in rule:
        return rule
    return {**rules["$defs"][rule["$ref"].rpartition("/")[2]], **rule}


def _value(own: dict[str, Any], rule: dict[str, Any], rules: dict[str, Any]) -> str:
    """Return what a value may be, in words."""
    if (name := own.get("$ref", "").rpartition("/")[2]) in NAMED:
        return NAMED[name]
    if "const" in rule:
        return code(_json(rule["const"]))
    if "enum" in rule:
        return " or ".join(code(_json(each)) for each in rule["enum"])
    types = rule.get("type", "object")
    words = [" or ".join([types] if isinstance(types, str) else types)]
    least, most = rule.get("minItems"), rule.get("maxItems")
    limits = {**rule, **({"minItems": None, "maxItems": None} if least == most and least else {})}
    words += [f"{least} items"] if least == most and least else []
    words += [text.format(_number(limits[key])) for key, text in LIMITS.items() if limits.get(key) is not None]
    items = rule.get("items", {})
    if items and "properties" not in _resolved(items, rules):
        words.append(f"each {_value(items, _resolved(items, rules), rules)}")
    return ", ".join(re.sub(r"\b1 (\w+)s$", r"1 \1", word) for word in words)


def _number(limit: Any) -> str:
    return f"{limit:,}" if isinstance(limit, int) else str(limit).removesuffix("$(?!\\n)") + "$" * ("(?!" in str(limit))


def _json(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _older(number: int, rules: dict[str, Any]) -> Iterator[str]:
    """Yield what a format lacks, and the fields that it has otherwise than the newest one."""
    theirs = manifest_schema(number)
    missing = [name for name in rules["properties"] if name not in theirs["properties"]]
    yield paragraph(f"Without {', '.join(code(name) for name in missing)}.")
    changed = {
        name: rule
        for name, rule in theirs["properties"].items()
        if _resolved(rule, rules) != _resolved(rules["properties"][name], rules)
    }
    if changed:
        yield "These are different:"
        yield table(("field", "value", "meaning"), _rows({"properties": changed}, rules, ""))


def _verbatim_list(described: Any) -> str:
    """Return the part of a docstring after its first paragraph."""
    return inspect.cleandoc(str(described.__doc__)).partition("\n\n")[2].partition("\n\nArgs:")[0]
