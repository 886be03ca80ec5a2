"""Engines, built with fakes of TensorRT's Python package and of trtexec that record what is called."""

import shlex
import sys
import types
from pathlib import Path

import pytest

from bottlefit_jax.errors import UserError
from export import EngineOptions, NotBuiltError, build_engine, engine
from tests.bundle import example

TRTEXEC = """#!/bin/sh
[ "$1" = --help ] && echo "&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # trtexec --help" && exit 0
echo "$@" >> {log}
for argument in "$@"; do
    case "$argument" in --saveEngine=*) printf engine > "${{argument#--saveEngine=}}" ;; esac
done
{ending}
"""


class Recorded:
    """A fake of any object of TensorRT: records its calls and the attributes that are set."""

    def __init__(self, log, name, **returns):
        self.__dict__.update(_log=log, _name=name, _returns=returns)

    def __getattr__(self, method):
        if method.startswith("_") or method not in self._returns:
            raise AttributeError(f"{self._name} of this version has no {method}")
        result = self._returns[method]
        if not callable(result):
            return result

        def call(*args):
            self._log.append((method, *args))
            return result(*args)

        return call

    def __setattr__(self, name, value):
        if name not in self._returns:
            raise AttributeError(f"{self._name} of this version has no {name}")
        self._log.append((name, value))


class ILogger:
    Severity = types.SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)


def fake_tensorrt(version, log, *, parses=True, plan=b"engine", starts=True):
    """The part of TensorRT's Python package that exists in `version`; it records its calls in `log`."""
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
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    module.ILogger = ILogger
    module.Builder = make_builder
    module.OnnxParser = lambda *_: Recorded(log, "OnnxParser", parse=lambda data: parses, **errors)
    module.NetworkDefinitionCreationFlag = types.SimpleNamespace(**({"EXPLICIT_BATCH": 0} if major < 11 else {}))
    module.BuilderFlag = types.SimpleNamespace(**({"FP16": "FP16"} if major < 11 else {}))
    return module


