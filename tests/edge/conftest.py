"""A bundle whose head runs by LiteRT, and a server that speaks as Triton does."""

import json
import time

import jax.numpy as jnp
import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from PIL import Image

from bottlefit_jax.bundle import Manifest, read_bundle, write_manifest
from bottlefit_jax.edge import channel, client, connection
from export import litert
from tests.bundle import example
from tests.edge.server import Tail, serve

SIZE, LATENT, CLASSES = 32, [29, 29, 3], 10


def _head(image):
    return image[:, 1:30, 2:31].astype(jnp.float32) / 16 - 8


def _onnx_head():
    nodes = [
        onnx.helper.make_node("Slice", ["image", "begin", "end", "axes"], ["cut"]),
        onnx.helper.make_node("Mul", ["cut", "scale"], ["scaled"]),
        onnx.helper.make_node("Sub", ["scaled", "middle"], ["latent"]),
    ]
    constants = {"begin": [1, 2], "end": [30, 31], "axes": [1, 2], "scale": np.float32(1 / 16), "middle": np.float32(8)}
    graph = onnx.helper.make_graph(
        nodes,
        "head",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, SIZE, SIZE, 3])],
        [onnx.helper.make_tensor_value_info("latent", onnx.TensorProto.FLOAT, [1, *LATENT])],
        [onnx.numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def _whole(image):
    return image.astype(jnp.float32).reshape(1, -1)[:, :CLASSES] / 64


def manifest():
    """JSON values, without `files`."""
    values = example.manifest(
        model={"name": "resnet18", "options": {}, "bottleneck": {"channels": 3}, "num_classes": CLASSES},
        labels=[f"class {index}" for index in range(CLASSES)],
        image={"height": SIZE, "width": SIZE, "order": "RGB", "dtype": "uint8", "resize": SIZE},
        latent={"shape": LATENT, "dtype": "uint8", "bits": 8, "scale": 0.0625, "zero_point": 128},
        local={"litert": "local.tflite", "top1": 74.8},
    )
    return {**values, "heads": example.heads(values["image"], values["latent"], "float32")}


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    shape = (1, SIZE, SIZE, 3)
    files = {
        "head.tflite": litert.to_tflite(_head, shape),
        "head.onnx": _onnx_head(),
        "local.tflite": litert.to_tflite(_whole, shape),
    }
    example.write(folder, files={**example.FILES, **files})
    write_manifest(folder, Manifest.from_json(manifest()))
    return folder


@pytest.fixture(scope="session")
def rated(bundle, tmp_path_factory):
    """The same bundle with rates; payloads go out at "coarse"."""
    folder = tmp_path_factory.mktemp("rated")
    files = {name: (bundle / name).read_bytes() for name in ("head.tflite", "local.tflite")}
    values = {key: value for key, value in manifest().items() if key not in ("files", "rates", "default_rate")}
    example.write(folder, **example.with_rates(files={**example.FILES, **files}, **values))
    return folder


@pytest.fixture
def tail(bundle):
    return Tail(json.loads((bundle / "manifest.json").read_text()))


@pytest.fixture
def taker(tail, rated):
    """The tail, which takes the payloads of `rated`."""
    tail.rates = read_bundle(rated).read_rates()
    return tail


@pytest.fixture
def server(tail):
    """HOST:PORT of the tail."""
    running, port = serve(tail)
    yield f"localhost:{port}"
    tail.gate.set()
    running.stop(0).wait()


@pytest.fixture(autouse=True)
def deadlines(monkeypatch):
    """Seconds that the next calls of clients in this process may take, in turn, whatever deadline they were given.

    After these, a client's default deadline is a minute: the machine may stand still for a while.
    """
    given = []

    class Deadline(channel.Deadline):
        def __init__(self, seconds, **options):
            super().__init__(given.pop(0) if given else 60.0 if seconds == 2.0 else seconds, **options)

    monkeypatch.setattr(client, "Deadline", Deadline)
    monkeypatch.setattr(connection, "PING_SECONDS", 30.0)
    return given


class Clock:
    """Stands for the module `time` where the client keeps to its deadline: only its own pauses take time."""

    perf_counter = staticmethod(time.perf_counter)

    def __init__(self):
        self.now, self.pauses, self.paused = 0.0, [], lambda: None

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.pauses.append(seconds)
        self.paused()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (connection, channel):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def image():
    return np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


@pytest.fixture
def image_file(image, tmp_path):
    Image.fromarray(image).save(tmp_path / "image.png")
    return tmp_path / "image.png"
