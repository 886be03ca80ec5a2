"""The steps of `triton.sh` that need messages or files: what a real Triton answers, against our server.

python -m benchmarks.triton_check STEP ARGUMENT...; exit code 1 and a line on standard error where a check fails.
"""

import concurrent.futures
import json
import shutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.codec import wire
from bottlefit_jax.protocol.byte_tensors import pack, unpack
from bottlefit_jax.protocol.names import CLASSIFICATION, HEAD, ID_DIGITS, INPUT, PAYLOAD, PAYLOAD_SUFFIX, PROBABILITIES

pb: Any = service_pb2
SECONDS = 20.0  # of a call
TOLERANCE = 2e-6  # of a probability with six digits, computed by another softmax
REFUSED = ("INVALID_ARGUMENT", "FAILED_PRECONDITION")  # Triton's models cannot answer with the second
STALL_MS = 300.0  # with a queue policy, Triton lets up to 11 % of requests wait 500 ms
MOST_STALLS = 0.005  # of the round trips: a busy machine has some too
ROUND_TRIPS = 400
BATCH = 32


class CheckFailed(Exception):
    """A server answered something else than it should; the text says what."""


class Server:
    """Sends single messages to a server.

    Attributes:
        name: what a line calls it.
        model: the name of the model that takes payloads.
    """

    def __init__(self, name: str, address: str, tail: str, model: str):
        """Connect to `address`, whose raw latents go to the model `tail`."""
        self.name, self.model, self._tail = name, model, tail
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(address))

    def request(self, content: bytes | np.ndarray, *, classes: int = 0, head: str = "") -> Any:
        """Return a request with a payload or a raw latent [h, w, c], for the probabilities."""
        raw = isinstance(content, np.ndarray)
        request = pb.ModelInferRequest(model_name=self._tail if raw else self.model)
        if isinstance(content, np.ndarray):
            request.inputs.add(name=INPUT, datatype="UINT8", shape=[1, *content.shape])
            request.raw_input_contents.append(content.tobytes())
        else:
            request.inputs.add(name=PAYLOAD, datatype="BYTES", shape=[1, 1])
            request.raw_input_contents.append(pack([content]))
        output = request.outputs.add(name=PROBABILITIES)
        if classes:
            output.parameters[CLASSIFICATION].int64_param = classes
        if head:
            request.parameters[HEAD].string_param = head
        return request

    def send(self, *args, **kwargs) -> bytes:
        """Return the raw contents of the answer to `request`."""
        return self._stub.ModelInfer(self.request(*args, **kwargs), timeout=SECONDS).raw_output_contents[0]

    def refusal(self, *args, **kwargs) -> str:
        """Return the status with which a request is refused, as `CODE: message`; empty where it is answered."""
        try:
            self.send(*args, **kwargs)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"  # pyright: ignore[reportAttributeAccessIssue]
        return ""


def ports() -> None:
    """Print two ports that are free."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        print(one.getsockname()[1], other.getsockname()[1])


def ready(address: str, model: str) -> None:
    """Wait until a model is ready, a minute at most."""
    stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(address))
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if stub.ModelReady(pb.ModelReadyRequest(name=model), timeout=2).ready:
                return
        except grpc.RpcError:
            pass
        time.sleep(0.2)
    raise CheckFailed(f"{model} on {address} was not ready within a minute")


def digits(folder: str) -> None:
    """Write the evaluation images of scikit-learn's digits as PNG files."""
    from PIL import Image

    from bottlefit_jax.data.digits import Digits

    source = Digits(split="val")
    Path(folder).mkdir()
    for index in range(len(source)):
        Image.fromarray(source.read(index)[0]).save(Path(folder, f"{index:04}.png"))


def rates(bundle: str) -> None:
    """Print `raw`, then the default rate, then the others."""
    manifest = read_bundle(Path(bundle)).manifest
    others = [rate.id for rate in manifest.rates]
    print(*dict.fromkeys(["raw", manifest.default_rate, *others]))


def compare(rate: str, one: str, other: str, times: str = "1") -> None:
    """Check that two outputs of the device agree, of which the first has the images so many times."""
    answers, expected = ([json.loads(line) for line in Path(path).read_text().splitlines()] for path in (one, other))
    if len(answers) != len(expected) * int(times) or not answers:
        raise CheckFailed(f"{len(answers)} answers instead of {len(expected) * int(times)}")
    pairs = list(zip(answers, expected * int(times), strict=True))
    wrong = [answer["file"] for answer, wanted in pairs if answer["label"] != wanted["label"]]
    apart = max(abs(answer["probability"] - wanted["probability"]) for answer, wanted in pairs)
    if wrong or apart > TOLERANCE:
        raise CheckFailed(f"{rate}: {len(wrong)} labels differ ({wrong[:3]}), probabilities by up to {apart:.2g}")
    sent, network = (
        [answer["bytes_sent"]["payload"] for answer in answers],
        [answer["timings"]["network"] for answer in answers],
    )
    print(
        f"{rate}: {len(answers)} of {len(answers)} labels equal, probabilities within {apart:.1g}; "
        f"{np.mean(sent):.1f} bytes an image, {np.median(network):.2f} ms a round trip"
    )


