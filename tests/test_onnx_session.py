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
    made = types.SimpleNamespace(
        installed=[TENSORRT, CUDA, CPU], works=[TENSORRT, CUDA, CPU], raises=[], given=None, severities=[], preloaded=0
    )

    class Options:
        def add_session_config_entry(self, key, value):
            pass

    class Session:
        def __init__(self, path, options, providers, enable_fallback):
            made.given = providers
            names = [each if isinstance(each, str) else each[0] for each in providers]
            print("EP Error")  # as the real one does
            if names[0] in made.raises:
                raise RuntimeError(f"no library of {names[0]}")
            self._used = [name for name in names if name in made.works]

        def get_providers(self):
            return self._used

    module = types.ModuleType("onnxruntime")
    module.SessionOptions, module.InferenceSession = Options, Session
    module.get_available_providers = lambda: made.installed
    module.set_default_logger_severity = made.severities.append

    def preload_dlls():
        made.preloaded += 1
        print("Failed to load libcublas")

    module.preload_dlls = preload_dlls
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return made


def opened(*providers):
    return onnx_session.providers_of(onnx_session.open_session("a.onnx", threads=1, providers=providers))


def test_the_fastest_that_is_installed_comes_first(runtime, tmp_path):
    assert opened() == ("tensorrt", "cuda", "cpu")
    name, options = runtime.given[0]
    assert name == TENSORRT
    folder = tmp_path / "bottlefit-jax" / "onnxruntime"
    assert options == {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
    assert folder.is_dir()
    runtime.installed = [CPU, "AzureExecutionProvider"]
    assert opened() == ("cpu",)


def test_where_nothing_can_be_kept_tensorrt_is_used_all_the_same(runtime, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert opened("tensorrt") == ("tensorrt", "cpu")
    assert runtime.given == [TENSORRT, CPU]


def test_those_that_are_named_are_used_and_the_cpu_for_the_rest(runtime):
    assert opened("cuda") == ("cuda", "cpu")
    assert runtime.given == [CUDA, CPU]
    assert opened("cpu") == ("cpu",)


def test_what_is_installed_and_does_not_work_is_an_error_only_where_it_was_named(runtime):
    runtime.works = [CPU]
    assert opened() == ("cpu",)
    with pytest.raises(UserError, match=r"cannot use cuda on this machine: its libraries or its GPU are missing"):
        opened("cuda")


def test_a_provider_without_its_libraries_is_left_out_and_nothing_is_printed(runtime, capfd):
    runtime.raises = [TENSORRT]
    assert opened() == ("cuda", "cpu")
    assert runtime.severities == [4, 2]
    assert runtime.preloaded == 1
    assert capfd.readouterr() == ("", "")
    with pytest.raises(UserError, match="cannot use tensorrt on this machine"):
        opened("tensorrt")
    assert runtime.severities == [4, 2]  # its own log says which library it is
    runtime.raises = [TENSORRT, CUDA, CPU]
    with pytest.raises(UserError, match=r"a.onnx cannot be loaded: no library of CPU"):
        opened()


def test_a_gpu_that_is_not_used_is_said_where_nothing_was_named(runtime, caplog):
    runtime.works = [CPU]
    assert opened() == ("cpu",)
    assert "has the provider cuda and cannot use it here: the CPU computes" in caplog.text
    caplog.clear()
    assert opened("cpu") == ("cpu",)
    runtime.works = [CUDA, CPU]
    assert opened() == ("cuda", "cpu")
    assert not caplog.text


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
