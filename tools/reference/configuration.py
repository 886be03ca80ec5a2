"""configuration.md: every key of the config, from recipe.py and its comments."""

import ast
import inspect
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from bottlefit_jax import config_check, recipe
from tools.reference.markdown import code, page, paragraph, sentence, table

INTRODUCTION = """
A config file has a function `get_config()`. It starts from `bottlefit_jax.recipe.base_config()`, whose keys and
defaults are below, changes some, and returns the result. On the command line `--config.KEY=VALUE` changes a key, as
`--config.dataset.image_size=64`; a tuple is typed with commas, `--config.student.rate.steps=1,2,4`. A key that is not
here, a value of another type and a value that is not valid are errors before anything is opened.
"""
EMPTY = {"unlabelled": "str", "mean": "float", "std": "float", "matched": "str"}  # what a tuple may hold that is empty
STAGES = "stages"
BOTTLENECK = "student.bottleneck"


@dataclass(frozen=True)
class Key:
    """A key in the source.

    Attributes:
        path: dotted.
        text: of its comments; "" without.
        is_section: whether its value is a dictionary of keys.
    """

    path: str
    text: str
    is_section: bool


def configuration() -> str:
    """Return the page."""
    config = recipe.base_config()
    keys = list(read_keys())
    common = {key.path: key.text for key in _keys_of(_function("_stage"), "", _comments())}
    sections = [Key("", "", True), *(key for key in keys if key.is_section)]
    parts = []
    for section in sections:
        if section.path.startswith(f"{STAGES}."):
            continue
        parts += [f"## `{section.path}`", paragraph(sentence(section.text))] if section.path else []
        if section.path == STAGES:
            parts.append(_stages(config, keys, common))
            continue
        inside = [key for key in keys if not key.is_section and key.path.rpartition(".")[0] == section.path]
        rows = [(code(key.path), *_kind_and_default(config, key.path), sentence(key.text)) for key in inside]
        parts.append(table(("key", "type", "default", "meaning"), rows))
    parts += ["## When a run is resumed", paragraph(_resuming())]
    return page("Configuration", paragraph(INTRODUCTION), *parts)


def read_keys() -> Iterator[Key]:
    """Yield the keys of `base_config`; those that every stage has are in `_stage`."""
    yield from _keys_of(_function("base_config"), "", _comments())


def _stages(config: Any, keys: list[Key], common: dict[str, str]) -> str:
    """Return the table of the stages' settings: a column of defaults for each stage."""
    texts = {key.path: key.text for key in keys if key.path.startswith(f"{STAGES}.")}
    names = [path.partition(".")[2] for path in texts if path.count(".") == 1]
    own = dict.fromkeys(key for path in texts if (key := path.rpartition(".")[2]) not in (*common, *names))
    rows = []
    for key in (*common, *own):
        having = [name for name in names if key in config.stages[name]]
        text = next((text for name in having if (text := texts.get(f"{STAGES}.{name}.{key}"))), common.get(key, ""))
        kinds = {_kind_and_default(config, f"{STAGES}.{name}.{key}")[0] for name in having}
        assert len(kinds) == 1, f"the stages have several types of {key}: {kinds}"
        defaults = [code(_literal(config.stages[name][key])) if name in having else "" for name in names]
        rows.append((code(key), kinds.pop(), *defaults, sentence(text)))
    columns = table(("key", "type", *(code(name) for name in names), "meaning"), rows)
    return f"The full key is `{STAGES}.STAGE.KEY`, as `{STAGES}.{names[1]}.epochs`.\n\n{columns}"


def _kind_and_default(config: Any, path: str) -> tuple[str, str]:
    """Return the type of a value, with what is valid, and its default."""
    parent, _, key = path.rpartition(".")
    above = recipe.look_up(config, parent) if parent else config
    value = above[key]
    if parent == BOTTLENECK:
        default = recipe.BOTTLENECK[key]
        text, kind = "the model's own" if default is None else code(_literal(default)), above.get_type(key).__name__
    else:
        text, kind = code(_literal(value)), _kind(key, value)
    return ", ".join([kind, *_valid(path)]), text


def _valid(path: str) -> list[str]:
    words = [" or ".join(code(_literal(each)) for each in config_check.CHOICES.get(path, ()) if each is not None)]
    words += [f"at least {config_check.AT_LEAST[path]}"] if path in config_check.AT_LEAST else []
    words += [config_check.RANGES[path][1]] if path in config_check.RANGES else []
    return [word for word in words if word]


def _kind(key: str, value: Any) -> str:
    if isinstance(value, ConfigDict):
        return "dict"
    if isinstance(value, tuple):
        return f"tuple of {type(value[0]).__name__ if value else EMPTY[key]}"
    return type(value).__name__


def _literal(value: Any) -> str:
    if isinstance(value, ConfigDict):
        return repr(value.to_dict())
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _resuming() -> str:
    keys = [code(key) for key in recipe.MAY_CHANGE]
    return (
        "A run goes on only with the config that it began with, because every other value could change a weight. "
        f"These keys may differ: {', '.join(keys[:-1])} and {keys[-1]}."
    )


def _keys_of(node: ast.AST, prefix: str, comments: dict[int, tuple[str, bool]]) -> Iterator[Key]:
    """Yield the keys of a dictionary or of a call's keywords, with those of the dictionaries inside."""
    if isinstance(node, ast.Dict):
        texts = [key for key in node.keys if isinstance(key, ast.Constant)]  # `**changes` has no key
        pairs = [(key.value, key.lineno, value) for key, value in zip(texts, node.values, strict=False)]
    else:
        assert isinstance(node, ast.Call)
        pairs = [(keyword.arg, keyword.lineno, keyword.value) for keyword in node.keywords]
    for name, line, value in pairs:
        inner = _is_stage(value) or (isinstance(value, ast.Dict) and value.keys)
        yield Key(f"{prefix}{name}", _text_of(line, line if inner else value.end_lineno, comments), bool(inner))
        if inner:
            yield from _keys_of(value, f"{prefix}{name}.", comments)


def _is_stage(value: ast.AST) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "_stage"


def _text_of(first: int, last: int | None, comments: dict[int, tuple[str, bool]]) -> str:
    """Return the comment lines above a key, and the comment behind its value."""
    above, line = [], first - 1
    while line in comments and comments[line][1]:
        above.insert(0, comments[line][0])
        line -= 1
    behind = [comments[last][0]] if last in comments and not comments[last][1] else []
    return " ".join([*above, *behind])


def _comments() -> dict[int, tuple[str, bool]]:
    """Return the comment of each line of recipe.py that has one, and whether the line has nothing else."""
    tokens = tokenize.generate_tokens(io.StringIO(inspect.getsource(recipe)).readline)
    return {
        token.start[0]: (token.string.lstrip("# "), not token.line[: token.start[1]].strip())
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def _function(name: str) -> ast.Dict:
    """Return the dictionary that a function of recipe.py returns, or gives to ConfigDict."""
    tree = ast.parse(inspect.getsource(recipe))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    (returned,) = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    value = returned.args[0] if isinstance(returned, ast.Call) else returned
    assert isinstance(value, ast.Dict)
    return value
