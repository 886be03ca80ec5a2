"""`bottlefit COMMAND` is the same as `python -m MODULE`, and its help leads from the data to the measurement."""

import ast
import importlib
import importlib.metadata
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bottlefit_jax import __main__ as console
from bottlefit_jax import __version__
from bottlefit_jax.cli import command
from tests.cli.test_command import COMMANDS as MODULES

ROOT = Path(__file__).parents[1]
SCRIPT = Path(sys.executable).with_name("bottlefit")
# a command that is at work when the signal comes
SLOW = """
import sys, types
from bottlefit_jax import __main__ as console
def main(argv):
    print("ready", flush=True)
    import time; time.sleep(600)
sys.modules["slow"] = types.SimpleNamespace(main=main)
console.COMMANDS["train"] = console.COMMANDS["train"]._replace(module="slow")
console.run()
"""


@pytest.fixture(autouse=True)
def _restored_environment(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")  # a command sets it


def without_packages(*arguments):
    """Run Python without the installed packages: everything but the standard library and this one is missing."""
    return subprocess.run([sys.executable, "-S", "-m", *arguments], cwd=ROOT, capture_output=True, text=True)


def call_of(module, function):
    """Return the call of `function` (as `command.run`) in a module's file."""
    path = ROOT / (module.replace(".", "/") + ".py")
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    (call,) = [call for call in calls if ast.unparse(call.func) == function]
    return call


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_the_help_lists_every_command_in_the_order_of_the_work(arguments, capsys):
    assert console.main(arguments) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines() if line.startswith("  ") and line.endswith("]")]
    expected = "prepare convert train export serve infer check compare bench"
    assert " ".join(row[0] for row in rows) == expected
    assert [row[-1] for row in rows] == [f"[{row.extra}]" for row in console.COMMANDS.values()]
    assert err == ""
    assert max(map(len, out.splitlines())) <= 120


def test_the_help_needs_no_package():
    done = without_packages("bottlefit_jax", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == console.help_text() + "\n"


def test_the_example_of_the_help_uses_flags_that_exist(capsys):
    lines = [line.split() for line in console.help_text().splitlines() if line.startswith("  bottlefit ")]
    assert [line[1] for line in lines] == ["train", "export", "serve", "infer"]
    for _, name, *arguments in lines:
        with pytest.raises(SystemExit):
            console.main([name, "--help"])
        out = capsys.readouterr().out
        for flag in [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]:
            assert f"{flag} " in out or f"{flag}=" in out


@pytest.mark.parametrize(
    ("typed", "suggestion"),
    [
        ("trian", "did you mean 'train'? "),
        ("Export", "did you mean 'export'? "),
        ("benchmark", "did you mean 'bench'? "),
        ("edge", "did you mean 'infer'? "),
        ("main", "did you mean 'train'? "),
        ("xyzzy", ""),
        ("--verbose", ""),
    ],
)
def test_an_unknown_command_is_one_line_with_the_nearest_match(typed, suggestion, capsys):
    assert console.main([typed, "--config=x"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"error: unknown command '{typed}'; {suggestion}bottlefit --help lists the commands\n")


@pytest.mark.parametrize("name", console.COMMANDS)
def test_a_command_runs_the_main_of_its_module(name, monkeypatch):
    def main(argv):
        calls.append((argv, command.program("some.module")))
        return 7

    calls = []
    monkeypatch.setattr(importlib.import_module(console.COMMANDS[name].module), "main", main)
    assert console.main([name, "--flag", "value"]) == 7
    assert calls == [(["--flag", "value"], f"bottlefit {name}")]
    assert command.program("some.module") == "python -m some.module"


@pytest.mark.parametrize("name", console.COMMANDS)
def test_the_help_of_a_command_names_what_was_typed(name, capsys):
    with pytest.raises(SystemExit) as caught:
        console.main([name, "--help"])
    out = capsys.readouterr().out
    assert caught.value.code in (0, None)
    assert f"    bottlefit {name} --" in out
    module = console.COMMANDS[name].module.removesuffix(".__main__")
    assert f"python -m {module} " not in out


@pytest.mark.parametrize("name", console.COMMANDS)
def test_a_wrong_flag_of_a_command_is_one_line(name, capsys):
    assert console.main([name, "--no-such-flag"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")


@pytest.mark.parametrize("arguments", [["--version"], *([name, "--version"] for name in console.COMMANDS)])
def test_the_version_is_the_packages(arguments, capsys):
    assert console.main(arguments) == 0
    assert capsys.readouterr().out == f"bottlefit-jax {__version__}\n"


def test_a_version_with_a_value_is_a_flag_of_the_export(capsys):
    assert console.main(["export", "--version", "0", "--workdir=w", "--output=o"]) == 2
    assert "--version is 0" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "row"), console.COMMANDS.items(), ids=list(console.COMMANDS))
def test_a_row_repeats_what_its_module_says(name, row):
    (extra,) = [keyword.value for keyword in call_of(row.module, "command.run").keywords if keyword.arg == "extra"]
    assert ast.literal_eval(extra) == row.extra
    notes = [ast.literal_eval(argument) for argument in call_of(row.module, "interrupt.watch").args]
    assert notes == [row.note][: len(notes)]
    assert notes or not row.note


@pytest.mark.parametrize(("name", "row"), console.COMMANDS.items(), ids=list(console.COMMANDS))
def test_a_missing_package_is_the_same_line_as_of_the_module(name, row):
    module = row.module.removesuffix(".__main__")
    flags, extra = MODULES[module]
    ours, theirs = without_packages("bottlefit_jax", name, *flags), without_packages(module, *flags)
    assert (ours.returncode, ours.stdout, ours.stderr) == (2, "", theirs.stderr)
    assert f"[{extra}]'" in ours.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_by_the_line_of_its_module(signum):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "train"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n", process.communicate()
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    line = f"stopped by {signum.name}; the same command goes on from here\n"
    assert (process.returncode, err) == (128 + signum, line)


def test_the_package_declares_the_script():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert list(scripts) == ["bottlefit"]
    entry = importlib.metadata.EntryPoint("bottlefit", scripts["bottlefit"], "console_scripts")
    assert entry.load() is console.run


@pytest.mark.skipif(not SCRIPT.exists(), reason="the environment was installed before the package had a script")
def test_the_installed_script_is_this_command():
    done = subprocess.run([SCRIPT, "trian"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'train'" in done.stderr
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([SCRIPT, "--version"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"bottlefit-jax {__version__}\n")
