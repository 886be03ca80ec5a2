"""Which hardware ONNX Runtime computes on. There is no GPU here: a stand-in has other providers."""

import sys
import types

import pytest

from bottlefit_jax import onnx_session
from bottlefit_jax.errors import UserError

TENSORRT, CUDA, CPU = onnx_session.PROVIDERS.values()


@pytest.fixture
def runtime(monkeypatch, tmp_path):
    """An ONNX Runtime that has three providers, of which those in `works` work here; it notes what it was given."""
    made = types.SimpleNamespace(installed=[TENSORRT, CUDA, CPU], works=[TENSORRT, CUDA, CPU], given=None)

    class Options:
        def add_session_config_entry(self, key, value):
            pass

    class Session:
        def __init__(self, path, options, providers):
            made.given = providers
            names = [each if isinstance(each, str) else each[0] for each in providers]
            self._used = [name for name in names if name in made.works]

        def get_providers(self):
            return self._used

    module = types.ModuleType("onnxruntime")
    module.SessionOptions, module.InferenceSession = Options, Session
    module.get_available_providers = lambda: made.installed
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    monkeypatch.setattr(onnx_session, "ENGINES", str(tmp_path / "engines"))
    return made


def opened(*providers):
    return onnx_session.providers_of(onnx_session.open_session("a.onnx", threads=1, providers=providers))


def test_the_fastest_that_is_installed_comes_first(runtime, tmp_path):
    assert opened() == ("tensorrt", "cuda", "cpu")
    name, options = runtime.given[0]
    assert name == TENSORRT
    assert options == {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(tmp_path / "engines")}
    assert (tmp_path / "engines").is_dir()
    runtime.installed = [CPU, "AzureExecutionProvider"]
    assert opened() == ("cpu",)


def test_those_that_are_named_are_used_and_the_cpu_for_the_rest(runtime):
    assert opened("cuda") == ("cuda", "cpu")
    assert runtime.given == [CUDA, CPU]
    assert opened("cpu") == ("cpu",)


def test_what_is_installed_and_does_not_work_is_an_error_only_where_it_was_named(runtime):
    runtime.works = [CPU]
    assert opened() == ("cpu",)
    with pytest.raises(UserError, match=r"cannot use cuda on this machine: its libraries or its GPU are missing"):
        opened("cuda")


def test_what_is_not_installed_is_an_error_that_names_what_is(runtime):
    runtime.installed = [CPU]
    with pytest.raises(UserError, match="has no provider tensorrt, only cpu: onnxruntime-gpu has the others"):
        opened("tensorrt", "cpu")


@pytest.mark.parametrize(("wrong", "shown"), [(("gpu",), "'gpu'"), (("cpu", "cpu"), "cpu,cpu, one of them twice")])
def test_other_names_are_refused(wrong, shown):
    with pytest.raises(UserError, match=f"--providers is {shown}; give some of tensorrt, cuda, cpu"):
        onnx_session.check_providers(wrong, "--providers")


def test_without_onnxruntime_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnxruntime"):
        onnx_session.open_session("a.onnx", threads=1)
