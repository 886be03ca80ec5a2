"""The command `python -m export.bundle`: its flags, exit codes and output."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bottlefit_jax.bundle import read_bundle
from export import ExportOptions, bundle
from tests.test_main import ROOT

MISTAKES = [
    (["--workdir", "nowhere"], "no run at nowhere"),
    (["--workdir", "."], r"\. holds no run: --workdir is that of"),
    (["--head", "int4"], "invalid choice: 'int4'"),
    (["--calibration", "0"], "--calibration is 0; it must be at least 1 training images"),
    (["--version", "-1"], "--version is -1; it must be at least 1"),
    (["--output", "README.md"], "README.md exists: give another --output, or --overwrite"),
    (["--output", "docs", "--overwrite"], "docs is not a bundle, so --overwrite does not remove it"),
    (["--output", "README.md/x"], "cannot write .*: Not a directory"),
    (["--verbose"], "unrecognized arguments: --verbose"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(workdir, tmp_path, capsys, arguments, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    code = bundle.main(["--workdir", str(workdir), "--output", str(tmp_path / "x"), *arguments])  # the last one counts
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"error: .*{message}.*\n", err), err
    assert list(tmp_path.iterdir()) == []


def test_flags_become_options():
    required = ["--workdir", "run", "--output", "out"]
    assert bundle.parse(required) == ExportOptions(Path("run"), Path("out"))
    flags = "--head float16 --local --triton models --data images --calibration 3 --images 4 --name a --version 5"
    assert bundle.parse([*required, *flags.split(), "--overwrite"]) == ExportOptions(
        workdir=Path("run"),
        output=Path("out"),
        head="float16",
        local=True,
        triton=Path("models"),
        data=Path("images"),
        calibration=3,
        images=4,
        name="a",
        version=5,
        overwrite=True,
    )


def test_the_result_is_printed(workdir, tmp_path, capsys):
    output, triton = tmp_path / "digits", tmp_path / "models"
    flags = ("--head", "float32", "--images", 10, "--calibration", 10, "--triton", triton)
    arguments = ("--workdir", workdir, "--output", output, *flags)
    assert bundle.main(list(map(str, arguments))) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "head.tflite" in out
    assert out.endswith(f"bundle: {output}\nTriton model repository: {triton}\n")
    assert read_bundle(output).manifest.name == "digits"
    assert (triton / "digits" / "1" / "model.onnx").exists()


@pytest.mark.slow
def test_the_readme_makes_an_int8_bundle_of_the_demo(demo, tmp_path):
    command = [
        sys.executable,
        "-m",
        "export.bundle",
        "--workdir",
        demo(whole=True).workdir,
        "--output",
        tmp_path / "bundle",
    ]
    flags = ["--head", "int8", "--triton", tmp_path / "triton"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    parity = json.loads((tmp_path / "bundle" / "parity.json").read_text())
    assert parity["flax"]["top1"] - parity["raw"]["top1"] <= 0.5
    assert parity["flax_float"]["top1"] - parity["bundle"]["top1"] <= 0.6
    assert "head.tflite" in done.stdout
    assert (tmp_path / "triton" / "bundle" / "config.pbtxt").exists()
