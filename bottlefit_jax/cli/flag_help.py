"""The text of `--help`: the usage, the docstring, then the flags in groups; the reference in docs/ has the same words.

The help of a flag says what it is, with its unit. What follows it is written here: "(required)", or "(default: …)" with
the default that the flag was declared with. Where that says nothing, as None does, the help ends with "(default: …)".
"""

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["format_help", "invocation", "is_required", "meaning", "usage"]

MEANING_AT = 30  # column; a longer flag has its meaning on the next line
WIDTH = (60, 120)  # of a line, at least and at most
DEFAULT = "(default: "


def format_help(prog: str, description: str | None, groups: Mapping[str, Sequence[argparse.Action]]) -> str:
    """Return what --help prints.

    Args:
        prog: what a person types to start the command.
        description: of the command.
        groups: the flags of each group, whose title is the key.
    """
    width = min(max(shutil.get_terminal_size().columns, WIDTH[0]), WIDTH[1])
    parts = [usage(prog, [action for actions in groups.values() for action in actions], width)]
    parts += [description.strip()] if description else []
    for title, actions in groups.items():
        parts.append("\n".join([f"{title}:", *(_lines(invocation(each), meaning(each), width) for each in actions)]))
    parts.append("\n".join(["help:", _lines("-h, --help", "this text", width)]))
    return "\n\n".join(parts) + "\n"


def usage(prog: str, actions: Iterable[argparse.Action], width: int = 10_000) -> str:
    """Return the line of the flags that a command cannot do without; [FLAG ...] stands for the others."""
    actions = list(actions)
    required = [invocation(each) for each in actions if each.option_strings and is_required(each)]
    rest = ["[FLAG ...]"] if any(each.option_strings and not is_required(each) for each in actions) else []
    positional = [_bracketed(each) for each in actions if not each.option_strings]
    words = [part.replace(" ", "\0") for part in (*required, *rest, *positional)]  # a flag stays with its value
    return textwrap.fill(
        f"usage: {prog} {' '.join(words)}",
        width,
        subsequent_indent=" " * len(f"usage: {prog} "),
        break_long_words=False,
        break_on_hyphens=False,
    ).replace("\0", " ")


def invocation(action: argparse.Action) -> str:
    """Return how a flag is typed, as `--deadline-ms MS`."""
    value = "" if action.nargs == 0 else _value(action)
    return f"{', '.join(action.option_strings)} {value}".strip()


def meaning(action: argparse.Action) -> str:
    """Return the help of a flag, with what happens without it."""
    text = (action.help or "") % {**vars(action), "default": _shown(action.default)}
    if is_required(action):
        return f"{text} (required)"
    if DEFAULT in text or action.default in (None, "", (), []):
        return text
    return f"{text} {DEFAULT}{_shown(action.default)})"


def is_required(action: argparse.Action) -> bool:
    """Return whether a command line without the flag is an error."""
    return action.required and action.nargs not in ("*", "?")  # some versions of argparse call these required


def _value(action: argparse.Action) -> str:
    choices = "" if action.choices is None else f"{{{','.join(map(str, action.choices))}}}"
    name = str(action.metavar or choices or action.dest.upper())
    return f"{name} ..." if action.nargs in ("*", "+") else name


def _bracketed(action: argparse.Action) -> str:
    return invocation(action) if is_required(action) else f"[{invocation(action)}]"


def _shown(default: Any) -> str:
    """Return a default as it would be typed; that of a flag without a value is "off"."""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, float):
        return f"{default:g}"
    return ",".join(map(_shown, default)) if isinstance(default, (tuple, list)) else str(default)


def _lines(flag: str, text: str, width: int) -> str:
    """Return a flag and its meaning beside it, or below it where the flag is long."""
    indent = " " * MEANING_AT
    lines = textwrap.wrap(text, width - MEANING_AT, break_long_words=False, break_on_hyphens=False)
    beside = len(flag) <= MEANING_AT - 4
    first = f"  {flag:<{MEANING_AT - 2}}{lines.pop(0)}" if beside and lines else f"  {flag}"
    return "\n".join([first, *(indent + line for line in lines)])