@pytest.fixture
def bundle(tmp_path):
    return example.write(tmp_path / "digits")


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch, tmp_path):
    """No TensorRT and no trtexec, whatever this machine has; the working folder is empty."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(engine, "JETPACK_TRTEXEC", str(tmp_path / "no-jetpack"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def install(monkeypatch, version, **options):
    log = []
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(version, log, **options))
    return log


def install_trtexec(monkeypatch, tmp_path, version, ending="exit 0"):
    """Put a trtexec on PATH; return the file that gets the arguments of each build."""
    folder, log = tmp_path / "bin", tmp_path / "log"
    folder.mkdir()
    (folder / "trtexec").write_text(TRTEXEC.format(version=version, log=shlex.quote(str(log)), ending=ending))
    (folder / "trtexec").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return log


def build(bundle, **options):
    return build_engine(EngineOptions(bundle, **options))


def refusal(bundle, **options):
    """The message of a refused build, which must leave nothing behind."""
    with pytest.raises(UserError) as caught:
        build(bundle, **options)
    assert not list(bundle.parent.glob("here/*.p*")) + list(bundle.parent.glob("here/.*"))
    return str(caught.value)


def test_without_tensorrt_the_error_has_the_line_to_run(bundle, tmp_path):
    with pytest.raises(NotBuiltError) as caught:
        build(bundle)
    message = str(caught.value)
    assert message.startswith("nothing was built: this machine has neither TensorRT's Python package nor trtexec\n")
    assert message.endswith(f"\n    trtexec --onnx={bundle}/head.onnx --saveEngine=head.plan --fp16")
    assert not list((tmp_path / "here").iterdir())


def test_the_line_for_the_tail_has_its_batches(bundle):
    with pytest.raises(NotBuiltError, match="TensorRT 10 or newer") as caught:
        build(bundle, part="tail", precision="fp32", output=Path("a b.plan"))
    assert str(caught.value).splitlines()[-1].strip() == (
        f"trtexec --onnx={bundle}/tail.onnx '--saveEngine=a b.plan' "
        "--minShapes=latent:1x5x6x3 --optShapes=latent:8x5x6x3 --maxShapes=latent:32x5x6x3"
    )


def test_tensorrt_8_2_builds_the_head(bundle, monkeypatch, tmp_path):
    log = install(monkeypatch, "8.2.1.8")
    assert build(bundle) == "wrote head.plan with TensorRT 8.2.1.8"
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
def test_tensorrt_10_and_11_build_the_tail_for_a_range_of_batches(bundle, monkeypatch, version, precision):
    log = install(monkeypatch, version)
    build(bundle, part="tail", precision=precision, batch=(2, 4, 4), output=Path("t.plan"))
    assert log[:2] == [("create_network", 0), ("parse", b"tail")]
    assert ("set_shape", "latent", (2, 5, 6, 3), (4, 5, 6, 3), (4, 5, 6, 3)) in log
    assert "add_optimization_profile" in [entry[0] for entry in log]
    assert (("set_flag", "FP16") in log) is (precision == "fp16")


def test_tensorrt_8_refuses_the_tail_and_says_why(bundle, monkeypatch, tmp_path):
    message = "this is TensorRT 8.6; the tail takes uint8 latents, which needs 10 or newer"
    log = install(monkeypatch, "8.6.1")
    assert refusal(bundle, part="tail") == message
    assert log == []
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    log = install_trtexec(monkeypatch, tmp_path, "8601")
    assert refusal(bundle, part="tail") == message
    assert not log.exists()


def test_tensorrt_11_refuses_fp16(bundle, monkeypatch, tmp_path):
    message = "this is TensorRT 11.1, which takes the precision from the graph: --precision fp32 builds it"
    install(monkeypatch, "11.1.0")
    assert refusal(bundle) == message
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    install_trtexec(monkeypatch, tmp_path, "11.1.0.106")
    assert refusal(bundle) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parses": False}, "TensorRT 8.2.1 cannot read {}/head.onnx: Unsupported ONNX data type: UINT8 (2)"),
        ({"plan": None}, "TensorRT 8.2.1 cannot build {}/head.onnx: no implementation\nfor Conv_0"),
        ({"starts": False}, "TensorRT 8.2.1 does not start here: pybind11::init(): factory function returned nullptr"),
    ],
    ids=["parser", "builder", "no device"],
)
def test_an_error_of_tensorrt_is_reported(bundle, monkeypatch, options, message):
    install(monkeypatch, "8.2.1", **options)
    assert refusal(bundle) == message.format(bundle)


@pytest.mark.parametrize(("version", "more"), [("8201", " --workspace=256"), ("8503", ""), ("101600", "")])
def test_trtexec_builds_if_there_is_no_python_package(bundle, monkeypatch, tmp_path, version, more):
    log = install_trtexec(monkeypatch, tmp_path, version)
    assert build(bundle) == f"wrote head.plan with {tmp_path}/bin/trtexec"
    assert (tmp_path / "here" / "head.plan").read_bytes() == b"engine"
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["head.plan"]
    onnx, plan, *flags = log.read_text().split()
    assert onnx == f"--onnx={bundle}/head.onnx"
    assert plan.startswith("--saveEngine=.head.plan.")
    assert flags == ["--fp16", *more.split()]


def test_trtexec_is_found_where_jetpack_puts_it(bundle, monkeypatch, tmp_path):
    install_trtexec(monkeypatch, tmp_path, "8201")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(engine, "JETPACK_TRTEXEC", str(tmp_path / "bin" / "trtexec"))
    assert build(bundle) == f"wrote head.plan with {tmp_path}/bin/trtexec"


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ('echo "[01/02/2026-03:04:05] [E] [TRT] UINT8 is not supported" >&2; exit 1', "[TRT] UINT8 is not supported"),
        ("exit 9", "exit code 9"),
    ],
)
def test_an_error_of_trtexec_is_reported_and_leaves_no_engine(bundle, monkeypatch, tmp_path, ending, message):
    install_trtexec(monkeypatch, tmp_path, "8201", ending)
    assert refusal(bundle).endswith(f"trtexec cannot build {bundle}/head.onnx: {message}")


def test_a_trtexec_that_cannot_run_is_reported(bundle, monkeypatch, tmp_path):
    install_trtexec(monkeypatch, tmp_path, "8201")
    (tmp_path / "bin" / "trtexec").write_text("no program")
    assert "cannot run" in refusal(bundle)


def test_an_engine_is_replaced_only_on_request(bundle, monkeypatch, tmp_path):
    install(monkeypatch, "10.3.0")
    plan = tmp_path / "here" / "head.plan"
    plan.write_bytes(b"old")
    with pytest.raises(UserError, match=r"^head\.plan exists: give another --output, or --overwrite to replace it$"):
        build(bundle)
    assert plan.read_bytes() == b"old"
    build(bundle, overwrite=True)
    assert plan.read_bytes() == b"engine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "middle"}, "--part is 'middle'; it must be head or tail"),
        ({"precision": "int8"}, "--precision is 'int8'; it must be fp16 or fp32"),
        ({"batch": (1, 2, 3)}, "--batch goes with --part tail"),
        ({"part": "tail", "batch": (4, 2, 8)}, "--batch is 4,2,8; it must be MIN,OPT,MAX from 1 up, as 1,8,32"),
        ({"part": "tail", "batch": (0, 1, 2)}, "--batch is 0,1,2; it must be MIN,OPT,MAX from 1 up"),
        ({"part": "tail", "batch": (1, 8)}, "--batch is 1,8; it must be MIN,OPT,MAX from 1 up"),
        ({"output": Path()}, ". is a folder; --output is a file"),
        ({"output": Path("none/head.plan")}, "cannot write none/head.plan: no folder none"),
    ],
)
def test_an_invalid_option_is_refused(bundle, options, message):
    assert message in refusal(bundle, **options)


def test_a_damaged_bundle_is_refused(bundle):
    (bundle / "head.onnx").write_bytes(b"hand")
    assert "head.onnx was changed or damaged" in refusal(bundle)
    (bundle / "manifest.json").unlink()
    assert "is not a bundle" in refusal(bundle)
