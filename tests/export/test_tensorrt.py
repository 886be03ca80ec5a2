import os
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

from export import tensorrt
from tests.bundle import example

ROOT = Path(__file__).parents[2]
TRTEXEC = """#!/bin/sh
[ "$1" = --help ] && echo "&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # trtexec --help" && exit 0
echo "$@" >> {log}
for argument in "$@"; do
    case "$argument" in --saveEngine=*) printf engine > "${{argument#--saveEngine=}}" ;; esac
done
{ending}
"""


class Recorded:
    """Stands for any object of TensorRT: remembers its calls and the attributes that it is given."""

    def __init__(self, log, name, **returns):
        self.__dict__.update(_log=log, _name=name, _returns=returns)

    def __getattr__(self, method):
        if method.startswith("_") or method not in self._returns:
            raise AttributeError(f"{self._name} of this version has no {method}")
        found = self._returns[method]
        if not callable(found):
            return found

        def call(*args):
            self._log.append((method, *args))
            return found(*args)

        return call

    def __setattr__(self, name, value):
        if name not in self._returns:
            raise AttributeError(f"{self._name} of this version has no {name}")
        self._log.append((name, value))


class ILogger:
    Severity = types.SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)


def fake_tensorrt(version, log, *, parses=True, plan=b"engine", starts=True):
    """The part of TensorRT's Python package that exists in `version`, and records what is called in `log`."""
    major = int(version.split(".")[0])
    profile = Recorded(log, "IOptimizationProfile", set_shape=lambda *_: None)
    config = {"add_optimization_profile": lambda _: 0, "set_flag": lambda _: None}
    config |= {"max_workspace_size": 0} if major < 10 else {"set_memory_pool_limit": lambda *_: None}
    network = Recorded(log, "INetworkDefinition", get_input=lambda _: types.SimpleNamespace(name="latent"))

    def make_builder(logger):
        if not starts:
            raise TypeError("pybind11::init(): factory function returned nullptr")

        def build(*_):
            logger.log(2, "a warning")
            if plan is None:
                logger.log(1, "no implementation\nfor Conv_0")
            return None if plan is None else memoryview(plan)

        return Recorded(
            log,
            "Builder",
            create_network=lambda *_: network,
            create_builder_config=lambda: Recorded(log, "IBuilderConfig", **config),
            create_optimization_profile=lambda: profile,
            build_serialized_network=build,
        )

    error = types.SimpleNamespace(desc=lambda: "Unsupported ONNX data type: UINT8 (2)")
    errors = {"num_errors": 0 if parses else 1, "get_error": lambda _: error}
    found = types.ModuleType("tensorrt")
    found.__version__ = version
    found.ILogger = ILogger
    found.Builder = make_builder
    found.OnnxParser = lambda *_: Recorded(log, "OnnxParser", parse=lambda data: parses, **errors)
    found.NetworkDefinitionCreationFlag = types.SimpleNamespace(**({"EXPLICIT_BATCH": 0} if major < 11 else {}))
    found.BuilderFlag = types.SimpleNamespace(**({"FP16": "FP16"} if major < 11 else {}))
    return found


