"""api.md: the names that each room exports, from the source; nothing is imported, so that versions of Python agree."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.reference.markdown import anchor, code, item, page, paragraph

ROOT = Path(__file__).parents[2]
INTRODUCTION = """
The names that the rooms of the package export. `from bottlefit_jax.ROOM import NAME` is how a program gets one; a
test holds the list, so a name that goes is a change for users and stands in the changelog. Names that are not here may
change in any version. Shapes are as [B, h, w, c]: images of a batch, rows, columns, channels.
"""
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
SHOWN = ("classmethod", "staticmethod", "contextmanager", "asynccontextmanager")  # decorators that callers must know
CODE = re.compile(r"from \S+ import |with .*:$|import |>>> |[\w.]+(, \w+)* = ", re.MULTILINE)  # begins an example
PLURAL = {"Args": "Arguments"}
Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True)
class Module:
    """A file of the package, as its source has it."""

    name: str
    path: Path
    tree: ast.Module


def api() -> str:
    """Return the page."""
    rooms = [module for name in room_names() if "__all__" in _assigned(module := _module(name))]
    parts = ["\n".join(f"- [`{room.name}`](#{anchor(room.name)}): {_summary(room)}" for room in rooms)]
    for room in rooms:
        parts += [f"## `{room.name}`", _prose(ast.get_docstring(room.tree) or "")]
        for name in exported(room):
            parts += list(_entry(name, _find(room, name)))
    return page("API", paragraph(INTRODUCTION), *parts)


def room_names() -> list[str]:
    """Return the rooms, by the names of their modules: folders and files of the package, and the export."""
    package = ROOT / "bottlefit_jax"
    names = [path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    return [*(f"bottlefit_jax.{name}" for name in sorted(names) if not name.startswith("__")), "export"]


def exported(room: Module) -> list[str]:
    """Return the names in `__all__`."""
    value = _assigned(room)["__all__"].value
    assert value is not None
    return sorted(ast.literal_eval(value), key=lambda name: (name.isupper(), name[0].islower(), name))


def _module(name: str) -> Module:
    base = ROOT / name.replace(".", "/")
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return Module(name, path, ast.parse(path.read_text()))


def _assigned(module: Module) -> dict[str, ast.Assign | ast.AnnAssign]:
    """Return the assignments of a module by the names that they give."""
    found: dict[str, ast.Assign | ast.AnnAssign] = {}
    for node in module.tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [each for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
            found.update(dict.fromkeys([each.id for each in names], node))
    return found


def _find(module: Module, name: str) -> tuple[Module, Named]:
    """Return where a name is defined, through the imports that pass it on."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and any((each.asname or each.name) == name for each in node.names):
            (original,) = [each.name for each in node.names if (each.asname or each.name) == name]
            return _find(_module(str(node.module)), original)
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            return module, node
    return module, _assigned(module)[name]


def _entry(name: str, found: tuple[Module, Named]) -> Iterator[str]:
    """Yield the parts of a name: its heading, its signature, its docstring, the methods of a class."""
    module, node = found
    yield f"### `{name}`"
    if isinstance(node, ast.Assign | ast.AnnAssign):
        yield _constant(module, name, node)
        return
    if isinstance(node, ast.ClassDef):
        yield _fenced(_class_signature(node))
        yield _prose(ast.get_docstring(node) or "")
        yield from (_prose(ast.get_docstring(made) or "") for made in _made_by(node))
        yield from _methods(node)
        return
    yield _fenced(_signature(node))
    yield _prose(ast.get_docstring(node) or "")


def _constant(module: Module, name: str, node: ast.Assign | ast.AnnAssign) -> str:
    """Return a constant's value, if it is a short one, and the comment of its line."""
    lines = module.path.read_text().splitlines()
    last = lines[(node.end_lineno or node.lineno) - 1]
    comment = last[(node.end_col_offset or 0) :].partition("#")[2].strip()
    above = lines[node.lineno - 2].strip()
    comment = comment or (above.lstrip("# ") if above.startswith("#") else "")
    value = ast.unparse(node.value) if node.value is not None else "..."
    kind = f": {ast.unparse(node.annotation)}" if isinstance(node, ast.AnnAssign) else ""
    shown = _fenced(f"{name}{kind} = {value if len(value) <= 100 else '...'}")
    return "\n\n".join(filter(None, [shown, paragraph(f"{comment[:1].upper()}{comment[1:]}.") if comment else ""]))


def _methods(node: ast.ClassDef) -> Iterator[str]:
    """Yield the public methods and properties of a class."""
    for each in node.body:
        if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) or each.name.startswith("_"):
            continue
        decorators = [ast.unparse(decorator).rpartition(".")[2] for decorator in each.decorator_list]
        if {"property", "cached_property"} & set(decorators):
            signature = f"{node.name}.{each.name}{'' if each.returns is None else f': {ast.unparse(each.returns)}'}"
        else:
            signature = _signature(each, f"{node.name}.", drop_first="staticmethod" not in decorators)
        yield f"#### `{node.name}.{each.name}`"
        yield _fenced(signature)
        yield _prose(ast.get_docstring(each) or "")


