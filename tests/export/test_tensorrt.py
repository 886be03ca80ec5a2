"""The command `python -m export.tensorrt`: its flags, exit codes and output."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bottlefit_jax.errors import UserError
from export import EngineOptions, NotBuiltError, tensorrt
from tests.bundle import example

ROOT = Path(__file__).parents[2]


def test_flags_become_options():
    assert tensorrt.parse(["--bundle", "b"]) == EngineOptions(Path("b"))
    flags = "--bundle b --part tail --output x.plan --precision fp32 --batch 1,2,3 --overwrite"
    assert tensorrt.parse(flags.split()) == EngineOptions(
        Path("b"), part="tail", output=Path("x.plan"), precision="fp32", batch=(1, 2, 3), overwrite=True
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--part", "middle"), "invalid choice: 'middle'"),
        (("--precision", "int8"), "invalid choice: 'int8'"),
        (("--batch", "1,2,3"), "--batch goes with --part tail"),
        (("--part", "tail", "--batch", "4,2,8"), "--batch is 4,2,8; it must be MIN,OPT,MAX from 1 up"),
        (("--part", "tail", "--batch", "1,8"), "'1,8' is not MIN,OPT,MAX, as 1,8,32"),
        (("--part", "tail", "--batch", "1,b,8"), "'1,b,8' is not MIN,OPT,MAX"),
        (("--out", "head.plan"), "unrecognized arguments"),
    ],
)
def test_an_invalid_flag_is_one_line_and_exit_code_2(tmp_path, capsys, flags, message):
    assert tensorrt.main(["--bundle", str(tmp_path), *flags]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert message in err


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("wrote head.plan", (0, "wrote head.plan\n", "")),
        (NotBuiltError("nothing was built\nrun this"), (1, "nothing was built\nrun this\n", "")),
        (
            UserError("no implementation\nfor Conv_0"),
            (2, "", "error: no implementation for Conv_0\n"),
        ),
    ],
    ids=["built", "no TensorRT", "refused"],
)
def test_each_outcome_has_its_exit_code(monkeypatch, capsys, outcome, expected):
    def build_engine(options):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(tensorrt, "build_engine", build_engine)
    assert (tensorrt.main(["--bundle", "b"]), *capsys.readouterr()) == expected


def test_the_command_needs_no_jax_and_finds_tensorrt_rather_than_itself(tmp_path):
    bundle = example.write(tmp_path / "digits")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tensorrt.py").write_text('__version__ = "8.6.1"')
    code = (
        "import sys, runpy; sys.modules.update(dict.fromkeys(('jax', 'flax', 'numpy', 'onnx')))\n"
        f"sys.argv = ['tensorrt', '--part', 'tail', '--bundle', {str(bundle)!r}, '--output', {str(tmp_path / 'p')!r}]\n"
        "runpy.run_module('export.tensorrt', run_name='__main__')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: this is TensorRT 8.6;")
