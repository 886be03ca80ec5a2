"""The JPEG method: its server's image, and the errors of both sides."""

import io
import json
from concurrent import futures

import grpc
import numpy as np
import PIL.Image
import pytest

from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.bundle.manifest import Image
from bottlefit_jax.edge.image import preprocess
from bottlefit_jax.errors import ProtocolError, Unavailable, UserError
from bottlefit_jax.links import jpeg_server
from bottlefit_jax.links.jpeg import METHOD, SERVICE, Classifier, with_margin
from bottlefit_jax.links.methods import Jpeg
from tests.bundle import example


def test_preprocessing_cuts_the_jpeg_out_of_its_margin_to_the_bit():
    for height, width, resize in ((224, 224, 256), (32, 32, 32), (5, 8, 11)):
        target = Image(height, width, "RGB", "uint8", resize)
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        assert np.array_equal(preprocess(with_margin(image, target), target), image)
        with pytest.raises(UserError, match="this network takes"):
            with_margin(image[1:], target)


@pytest.fixture
def manifest(tmp_path):
    example.write(tmp_path / "bundle")
    return read_bundle(tmp_path / "bundle").manifest


class Aborted(Exception):
    pass


class Context:
    """Stands for gRPC's: records the status."""

    def abort(self, code, details):
        raise Aborted(code, details)


class Client:
    """Stands for an EdgeClient that fails."""

    def __init__(self, manifest, error):
        self.manifest, self.error = manifest, error

    def infer(self, image):
        raise self.error


def jpeg_of(height, width):
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (width, height)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("why"), "FAILED_PRECONDITION"),
        (Unavailable("why"), "UNAVAILABLE"),
        (ProtocolError("why"), "INTERNAL"),
    ],
)
def test_an_error_of_the_tail_is_a_status(manifest, error, code):
    classify = Classifier(Client(manifest, error))
    with pytest.raises(Aborted) as caught:
        classify(jpeg_of(manifest.image.height, manifest.image.width), Context())
    assert caught.value.args == (grpc.StatusCode[code], "why")


def test_an_invalid_image_is_an_invalid_argument(manifest):
    classify = Classifier(Client(manifest, AssertionError()))
    for data in (b"no JPEG", jpeg_of(3, 5)):
        with pytest.raises(Aborted) as caught:
            classify(data, Context())
        assert caught.value.args[0] is grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def jpeg(manifest):
    """The device's side, and its server, whose answer is what `reply` returns."""
    reply = {}

    def classify(data, context):
        return reply["answer"](context)

    server = grpc.server(futures.ThreadPoolExecutor(1))
    handler = grpc.unary_unary_rpc_method_handler(classify)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    method = Jpeg(manifest, f"127.0.0.1:{port}", quality=95, deadline_ms=60_000)
    yield method, reply
    method.close()
    server.stop(0).wait()


def test_the_times_on_the_server_are_not_part_of_the_network(jpeg):
    method, reply = jpeg
    reply["answer"] = lambda context: json.dumps({"index": 3, "server_us": 250, "hop_us": 125}).encode()
    sample = method.once(np.zeros((40, 50, 3), np.uint8))
    assert (sample.ms["tail"], method.hops) == (0.25, [0.125])
    parts = sum(ms for step, ms in sample.ms.items() if step != "total")
    assert parts == pytest.approx(sample.ms["total"])


@pytest.mark.parametrize(
    ("code", "error"), [("UNAVAILABLE", Unavailable), ("DEADLINE_EXCEEDED", Unavailable), ("INTERNAL", ProtocolError)]
)
def test_a_status_of_the_server_is_an_error_of_one_line(jpeg, code, error):
    method, reply = jpeg
    reply["answer"] = lambda context: context.abort(grpc.StatusCode[code], "no\nluck")
    with pytest.raises(error, match=rf"^the JPEG server at 127.0.0.1:\d+: {code}, no luck$"):
        method.once(np.zeros((40, 50, 3), np.uint8))


@pytest.mark.parametrize("answer", [b"hello", b"[1]", b"{}", b'{"server_us": "a", "hop_us": 1}'])
def test_an_answer_of_another_server_is_an_error_of_one_line(jpeg, answer):
    method, reply = jpeg
    reply["answer"] = lambda context: answer
    with pytest.raises(ProtocolError, match="is not a JPEG server: it answered b'"):
        method.once(np.zeros((40, 50, 3), np.uint8))


def test_an_invalid_flag_of_the_jpeg_server_is_one_line(tmp_path, capsys):
    flags = ["--bundle", str(tmp_path / "none"), "--port", "0", "--tail", "localhost:1"]
    for argv, problem in ((flags, "none"), (flags[2:], "--bundle")):
        assert jpeg_server.main(argv) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert problem in err
        assert err.count("\n") == 1
