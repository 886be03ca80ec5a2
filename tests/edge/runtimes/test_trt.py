"""TensorRT, by a stand-in that checks every call: there is none here. It computes what the example's head computes."""

import ctypes
import enum
import sys
import types

import numpy as np
import pytest

from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.edge import runtimes
from bottlefit_jax.edge.runtimes import trt
from bottlefit_jax.edge.runtimes.litert import Interpreter
from bottlefit_jax.edge.runtimes.trt import TensorrtHead
from bottlefit_jax.errors import UserError
from tests.edge.conftest import LATENT, SIZE

SHAPES = {"image": (1, SIZE, SIZE, 3), "latent": (1, *LATENT)}


class Gpu:
    """Memory in which addresses are those of this process, and a list of what was asked of the stream."""

    HANDLE = 77

    def __init__(self):
        self.buffers, self.waiting, self.copied = {}, [], []

    def allocate(self, count):
        buffer = ctypes.create_string_buffer(count)
        self.buffers[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def holds(self, address, count):
        return address in self.buffers and len(self.buffers[address]) == count

    def copy(self, to, source, count):
        """Copy later, when the stream is waited for, as a real stream may."""
        assert self.holds(to, count) or self.holds(source, count), "an address that was not allocated with this size"
        self.waiting.append(lambda: ctypes.memmove(to, source, count))

    def wait(self):
        for work in self.waiting:
            work()
        self.waiting = []


Code = enum.IntEnum("Code", {"cudaSuccess": 0, "cudaErrorNoDevice": 100})


def cuda_python(gpu, error=Code.cudaSuccess):
    """The functions of cuda-python that are used; each returns a code and what it made."""
    kinds = types.SimpleNamespace(cudaMemcpyHostToDevice="in", cudaMemcpyDeviceToHost="out")

    class Stream(int):
        pass

    stream = Stream(Gpu.HANDLE)

    def copy(to, source, count, kind, given):
        assert given is stream
        assert gpu.holds(to if kind == "in" else source, count)
        gpu.copy(to, source, count)
        return (Code.cudaSuccess,)

    module = types.ModuleType("cuda.bindings.runtime")
    module.cudaMemcpyKind = kinds
    module.cudaGetDeviceProperties = lambda device: (error, types.SimpleNamespace(name=b"Orin (nvgpu)\0\0\0"))
    module.cudaStreamCreate = lambda: (error, stream)
    module.cudaMalloc = lambda count: (error, gpu.allocate(count))
    module.cudaMemcpyAsync = copy
    module.cudaStreamSynchronize = lambda given: (gpu.wait(), (Code.cudaSuccess,))[1]
    return module


def pycuda(gpu):
    """The driver of pycuda, which refuses calls from outside its context."""
    depth = [0]

    def inside(function):
        def call(*arguments):
            assert depth[0] == 1, "outside the context"
            return function(*arguments)

        return call

    def push(by):
        depth[0] += by

    context = types.SimpleNamespace(push=lambda: push(1), pop=lambda: push(-1))
    stream = types.SimpleNamespace(handle=Gpu.HANDLE, synchronize=inside(gpu.wait))
    module = types.ModuleType("pycuda.driver")
    module.init = lambda: None
    module.Device = lambda number: types.SimpleNamespace(name=lambda: "Orin", retain_primary_context=lambda: context)
    module.Stream = inside(lambda: stream)
    module.mem_alloc = inside(gpu.allocate)
    module.memcpy_htod_async = inside(lambda to, array, given: gpu.copy(to, array.ctypes.data, array.nbytes))
    module.memcpy_dtoh_async = inside(lambda array, source, given: gpu.copy(array.ctypes.data, source, array.nbytes))
    return module


def tensorrt(gpu, version="10.3.0", plans=(b"engine",)):
    """The part of TensorRT that runs engines; only those in `plans` can be loaded."""

    class ILogger:
        Severity = types.SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    class Context:
        def __init__(self):
            self.addresses = {}

        def set_tensor_address(self, name, address):
            assert gpu.holds(address, 4 * int(np.prod(SHAPES[name])))
            self.addresses[name] = address

        def execute_async_v3(self, stream):
            assert stream == Gpu.HANDLE
            assert sorted(self.addresses) == sorted(SHAPES)

            def compute():
                image = np.frombuffer(gpu.buffers[self.addresses["image"]], np.float32).reshape(SHAPES["image"])
                latent = np.ascontiguousarray(image[:, 1:30, 2:31] / 16 - 8, np.float32)
                ctypes.memmove(self.addresses["latent"], latent.ctypes.data, latent.nbytes)

            gpu.waiting.append(compute)
            return True

    class Engine:
        num_io_tensors = 2

        def get_tensor_name(self, index):
            return ("latent", "image")[index]  # no order is promised

        def get_tensor_mode(self, name):
            return "input" if name == "image" else "output"

        def get_tensor_shape(self, name):
            return SHAPES[name]

        def get_tensor_dtype(self, name):
            return "float"

        def create_execution_context(self):
            return Context()

    class Runtime:
        def __init__(self, logger):
            self._logger = logger

        def deserialize_cuda_engine(self, data):
            if data in plans:
                return Engine()
            self._logger.log(ILogger.Severity.ERROR, "version tag does not match")
            return None

    module = types.ModuleType("tensorrt")
    module.__version__, module.ILogger, module.Runtime = version, ILogger, Runtime
    module.TensorIOMode = types.SimpleNamespace(INPUT="input", OUTPUT="output")
    module.DataType = types.SimpleNamespace(FLOAT="float", UINT8="uint8")
    return module


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU with TensorRT 10.3 and cuda-python; building an engine is noted in `built`."""
    made = Gpu()
    made.built = []

    def build(module, job):
        made.built.append((job.onnx.name, job.part, job.precision))
        return b"engine"

    monkeypatch.setattr(trt, "build_with_package", build)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt(made))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda_python(made))
    for name in ("cuda.cudart", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    return made


@pytest.mark.parametrize("package", ["cuda-python", "cuda-python of old", "pycuda"])
def test_its_latents_are_those_of_litert(gpu, bundle, monkeypatch, package):
    if package != "cuda-python":
        other = {"pycuda": ("pycuda.driver", pycuda)}.get(package, ("cuda.cudart", cuda_python))
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
        monkeypatch.setitem(sys.modules, other[0], other[1](gpu))
    head, litert = runtimes.open_head("tensorrt", read_bundle(bundle), threads=1), Interpreter(bundle / "head.tflite")
    images = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    latents = [head.run(image) for image in images]  # none of them changes with the next run
    for image, latent in zip(images, latents, strict=True):
        np.testing.assert_allclose(latent, litert.run(image), atol=1e-5)


def test_an_engine_is_built_once_for_each_graph_gpu_and_version(gpu, bundle, tmp_path, monkeypatch, caplog):
    TensorrtHead(bundle / "head.onnx")
    assert gpu.built == [("head.onnx", "head", "fp16")]
    assert "building a TensorRT engine" in caplog.text
    (plan,) = (tmp_path / "bottlefit-jax" / "engines").iterdir()
    assert plan.name.endswith("-tensorrt-10.3.0-orin-nvgpu-fp16.plan")
    TensorrtHead(bundle / "head.onnx")
    assert len(gpu.built) == 1
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt(gpu, "11.1.0"))
    TensorrtHead(bundle / "head.onnx")
    assert gpu.built[1:] == [("head.onnx", "head", "fp32")]
    other = tmp_path / "head.onnx"
    other.write_bytes((bundle / "head.onnx").read_bytes() + b"\0")
    TensorrtHead(other)
    assert len(gpu.built) == 3


def test_an_engine_that_does_not_load_is_built_again(gpu, bundle, tmp_path, caplog):
    TensorrtHead(bundle / "head.onnx")
    (plan,) = (tmp_path / "bottlefit-jax" / "engines").iterdir()
    plan.write_bytes(b"of another driver")
    TensorrtHead(bundle / "head.onnx")
    assert len(gpu.built) == 2
    assert plan.read_bytes() == b"engine"
    assert "version tag does not match" in caplog.text


def test_where_nothing_can_be_kept_it_runs_all_the_same_and_says_so(gpu, bundle, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    TensorrtHead(bundle / "head.onnx")
    assert "the engine is not kept, so the next run builds it again: [Errno" in caplog.text


def test_what_is_missing_is_one_line(gpu, bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt(gpu, "8.2.1.8"))
    with pytest.raises(UserError, match=r"this is TensorRT 8.2.1.8; running a head needs 8.5 or newer"):
        TensorrtHead(bundle / "head.onnx")
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt(gpu, plans=()))
    with pytest.raises(UserError, match="TensorRT cannot load its own engine: version tag does not match"):
        TensorrtHead(bundle / "head.onnx")
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda_python(gpu, Code.cudaErrorNoDevice))
    with pytest.raises(UserError, match="GPU does not work: cudaGetDeviceProperties ends with cudaErrorNoDevice"):
        TensorrtHead(bundle / "head.onnx")
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(
        UserError, match=r"pip install cuda-python of CUDA's major version \('cuda-python<13' for CUDA 12\), or pycuda"
    ):
        TensorrtHead(bundle / "head.onnx")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(UserError, match="tensorrt is not installed: JetPack has it"):
        TensorrtHead(bundle / "head.onnx")


def test_an_image_of_another_shape_is_refused(gpu, bundle):
    with pytest.raises(UserError, match=r"the image is uint8 \(8, 8, 3\); this model takes uint8 \(32, 32, 3\)"):
        TensorrtHead(bundle / "head.onnx").run(np.zeros((8, 8, 3), np.uint8))


def test_progress_is_logged_while_an_engine_is_built(gpu, bundle, monkeypatch, caplog):
    monkeypatch.setattr(trt, "PROGRESS", 0.01)
    reported = []
    monkeypatch.setattr(trt.logger, "warning", lambda text, *values: reported.append(text % values))

    def build(module, job):
        while not any("building the engine: 0 s" in line for line in reported):
            pass
        return b"engine"

    monkeypatch.setattr(trt, "build_with_package", build)
    TensorrtHead(bundle / "head.onnx")