@pytest.fixture
def bundle(tmp_path):
    return example.write(tmp_path / "digits")


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch, tmp_path):
    """No TensorRT and no trtexec, whatever this machine has; the working folder is empty."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(tensorrt, "JETPACK_TRTEXEC", str(tmp_path / "no-jetpack"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def install(monkeypatch, version, **options):
    log = []
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(version, log, **options))
    return log


def install_trtexec(monkeypatch, tmp_path, version, ending="exit 0"):
    """Puts a trtexec on PATH and returns the file that gets the arguments of each build."""
    folder, log = tmp_path / "bin", tmp_path / "log"
    folder.mkdir()
    (folder / "trtexec").write_text(TRTEXEC.format(version=version, log=shlex.quote(str(log)), ending=ending))
    (folder / "trtexec").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return log


def run(capsys, bundle, *flags):
    """Exit code, standard output, standard error."""
    code = tensorrt.main(["--bundle", str(bundle), *flags])
    return code, *capsys.readouterr()


def refusal(capsys, bundle, *flags):
    """The line of a refused command, which must leave nothing behind."""
    code, _, err = run(capsys, bundle, *flags)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not list(bundle.parent.glob("here/*.p*")) + list(bundle.parent.glob("here/.*"))
    return err


def test_where_nothing_is_installed_the_line_to_run_is_printed(bundle, capsys, tmp_path):
    code, out, err = run(capsys, bundle)
    assert (code, err) == (1, "")
    assert out.startswith("nothing was built: this machine has neither TensorRT's Python package nor trtexec\n")
    assert out.endswith(f"\n    trtexec --onnx={bundle}/head.onnx --saveEngine=head.plan --fp16\n")
    assert not list((tmp_path / "here").iterdir())


def test_the_line_for_the_tail_has_its_batches(bundle, capsys):
    code, out, _ = run(capsys, bundle, "--part", "tail", "--precision", "fp32", "--output", "a b.plan")
    assert code == 1
    assert "TensorRT 10 or newer" in out
    assert out.splitlines()[-1].strip() == (
        f"trtexec --onnx={bundle}/tail.onnx '--saveEngine=a b.plan' "
        "--minShapes=latent:1x5x6x3 --optShapes=latent:8x5x6x3 --maxShapes=latent:32x5x6x3"
    )


def test_tensorrt_8_2_builds_the_head(bundle, capsys, monkeypatch, tmp_path):
    log = install(monkeypatch, "8.2.1.8")
    assert run(capsys, bundle) == (0, "wrote head.plan with TensorRT 8.2.1.8\n", "")
    assert (tmp_path / "here" / "head.plan").read_bytes() == b"engine"
    assert [entry[0] for entry in log] == [
        "create_network",
        "parse",
        "create_builder_config",
        "max_workspace_size",
        "set_flag",
        "build_serialized_network",
    ]
    assert log[0] == ("create_network", 1)  # 1 << EXPLICIT_BATCH
    assert log[1] == ("parse", b"head")
    assert log[3] == ("max_workspace_size", 256 << 20)
    assert log[4] == ("set_flag", "FP16")


@pytest.mark.parametrize(
    ("version", "precision"), [("10.3.0", "fp16"), ("10.16.2.10", "fp32"), ("11.1.0", "fp32")], ids=" ".join
)
def test_tensorrt_10_and_11_build_the_tail_for_a_range_of_batches(bundle, capsys, monkeypatch, version, precision):
    log = install(monkeypatch, version)
    flags = ("--part", "tail", "--precision", precision, "--batch", "2,4,4", "--output", "t.plan")
    assert run(capsys, bundle, *flags)[0] == 0
    assert log[:2] == [("create_network", 0), ("parse", b"tail")]
    assert ("set_shape", "latent", (2, 5, 6, 3), (4, 5, 6, 3), (4, 5, 6, 3)) in log
    assert "add_optimization_profile" in [entry[0] for entry in log]
    assert (("set_flag", "FP16") in log) is (precision == "fp16")


def test_tensorrt_8_says_why_it_cannot_build_the_tail(bundle, capsys, monkeypatch, tmp_path):
    told = "error: this is TensorRT 8.6; the tail takes uint8 latents, which needs 10 or newer\n"
    log = install(monkeypatch, "8.6.1")
    assert refusal(capsys, bundle, "--part", "tail") == told
    assert log == []
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    log = install_trtexec(monkeypatch, tmp_path, "8601")
    assert refusal(capsys, bundle, "--part", "tail") == told
    assert not log.exists()


def test_tensorrt_11_says_that_it_has_no_fp16(bundle, capsys, monkeypatch, tmp_path):
    install(monkeypatch, "11.1.0")
    assert "this is TensorRT 11.1, which takes the precision from the graph: --precision fp32" in refusal(
        capsys, bundle
    )
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    install_trtexec(monkeypatch, tmp_path, "11.1.0.106")
    assert "this is TensorRT 11.1, which takes the precision from the graph: --precision fp32" in refusal(
        capsys, bundle
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"parses": False}, "TensorRT 8.2.1 cannot read {}/head.onnx: Unsupported ONNX data type: UINT8 (2)"),
        ({"plan": None}, "TensorRT 8.2.1 cannot build {}/head.onnx: no implementation for Conv_0"),
        ({"starts": False}, "TensorRT 8.2.1 does not start here: pybind11::init(): factory function returned nullptr"),
    ],
    ids=["parser", "builder", "no device"],
)
def test_what_tensorrt_refuses_is_one_line(bundle, capsys, monkeypatch, options, told):
    install(monkeypatch, "8.2.1", **options)
    assert refusal(capsys, bundle) == f"error: {told.format(bundle)}\n"


@pytest.mark.parametrize(("version", "more"), [("8201", " --workspace=256"), ("8503", ""), ("101600", "")])
def test_trtexec_builds_where_there_is_no_python_package(bundle, capsys, monkeypatch, tmp_path, version, more):
    log = install_trtexec(monkeypatch, tmp_path, version)
    code, out, _ = run(capsys, bundle)
    assert code == 0
    assert out.endswith(f"wrote head.plan with {tmp_path}/bin/trtexec\n")
    assert (tmp_path / "here" / "head.plan").read_bytes() == b"engine"
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["head.plan"]
    onnx, engine, *flags = log.read_text().split()
    assert onnx == f"--onnx={bundle}/head.onnx"
    assert engine.startswith("--saveEngine=.head.plan.")
    assert flags == ["--fp16", *more.split()]


def test_trtexec_is_found_where_jetpack_puts_it(bundle, capsys, monkeypatch, tmp_path):
    install_trtexec(monkeypatch, tmp_path, "8201")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(tensorrt, "JETPACK_TRTEXEC", str(tmp_path / "bin" / "trtexec"))
    assert run(capsys, bundle)[0] == 0


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ('echo "[01/02/2026-03:04:05] [E] [TRT] UINT8 is not supported" >&2; exit 1', "[TRT] UINT8 is not supported"),
        ("exit 9", "exit code 9"),
    ],
)
def test_what_trtexec_refuses_is_one_line_and_leaves_no_engine(bundle, capsys, monkeypatch, tmp_path, ending, told):
    install_trtexec(monkeypatch, tmp_path, "8201", ending)
    assert refusal(capsys, bundle).endswith(f"trtexec cannot build {bundle}/head.onnx: {told}\n")


def test_a_trtexec_that_cannot_run_is_one_line(bundle, capsys, monkeypatch, tmp_path):
    install_trtexec(monkeypatch, tmp_path, "8201")
    (tmp_path / "bin" / "trtexec").write_text("no program")
    assert "cannot run" in refusal(capsys, bundle)


def test_an_engine_is_replaced_only_if_asked(bundle, capsys, monkeypatch, tmp_path):
    install(monkeypatch, "10.3.0")
    (tmp_path / "here" / "head.plan").write_bytes(b"old")
    code, _, err = run(capsys, bundle)
    assert (code, err) == (2, "error: head.plan exists: give another --output, or --overwrite to replace it\n")
    assert (tmp_path / "here" / "head.plan").read_bytes() == b"old"
    assert run(capsys, bundle, "--overwrite")[0] == 0
    assert (tmp_path / "here" / "head.plan").read_bytes() == b"engine"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--part", "middle"), "invalid choice: 'middle'"),
        (("--batch", "1,2,3"), "--batch goes with --part tail"),
        (("--part", "tail", "--batch", "4,2,8"), "'4,2,8' is not MIN,OPT,MAX, as 1,8,32"),
        (("--part", "tail", "--batch", "0,1,2"), "'0,1,2' is not MIN,OPT,MAX"),
        (("--part", "tail", "--batch", "1,8"), "'1,8' is not MIN,OPT,MAX"),
        (("--part", "tail", "--batch", "1,b,8"), "'1,b,8' is not MIN,OPT,MAX"),
        (("--precision", "int8"), "invalid choice: 'int8'"),
        (("--output", "."), ". is a folder; --output is a file"),
        (("--output", "none/head.plan"), "cannot write none/head.plan: no folder none"),
        (("--out", "head.plan"), "unrecognized arguments"),
    ],
)
def test_flags_that_cannot_be_are_one_line(bundle, capsys, flags, told):
    assert told in refusal(capsys, bundle, *flags)


def test_a_damaged_bundle_is_refused(bundle, capsys):
    (bundle / "head.onnx").write_bytes(b"hand")
    assert "head.onnx was changed or damaged" in refusal(capsys, bundle)
    (bundle / "manifest.json").unlink()
    assert "is not a bundle" in refusal(capsys, bundle)


def test_the_command_needs_no_jax_and_finds_tensorrt_rather_than_itself(bundle, tmp_path):
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
