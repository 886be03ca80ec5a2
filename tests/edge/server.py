"""A small server of the Open Inference Protocol that speaks as ours or as Triton does, and fails as a test wants.

python -m tests.edge.server BUNDLE PORT SILENCES      prints a line when it listens, another at the first request
"""

# ruff: noqa: N802 - gRPC's names
import json
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from bottlefit_jax.codec import wire

TYPE_UINT8, TYPE_FP32 = 2, 11


class Tail(service_pb2_grpc.GRPCInferenceServiceServicer):
    """The tail of `manifest` (JSON values): class number i, where i is the sum of the latent modulo the classes.

    Every attribute may be changed while it serves.
    """

    def __init__(self, manifest):
        self.name, self.version, self.head = manifest["name"], str(manifest["version"]), manifest["head"]["id"]
        self.tail = manifest["tail"]["id"]
        self.others = {}  # version -> the head's id, of versions that are served beside it
        self.identity = "parameters"  # of every answer: these as ours, "output" as an exported model, or None
        self.dims, self.classes = list(manifest["latent"]["shape"]), manifest["model"]["num_classes"]
        self.input_type, self.batch = TYPE_UINT8, 8
        self.ready = self.live = True
        self.seconds = 0.0  # an answer takes
        self.gate = threading.Event()  # answers wait while it is not set
        self.gate.set()
        self.silences = 0  # requests from now on that are never answered
        self.pinged = threading.Event()
        self.refusals = []  # status codes to answer with, one each
        self.words = "come back later"  # of a refusal
        self.token = None
        self.parameters = {}  # of every response
        self.answer_version = None
        self.probabilities = False  # whether it has that output, and answers by the classification extension
        self.rates = None  # of the payloads that it takes
        self.triton = False  # whether payloads go to an ensemble beside it, and the ids are an output
        self.alter = lambda response: response
        self.requests, self.config_requests, self.peers = [], 0, set()
        self.times_left = []  # seconds of each request's deadline
        self._lock = threading.Lock()

    def _admit(self, context):
        with self._lock:
            self.peers.add(context.peer())
        if self.token is not None and ("authorization", f"Bearer {self.token}") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "a bearer token\nis \x1b[31mneeded")

    def _version(self, asked, context):
        """The version that a request means, the newest where it names none."""
        served = {**self.others, self.version: self.head}
        version = asked or max(served, key=int)
        if version not in served:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no version {version}")
        return version, served[version]

    def ServerLive(self, request, context):
        self._admit(context)
        self.pinged.set()
        return pb.ServerLiveResponse(live=self.live)

    def ModelReady(self, request, context):
        ensemble = [f"{self.name}-payload"] if self.triton and self.rates is not None else []
        return pb.ModelReadyResponse(ready=self.ready and request.name in [self.name, *ensemble])

    def ModelMetadata(self, request, context):
        return pb.ModelMetadataResponse(name=self.name, versions=[*self.others, self.version])

    def ModelConfig(self, request, context):
        self.config_requests += 1
        _, head = self._version(request.version, context)
        response = pb.ModelConfigResponse()
        config = response.config
        config.name, config.max_batch_size = request.name, self.batch
        config.input.add(name="latent", data_type=self.input_type, dims=self.dims)
        config.output.add(name="logits", data_type=TYPE_FP32, dims=[-1, self.classes][self.batch > 0 :])
        if self.probabilities:
            config.output.add(name="probabilities", data_type=TYPE_FP32, dims=[self.classes])
        if self.triton:
            config.output.add(name="identity", data_type=TYPE_UINT8, dims=[32])
        if self.rates is not None:
            config.parameters["payload"].string_value = "1"
            config.parameters["rates"].string_value = f"{self.rates.key:08x}"
        if head is not None:
            config.parameters["head"].string_value = head
        return response

    def ModelInfer(self, request, context):
        self._admit(context)
        self.requests.append(request)
        self.times_left.append(context.time_remaining())
        if self.silences:
            self.silences -= 1
            over = threading.Event()
            if context.add_callback(over.set):
                over.wait()
        if self.refusals:
            context.abort(self.refusals.pop(0), self.words)
        time.sleep(self.seconds)
        self.gate.wait(60)
        version, head = self._version(request.model_version, context)
        logits = np.zeros(self.classes, np.float32)
        logits[int(self._latent(request, context).sum()) % self.classes] = 5
        response = pb.ModelInferResponse(model_name=request.model_name, model_version=self.answer_version or version)
        asked = {output.name: output for output in request.outputs}
        if not asked:
            response.outputs.add(name="logits", datatype="FP32", shape=[1, self.classes])
            response.raw_output_contents.append(logits.tobytes())
        elif "probabilities" in asked and self.probabilities:
            values = np.exp(logits) / np.exp(logits).sum()
            parameters = asked["probabilities"].parameters
            count = parameters["classification"].int64_param if "classification" in parameters else 0
            datatype, width, raw = "FP32", self.classes, values.tobytes()
            if count:
                best = np.argsort(-values, kind="stable")[:count]
                texts = [f"{values[index]:f}:{index}:server's {index}".encode() for index in best]
                datatype, width = "BYTES", count
                raw = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
            response.outputs.add(name="probabilities", datatype=datatype, shape=[1, width])
            response.raw_output_contents.append(raw)
        else:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unexpected inference output {[*asked]}")
        for name, value in self.parameters.items():
            response.parameters[name].int64_param = value
        if self.identity == "parameters":
            response.parameters["head"].string_param = head[:32]
            response.parameters["tail"].string_param = self.tail[:32]
        if self.identity == "output" or "identity" in asked:
            response.outputs.add(name="identity", datatype="UINT8", shape=[1, 32])
            response.raw_output_contents.append(bytes.fromhex(head[:32] + self.tail[:32]))
        return self.alter(response) or response

    def _latent(self, request, context):
        """The raw latent, or what the payload decodes to."""
        content = request.raw_input_contents[0]
        takes_payloads = self.rates is not None and (request.model_name.endswith("-payload") or not self.triton)
        if request.inputs[0].name == "payload" and takes_payloads:
            latents, problems = wire.decode_batch([content[4:]], self.rates)
            if problems[0] is None:
                return latents[0]
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, problems[0])
        if request.inputs[0].name != "latent" or request.model_name != self.name:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unexpected inference input {request.inputs[0].name}")
        return np.frombuffer(content, np.uint8)


def serve(tail, *, port=0, credentials=None):
    """Starts serving on the loopback; returns the gRPC server and its port."""
    server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(tail, server)
    address = f"127.0.0.1:{port}"
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    return server, port


if __name__ == "__main__":
    tail = Tail(json.loads((Path(sys.argv[1]) / "manifest.json").read_text()))
    tail.silences = int(sys.argv[3])
    server, port = serve(tail, port=int(sys.argv[2]))
    print(port, flush=True)
    while not tail.requests:
        time.sleep(0.01)
    print("asked", flush=True)
    server.wait_for_termination()
