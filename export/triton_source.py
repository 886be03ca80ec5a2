"""Makes the one file that Triton's Python backend loads out of the modules that the decode model imports.

It takes what triton_decoder.py needs of the package's modules, definition by definition, as it is written there, and
the imports from other libraries. So the file runs where neither the package nor JAX is installed.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

import bottlefit_jax

PACKAGE = Path(bottlefit_jax.__file__).parent
DECODER = Path(__file__).with_name("triton_decoder.py")
ROOT = "TritonPythonModel"
HEADER = '''\
"""Payloads of BottleFit-JAX {version} to latents: a model of Triton's Python backend.

Written by export.bundle --triton out of the package's own code; change it there. Needs Python 3.10 and NumPy.
"""

from __future__ import annotations

'''


@dataclass(frozen=True)
class _Definition:
    """A statement at the top of a module: a function, a class, constants.

    Attributes:
        module: the file, as a comment names it.
        text: its lines.
        names: what it defines.
        needs: the names that it uses, among others; "module.name" is one of another module.
    """

    module: str
    text: str
    names: frozenset[str]
    needs: frozenset[str]


def decoder_source() -> str:
    """Return the content of model.py.

    Raises:
        ValueError: two modules define the same name, or one has a statement that cannot be moved to another file.
    """
    modules = _Modules()
    modules.read(DECODER)
    needed, waiting = set(), [ROOT]
    while waiting:
        name = waiting.pop()
        module, _, attribute = name.rpartition(".")
        name = attribute if module in modules.aliases else name
        if name not in needed:
            needed.add(name)
            waiting += [other for each in modules.definitions if name in each.names for other in each.needs]
    chosen = [each for each in modules.definitions if each.names & needed]
    _check_unique(chosen)
    imports = sorted({text for name, text in modules.imports.items() if name in needed} | {"import sys"}, key=_rank)
    parts = [HEADER.format(version=bottlefit_jax.__version__), "\n".join(imports), "\n\n"]
    if aliases := sorted(modules.aliases & needed):
        parts.append(f"{' = '.join(aliases)} = sys.modules[__name__]  # modules of the package, which are one here\n")
    module = ""
    for each in chosen:
        if each.module != module:
            module = each.module
            parts.append(f"\n# ---- {module}\n")
        parts.append(each.text if each.text.count("\n") == 1 else f"\n\n{each.text}")
    return "".join(parts)


class _Modules:
    """The modules that one imports, in the order in which they are to be executed.

    Attributes:
        definitions: of all modules.
        imports: the name that an import of another library binds, and the statement.
        aliases: names under which modules import each other.
    """

    def __init__(self):
        self.definitions: list[_Definition] = []
        self.imports: dict[str, str] = {}
        self.aliases: set[str] = set()
        self._read: set[Path] = set()

    def read(self, path: Path) -> None:
        """Add a module, after those that it imports."""
        if path in self._read:
            return
        self._read.add(path)
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self._add_import(node)
            elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):  # the docstring
                self.definitions.append(_definition(node, path, text.splitlines(keepends=True)))

    def _add_import(self, node: ast.Import | ast.ImportFrom) -> None:
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if module == "__future__":
            return
        top, *rest = module.split(".")
        for alias in node.names:
            if top != PACKAGE.name:
                statement = f"from {module} import " if module else "import "
                name = alias.name if alias.asname is None else f"{alias.name} as {alias.asname}"
                self.imports[alias.asname or alias.name.partition(".")[0]] = statement + name
                continue
            if alias.asname is not None:
                raise ValueError(f"{alias.name} is imported as {alias.asname}; a name must be the same everywhere")
            place = PACKAGE.joinpath(*rest, f"{alias.name}.py")
            if place.exists():
                self.aliases.add(alias.name)
                self.read(place)
            else:
                self.read(PACKAGE.joinpath(*rest).with_suffix(".py"))


def _definition(node: ast.stmt, path: Path, lines: list[str]) -> _Definition:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        names, first = {node.name}, min([node.lineno, *(each.lineno for each in node.decorator_list)])
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
        first = node.lineno
    else:
        raise ValueError(f"{path.name}, line {node.lineno}: only imports, definitions and constants can be moved")
    while first > 1 and lines[first - 2].startswith("#"):
        first -= 1
    needs = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name):
            needs.add(f"{each.value.id}.{each.attr}")
    root = PACKAGE.parent if PACKAGE in path.parents else DECODER.parents[1]
    text = "".join(lines[first - 1 : node.end_lineno])
    return _Definition(path.relative_to(root).as_posix(), text, frozenset(names), frozenset(needs))


def _check_unique(definitions: list[_Definition]) -> None:
    modules: dict[str, str] = {}
    for each in definitions:
        for name in each.names:
            if name in modules:
                raise ValueError(f"{name} is defined in {modules[name]} and in {each.module}; one must be renamed")
            modules[name] = each.module


def _rank(statement: str) -> tuple[bool, bool, str]:
    """Return by what imports are sorted: the standard library first, `import` before `from`."""
    outside = any(name in statement for name in ("numpy", "triton"))
    return outside, statement.startswith("from"), statement
