"""A bundle whose tail is one matrix, and a server in this process."""

import contextlib
import functools
import hashlib
import json
import time

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import service_pb2 as pb

from bottlefit_jax.serve import ServerOptions, serve_in_thread
from bottlefit_jax.serve.thread import event_loop, run_in_loop
from tests.bundle import example as bundle_example

SHAPE, CLASSES = (5, 6, 3), 4
SERVICE = "/inference.GRPCInferenceService/"
loop, on_loop = event_loop, run_in_loop


def matrix(seed=0, shape=SHAPE, classes=CLASSES):
    return np.random.default_rng(seed).normal(size=(np.prod(shape), classes)).astype(np.float32)


def expected(latent, seed=0):
    """latent: [b, 5, 6, 3] uint8 -> logits [b, 4] float32."""
    return latent.reshape(len(latent), -1).astype(np.float32) @ matrix(seed)


@functools.cache
def onnx_tail(seed=0, shape=SHAPE, classes=CLASSES):
    nodes = [
        helper.make_node("Cast", ["latent"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "matrix"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tail",
        [helper.make_tensor_value_info("latent", TensorProto.UINT8, ["batch", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(matrix(seed, shape, classes), "matrix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write(folder, *, seed=0, files=None, **changes):
    """Write a valid bundle into `folder` and return the folder."""
    files = {**bundle_example.FILES, "tail.onnx": onnx_tail(seed), **(files or {})}
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    entries = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    (folder / "manifest.json").write_text(json.dumps(bundle_example.manifest(files=entries, **changes)))
    return folder


def latents(batch=1, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (batch, *SHAPE), dtype=np.uint8)


def infer_request(latent, name="digits", **changes):
    shape = latent.shape
    return pb.ModelInferRequest(
        **{
            "model_name": name,
            "inputs": [pb.ModelInferRequest.InferInputTensor(name="latent", datatype="UINT8", shape=shape)],
            "raw_input_contents": [latent.tobytes()],
            **changes,
        }
    )


def logits_of(response):
    return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(response.outputs[0].shape)


def serving(*bundles, **options):
    """A server of these bundles on a free port; yields the Server."""
    return serve_in_thread(ServerOptions(bundles=bundles, **options))


def batcher_of(running, name="digits"):
    """The queue in front of a running server's tail."""
    return running._repository.get(name).batcher


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.0002)


def raw_method(channel, method):
    """A method from bytes to bytes."""
    return channel.unary_unary(SERVICE + method)


@contextlib.contextmanager
def channel_to(address):
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        yield channel


def status_of(call, *arguments, **options):
    """The code and the details of a call."""
    try:
        call(*arguments, timeout=60, **options)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""
