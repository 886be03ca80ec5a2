"""Which runtime runs a head: the one that was asked for, or the first for which there is a package and a file."""

import importlib.util
import shutil

import pytest

from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.edge import runtimes
from bottlefit_jax.edge.client import EdgeClient
from bottlefit_jax.errors import UserError


def manifest_of(bundle):
    return read_bundle(bundle, verify=lambda manifest: []).manifest


@pytest.fixture
def installed(monkeypatch):
    """Let only some packages be installed."""

    def only(*packages):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in packages else None)

    return only


def test_litert_comes_first(bundle, installed):
    installed("ai_edge_litert", "onnxruntime")
    assert runtimes.choose("auto", manifest_of(bundle), bundle) == "litert"


def test_tensorrt_comes_before_it_where_there_is_all_that_it_needs(bundle, installed):
    installed("ai_edge_litert", "tensorrt")
    assert runtimes.choose("auto", manifest_of(bundle), bundle) == "litert"
    installed("ai_edge_litert", "tensorrt", "pycuda")
    assert runtimes.choose("auto", manifest_of(bundle), bundle) == "tensorrt"


def test_without_litert_or_its_file_the_next_one_runs(bundle, tmp_path, installed):
    installed("onnxruntime")
    assert runtimes.choose("auto", manifest_of(bundle), bundle) == "onnxruntime"
    installed("tflite_runtime", "onnxruntime")
    assert runtimes.choose("auto", manifest_of(bundle), bundle) == "litert"
    for name in ("manifest.json", "head.onnx"):
        shutil.copy(bundle / name, tmp_path / name)
    assert runtimes.choose("auto", manifest_of(tmp_path), tmp_path) == "onnxruntime"


def test_a_runtime_that_is_named_is_not_replaced(bundle, installed):
    installed("ai_edge_litert")
    with pytest.raises(UserError, match="onnxruntime is not installed: pip install onnxruntime"):
        runtimes.choose("onnxruntime", manifest_of(bundle), bundle)
    with pytest.raises(UserError, match="runtime is 'torch'; it must be one of auto, tensorrt, litert, onnxruntime"):
        runtimes.choose("torch", manifest_of(bundle), bundle)


def test_where_nothing_is_installed_the_error_says_what_to_install(bundle, installed):
    installed()
    with pytest.raises(UserError, match=r"nothing on this machine runs the bundle's head: pip install 'bottlefit"):
        EdgeClient(bundle, "localhost:1")


def test_providers_belong_to_onnxruntime(bundle):
    with pytest.raises(UserError, match="providers belong to onnxruntime; the runtime is litert"):
        EdgeClient(bundle, "localhost:1", runtime="litert", providers=("cpu",))