def stranger(bundle: str, output: str) -> None:
    """Write a copy of a bundle that belongs to another head, without rates."""
    shutil.copytree(bundle, output)
    path = Path(output, "manifest.json")
    values = json.loads(path.read_text())
    tables = {rate["tables"] for rate in values["rates"]}
    values["head"]["id"] = values["tail"]["head"] = "c" * 64
    values |= {"rates": [], "default_rate": "raw"}
    values["files"] = {name: entry for name, entry in values["files"].items() if name not in tables}
    path.write_text(json.dumps(values))


def messages(folder: str, triton: str, ours: str) -> None:
    """Check classification, refusals, a damaged payload among good ones, and the time of round trips."""
    bundle = read_bundle(Path(folder))
    name, codes = bundle.manifest.name, bundle.read_rates()
    if codes is None:
        raise CheckFailed(f"{folder} has no rates")
    servers = [Server("Triton", triton, name, name + PAYLOAD_SUFFIX), Server("our server", ours, name, name)]
    latent = np.random.default_rng(0).integers(0, 256, codes.shape, dtype=np.uint8)
    payload = wire.encode(latent, codes.rates[0])
    restored = wire.decode(payload, codes)
    _check_classification(servers, payload, bundle.manifest.model.num_classes)
    good = bundle.manifest.head.id[:ID_DIGITS]
    for server in servers:
        same = [np.frombuffer(server.send(content, head=good), np.float32) for content in (payload, restored)]
        _require(float(np.abs(same[0] - same[1]).max()) <= TOLERANCE, f"{server.name}: payload and raw latent differ")
        for what, refusal in (
            ("another head", server.refusal(payload, head="c" * ID_DIGITS)),
            ("a damaged payload", server.refusal(payload[:-1] + bytes([payload[-1] ^ 1]), head=good)),
        ):
            _require(refusal.startswith(REFUSED) and "\n" not in refusal, f"{server.name}, {what}: {refusal}")
            print(f"{server.name}, {what}: {refusal}")
        _check_one_damaged(server, payload)
    for server in servers:
        for what, content in (("payload", payload), ("raw latent", latent)):
            _measure(f"{server.name}, {what}", lambda server=server, content=content: server.send(content, classes=5))


def _check_classification(servers: Sequence[Server], payload: bytes, classes: int) -> None:
    for count in [count for count in (1, 5, 10) if count <= classes]:
        raw = [server.send(payload, classes=count) for server in servers]
        read = [[text.decode().split(":") for text in unpack(each, count)] for each in raw]
        for one, other in zip(*read, strict=True):
            near = abs(float(one[0]) - float(other[0])) <= TOLERANCE
            _require(near and one[1:] == other[1:], f"k = {count}: {':'.join(one)} and {':'.join(other)}")
        print(f"k = {count}: {len(raw[0])} bytes on both, of {4 * classes} for all; first {':'.join(read[0][0])}")


def _check_one_damaged(server: Server, payload: bytes) -> None:
    """Check that of requests that are decoded together only the damaged one fails."""
    bad = BATCH // 2
    contents = [payload if index != bad else payload[:-1] for index in range(BATCH)]
    with concurrent.futures.ThreadPoolExecutor(BATCH) as pool:
        refusals = list(pool.map(server.refusal, contents))
    failed = [index for index, refusal in enumerate(refusals) if refusal]
    _require(failed == [bad], f"{server.name}: of {BATCH} requests these failed: {failed}")
    print(f"{server.name}: {BATCH - 1} of {BATCH} requests at once answered, the damaged one alone refused")


def _measure(name: str, send: Callable[[], bytes]) -> None:
    times = []
    for _ in range(ROUND_TRIPS):
        start = time.perf_counter()
        send()
        times.append(1000 * (time.perf_counter() - start))
    median, high = np.percentile(times, [50, 95])
    stalls = float(np.mean(np.array(times) > STALL_MS))
    print(
        f"{name}: {median:.2f} ms a round trip (p95 {high:.2f} ms, longest {max(times):.0f} ms, {ROUND_TRIPS} of them)"
    )
    _require(stalls <= MOST_STALLS, f"{name}: {stalls:.1%} of the round trips took longer than {STALL_MS:.0f} ms")


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise CheckFailed(problem)


STEPS = {each.__name__: each for each in (ports, ready, digits, rates, compare, stranger, messages)}

if __name__ == "__main__":
    try:
        STEPS[sys.argv[1]](*sys.argv[2:])
    except CheckFailed as failure:
        sys.exit(f"error: {failure}")