def _class_signature(node: ast.ClassDef) -> str:
    """Return how an object of a class is made: by its fields, or by `__init__`."""
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    if made := _made_by(node):
        return f"class {_signature(made[0], drop_first=True, name=node.name)}"
    fields = [
        each for each in node.body if isinstance(each, ast.AnnAssign) and not ast.unparse(each.target).startswith("_")
    ]
    by_fields = bases in ("NamedTuple", "nn.Module") or any(
        "dataclass" in ast.unparse(each) for each in node.decorator_list
    )
    if not (fields and by_fields):
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    parameters = [f"{ast.unparse(each.target)}: {ast.unparse(each.annotation)}{_default(each)}" for each in fields]
    return f"class {node.name}({_parameters(parameters)})"


def _made_by(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]


def _default(field: ast.AnnAssign) -> str:
    if field.value is None:
        return ""
    value = ast.unparse(field.value)
    return " = ..." if "field(" in value else f" = {value}"


def _signature(
    node: ast.FunctionDef | ast.AsyncFunctionDef, prefix: str = "", *, drop_first: bool = False, name: str = ""
) -> str:
    arguments = node.args
    parameters = [ast.arg(each.arg, each.annotation) for each in [*arguments.posonlyargs, *arguments.args]]
    defaults = [None] * (len(parameters) - len(arguments.defaults)) + list(arguments.defaults)
    shown = [_parameter(each, default) for each, default in zip(parameters, defaults, strict=True)][drop_first:]
    if arguments.vararg:
        shown.append(f"*{_parameter(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        shown.append("*")
    shown += [
        _parameter(each, default) for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    shown += [f"**{_parameter(arguments.kwarg, None)}"] if arguments.kwarg else []
    kind = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    returns = "" if node.returns is None or name else f" -> {ast.unparse(node.returns)}"
    decorators = [ast.unparse(each) for each in node.decorator_list]
    above = "".join(f"@{each}\n" for each in decorators if each.rpartition(".")[2] in SHOWN)
    return f"{above}{kind}{prefix}{name or node.name}({_parameters(shown)}){returns}"


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg + ("" if argument.annotation is None else f": {ast.unparse(argument.annotation)}")
    if default is None:
        return text
    return f"{text} = {ast.unparse(default)}" if argument.annotation else f"{text}={ast.unparse(default)}"


def _parameters(shown: list[str]) -> str:
    """Return parameters in one line, or in a line each where that would be long."""
    line = ", ".join(shown)
    return line if len(line) <= 90 else "\n    " + ",\n    ".join(shown) + ",\n"


def _prose(docstring: str) -> str:
    """Return a docstring of Google's convention as Markdown: its sections become lists."""
    blocks, section = [], ""
    for block in _blocks(inspect.cleandoc(docstring)):
        heading, _, rest = block.partition("\n")
        if heading.rstrip(":") in SECTIONS and heading.endswith(":"):
            section = heading.rstrip(":")
            blocks += [f"{PLURAL.get(section, section)}:", _list(section, textwrap.dedent(rest))]
        elif section and block.startswith(" "):
            blocks.append(_list(section, textwrap.dedent(block)))
        elif re.match(r"\||- ", block):
            blocks.append(block)
        elif CODE.match(block):
            blocks.append(_fenced(block))
        elif block.startswith("    "):
            blocks.append(_fenced(textwrap.dedent(block), "text"))
        else:
            blocks.append(paragraph(block))
    return "\n\n".join(blocks)


def _blocks(text: str) -> list[str]:
    """Return what empty lines separate; code with empty lines is one block."""
    blocks: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        if blocks and CODE.match(blocks[-1]) and CODE.match(block):
            blocks[-1] += f"\n\n{block}"
        else:
            blocks.append(block)
    return blocks


def _list(section: str, text: str) -> str:
    """Return the entries of a section, each of which begins a line; Returns is a paragraph."""
    if section in ("Returns", "Yields"):
        return paragraph(text)
    entries: list[str] = []
    for line in text.splitlines():
        entries = (
            [*entries, line]
            if not line.startswith(" ") or not entries
            else [*entries[:-1], f"{entries[-1]} {line.strip()}"]
        )
    pairs = [entry.partition(": ") for entry in entries]
    return "\n".join(item(f"{code(name)}: {rest}" if rest else name) for name, _, rest in pairs)


def _fenced(text: str, language: str = "python") -> str:
    return f"```{language}\n{text}\n```"


def _summary(room: Module) -> str:
    return (ast.get_docstring(room.tree) or "").partition("\n\n")[0].replace("\n", " ")
