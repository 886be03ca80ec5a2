"""What a broken or hostile peer sends, and more clients than there is room for."""

import collections
import random
import socket
import struct
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from tests.serve import example
from tests.serve.example import infer_request, latents, logits_of

ROOT = Path(__file__).parents[2]
METHODS = (
    *("ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig", "ModelInfer", "ModelInfer"),
    *("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload", "ModelStatistics", "Nothing", ""),
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STATUSES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return example.write(tmp_path_factory.mktemp("bundle") / "a")


def frames(rng, count):
    """(method, message): truncated, oversized, wrong-typed, with flipped bits, and random."""
    good = infer_request(latents(), id="1").SerializeToString()
    long = infer_request(latents(), raw_input_contents=[bytes(1 << 18)]).SerializeToString()
    for index in range(count):
        kind, method = index % 5, rng.choice(METHODS)
        if kind == 0:
            yield method, good[: rng.randrange(len(good))]
        elif kind == 1 and index % 50 == 1:
            yield method, long
        elif kind == 1:
            raw = [bytes(rng.randrange(2000))]
            yield "ModelInfer", infer_request(latents(), raw_input_contents=raw).SerializeToString()
        elif kind == 2:
            yield "ModelInfer", wrong_typed(rng)
        elif kind == 3:
            data = bytearray(good)
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            yield "ModelInfer", bytes(data)
        else:
            yield method, rng.randbytes(rng.choice((0, 1, 7, 50, 500, 5000)))


def wrong_typed(rng):
    fields = ("int_contents", "int64_contents", "fp32_contents", "fp64_contents", "bool_contents", "uint_contents")
    tensor = pb.ModelInferRequest.InferInputTensor(
        name=rng.choice(("latent", "latent", "image")),
        datatype=rng.choice(("UINT8", "UINT8", "FP32", "BYTES", "")),
        shape=rng.choice(([1, 5, 6, 3], [1, 5, 6, 3], [], [-1, 5, 6, 3], [1 << 62] * 4, [0, 0, 0, 0])),
    )
    getattr(tensor.contents, rng.choice(fields)).extend([1] * rng.choice((0, 89, 90, 91)))
    raw = rng.choice(([], [], [b""], [bytes(90)], [bytes(90)] * 3))
    return infer_request(latents(), inputs=[tensor] * rng.choice((1, 1, 2)), raw_input_contents=raw).SerializeToString()


def check_answers(address):
    with example.channel_to(address) as channel:
        response = example.raw_method(channel, "ModelInfer")(infer_request(latents()).SerializeToString(), timeout=60)
    logits = logits_of(pb.ModelInferResponse.FromString(response))
    np.testing.assert_allclose(logits, example.expected(latents()), rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("count", [500, pytest.param(8000, marks=pytest.mark.slow)])
def test_every_wrong_message_has_a_status(bundle, count):
    rng, codes = random.Random(5), collections.Counter()
    with example.serving("--bundle", bundle) as running, example.channel_to(running.address) as channel:
        pending = collections.deque()
        for method, message in frames(rng, count):
            pending.append(example.raw_method(channel, method).future(message, timeout=60))
            if len(pending) == 16:
                codes[pending.popleft().code()] += 1
        codes.update(call.code() for call in pending)
        check_answers(running.address)
    assert sum(codes.values()) == count
    assert set(codes) == STATUSES


def connections(rng, count):
    """Bytes of a connection: random, a preface cut short, HTTP/2 frames that are random or cut short, HTTP/1, TLS."""
    for index in range(count):
        kind, length = index % 6, rng.choice((0, 1, 9, 64, 1000))
        data = rng.randbytes(length)
        frame = struct.pack(">I", rng.choice((length, 1 << 23)))[1:] + bytes([rng.randrange(12), rng.randrange(256)])
        frame += struct.pack(">I", rng.randrange(1 << 31))
        yield (
            data,
            PREFACE[: rng.randrange(len(PREFACE))],
            PREFACE + data,
            PREFACE + b"\0\0\0\x04\0\0\0\0\0" + frame + data,
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00" + data,
        )[kind]


def test_bare_sockets_with_anything_on_them_do_not_stop_the_server(bundle):
    with example.serving("--bundle", bundle) as running:
        opened = collections.deque()
        for data in connections(random.Random(6), 2000):
            connection = socket.create_connection(("127.0.0.1", running.port), timeout=60)
            connection.sendall(data)
            opened.append(connection)
            if len(opened) == 50:  # some stay open for a while, and say no more
                opened.popleft().close()
        check_answers(running.address)
        for connection in opened:
            connection.close()
        check_answers(running.address)


SLOW_SERVER = """
import sys, time
import numpy as np
from bottlefit_jax.serve import __main__, assembly, grpc_server
grpc_server.PENDING = grpc_server.PENDING_AT_MOST = 1000  # what 200 clients send at once is to come as far as our queue
def open_tail(bundle, **_):
    def tail(latent):
        time.sleep(0.05)
        return np.zeros((len(latent), 4), np.float32)
    return tail
assembly.open_tail = open_tail
sys.exit(__main__.main(sys.argv[1:]))
"""


def peak_mb(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the peak memory from /proc")
def test_200_clients_on_a_queue_of_16_are_refused_and_not_kept_in_memory(tmp_path):
    latent = {**example.bundle_example.manifest()["latent"], "shape": [58, 58, 12]}
    folder = example.write(tmp_path / "large", latent=latent)
    data = infer_request(np.zeros((8, 58, 58, 12), np.uint8)).SerializeToString()
    words = [sys.executable, "-c", SLOW_SERVER, "--bundle", str(folder), "--port", "0", "--queue", "16"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[2]
            channels = [grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(200)]
            methods = [example.raw_method(channel, "ModelInfer") for channel in channels]
            codes, peaks = collections.Counter(), [peak_mb(process.pid)]
            for _ in range(12):
                calls = [method.future(data, timeout=60) for method in methods]
                codes.update(call.code() for call in calls)
                peaks.append(peak_mb(process.pid))
            for channel in channels:
                channel.close()
        finally:
            process.kill()
    assert sum(codes.values()) == 2400
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes[grpc.StatusCode.OK] >= 12 * 16
    # a message of 0.3 MB has a few copies while it is on its way in, on each of 200 connections; none may stay
    assert peaks[-1] - peaks[0] < 5 * 200 * len(data) / 1e6, peaks
