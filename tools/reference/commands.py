"""commands.md: every command with its flags, from the parsers."""

import importlib
import re
from pathlib import Path

from bottlefit_jax import __main__ as console
from bottlefit_jax.cli import command, flag_help
from tools.reference.markdown import anchor, code, page, paragraph, table

ROOT = Path(__file__).parents[2]
INTRODUCTION = """
`bottlefit COMMAND` and `python -m MODULE` are the same. Every command has `--help`, which prints what is here, and
`--version`. Flags cannot be abbreviated. A mistake in the command line is one line on standard error and exit code 2.
"""
# Commands that `bottlefit` does not list: each is the companion of one that it does. module -> extra
OTHERS = {
    "bottlefit_jax.serve.load": "serve",
    "bottlefit_jax.links.simulate": "edge,serve",
    "bottlefit_jax.links.jpeg_server": "edge",
    "export.tensorrt": "export",
}


def commands() -> str:
    """Return the page."""
    parts = []
    for name, row in console.COMMANDS.items():
        module = row.module.removesuffix(".__main__")
        same = f"The same as `python -m {module}`."
        with command.called_as(f"bottlefit {name}"):
            parts += _command(f"bottlefit {name}", row.module, row.extra, same)
    for module, extra in OTHERS.items():
        parts += _command(f"python -m {module}", module, extra, "")
    return page("Commands", paragraph(INTRODUCTION), "\n".join(_contents()), *parts)


def _contents() -> list[str]:
    """Return the list of the commands, with links to their sections."""
    titles = [(f"bottlefit {name}", row.summary) for name, row in console.COMMANDS.items()]
    titles += [(f"python -m {module}", _first_sentence(module)) for module in OTHERS]
    return [f"- [`{title}`](#{anchor(title)}): {summary}" for title, summary in titles]


def _command(title: str, module: str, extra: str, same: str) -> list[str]:
    parser = importlib.import_module(module).make_parser()
    needs = f"Needs `pip install 'bottlefit-jax[{extra}]'`."
    usage = flag_help.usage(parser.prog, [action for actions in parser.groups.values() for action in actions], 118)
    parts = [f"## `{title}`", f"{same} {needs}".strip()]
    parts.append(f"```text\n{usage}\n\n{(parser.description or '').strip()}\n```")
    for group, actions in parser.groups.items():
        rows = [(code(flag_help.invocation(action)), flag_help.meaning(action)) for action in actions]
        parts.append(f"### {group[0].upper()}{group[1:]}\n\n{table(('flag', 'meaning'), rows)}")
    return parts


def _first_sentence(module: str) -> str:
    text = " ".join((importlib.import_module(module).__doc__ or "").split())
    return re.split(r"[.:] ", text)[0]
