"""What `--help` says of every flag of every command: its meaning, its unit, its default, in a group with a title."""

import argparse
import importlib
import re
from pathlib import Path

import pytest

from bottlefit_jax.cli import flag_help
from bottlefit_jax.cli.command import Parser

ROOT = Path(__file__).parents[2]
FILES = [path for room in ("bottlefit_jax", "export") for path in sorted((ROOT / room).rglob("*.py"))]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in FILES
    if re.search(r"^    command\.run\(main", path.read_text(), re.MULTILINE)
]
# what ends the name of a flag, or its value -> the words of its unit
UNITS = {
    r"-ms MS|^--delays .*": r"\bmilliseconds\b",
    r" S|^--seconds .*|^--outage .*|^--every .*": r"\bseconds\b",
    r"^--bytes-.*": r"\bbytes a second\b",
    r"^--(fps|camera-rate) .*": r"\b(images|frames) a second\b",
    r"^--watts-.*": r"\bwatts\b",
    r"^--rates .*": r"\bMbit/s\b",
    r" PX|WxH": r"\bpixels\b",
    r" PERCENT": r"\bpercent\b",
    r"^--bits .*": r"\bbits\b",
}


def parser_of(module):
    return importlib.import_module(module).make_parser()


FLAGS = [(module, action) for module in MODULES for action in parser_of(module)._actions if action.dest != "help"]
IDS = [f"{module}{flag_help.invocation(action).split()[0]}" for module, action in FLAGS]


def test_every_command_is_found():
    assert {"bottlefit_jax.main", "bottlefit_jax.edge.__main__", "bottlefit_jax.links.simulate"} < set(MODULES)
    assert {"export.bundle", "export.tensorrt"} < set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_flags_are_in_groups_with_titles(module):
    parser = parser_of(module)
    grouped = [action for actions in parser.groups.values() for action in actions]
    assert grouped
    assert {id(action) for action in parser._actions if action.dest != "help"} == {id(action) for action in grouped}
    assert "flags" not in parser.groups, "a flag was added without a group"
    assert all(re.fullmatch("[a-z][a-z ,]+", title) for title in parser.groups)


@pytest.mark.parametrize(("module", "action"), FLAGS, ids=IDS)
def test_a_flag_says_what_it_is_and_what_happens_without_it(module, action):
    text = flag_help.meaning(action)
    assert re.search(r"[a-z].* \((required|default: .+)\)$", text), text
    assert text.count("(default: ") + text.count("(required)") == 1
    assert not re.search(r"\.$|None|\[\]", action.help)


@pytest.mark.parametrize(("module", "action"), FLAGS, ids=IDS)
def test_a_flag_that_is_a_quantity_says_its_unit(module, action):
    typed = flag_help.invocation(action)
    assert not re.search(r"-(ms|seconds|bytes) [A-Z_]+$", typed) or re.search(r" (MS|S|BYTES|N)$", typed), typed
    for name, unit in UNITS.items():
        if re.search(rf"({name})$", typed):
            assert re.search(unit, flag_help.meaning(action)), flag_help.meaning(action)


@pytest.mark.parametrize(("module", "action"), FLAGS, ids=IDS)
def test_a_value_has_a_name_in_capitals_or_choices(module, action):
    if action.nargs != 0:
        assert action.choices is not None or action.metavar, "argparse would repeat the flag's name"


def example():
    parser = Parser("some.command", "Does it.\n\n    python -m some.command --input FILE")
    add = parser.group("what to read")
    add("--input", required=True, metavar="FILE", help="what is read")
    add("--deadline-ms", type=float, default=2000.0, metavar="MS", help="milliseconds, 95 %% of them")
    parser.group("output")("--json", action="store_true", help="print JSON")
    parser.group("what to read")("names", nargs="*", metavar="NAME", help="names (default: all)")
    return parser


def test_the_help_is_the_usage_the_docstring_and_the_groups(monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    assert example().format_help() == (
        "usage: python -m some.command --input FILE [FLAG ...] [NAME ...]\n\n"
        "Does it.\n\n"
        "    python -m some.command --input FILE\n\n"
        "what to read:\n"
        "  --input FILE                what is read (required)\n"
        "  --deadline-ms MS            milliseconds, 95 % of them (default:\n"
        "                              2000)\n"
        "  NAME ...                    names (default: all)\n\n"
        "output:\n"
        "  --json                      print JSON (default: off)\n\n"
        "help:\n"
        "  -h, --help                  this text\n"
    )


def test_a_long_flag_has_its_meaning_below_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    parser = Parser("some.command", None)
    parser.group("output")("--format", choices=["portable", "graymap", "pixmap"], default="pixmap", help="of the file")
    assert "  --format {portable,graymap,pixmap}\n                              of the file (default: pixmap)" in (
        parser.format_help()
    )


def test_a_default_is_shown_as_it_is_typed():
    parser = Parser("some.command", None)
    add = parser.group("numbers")
    for name, default in (("--a", 20_000.0), ("--b", (1, 2.5)), ("--c", Path("x")), ("--d", 0)):
        add(name, default=default, help="a number")
    texts = [flag_help.meaning(action) for action in parser.groups["numbers"]]
    assert texts == [f"a number (default: {each})" for each in ("20000", "1,2.5", "x", "0")]


def test_a_flag_without_a_group_is_printed_all_the_same():
    parser = Parser("some.command", None)
    assert isinstance(parser.add_argument("--x", help="a letter (default: none)"), argparse.Action)
    assert "flags:\n  --x X" in parser.format_help()
