"""model.py as Triton's Python backend runs it, with a stand-in for the backend's own module."""

import ast
import importlib.util
import json
import sys
from types import ModuleType

import numpy as np
import pytest

from bottlefit_jax.codec import wire
from bottlefit_jax.codec.fit import fit_rate
from bottlefit_jax.codec.rates import make_rates, rates_text
from export import triton_source
from tests.bundle import example

SHAPE = (5, 6, 3)


class Request:
    def __init__(self, *payloads, **parameters):
        self.payloads = np.array(payloads, object).reshape(-1, 1)
        self.parameters = lambda: json.dumps(parameters) if parameters else ""


class TritonError(str):
    INVALID_ARG = 3

    def __new__(cls, message, code):
        assert code == cls.INVALID_ARG
        return super().__new__(cls, message)


class Response:
    def __init__(self, tensors=(), error=None):
        self.tensors, self.error = dict(tensors), error


@pytest.fixture(scope="module")
def rates():
    """Rates without contexts, and one with contexts and joint symbols, as the export makes them."""
    smooth = np.random.default_rng(1).normal(128, 12, (40, 1, 1, 3)) + np.random.default_rng(2).normal(
        0, 4, (40, *SHAPE)
    )
    fitted = fit_rate(smooth.astype(np.uint8), (4, 40, 40), zero_point=128, id="fitted")
    return make_rates([*example.rates(SHAPE).rates, fitted], head=example.HEAD, shape=SHAPE)


@pytest.fixture
def model(tmp_path, monkeypatch, rates):
    """A model as Triton has loaded it, where nothing of ours can be imported."""
    (tmp_path / "model.py").write_text(triton_source.decoder_source())
    (tmp_path / "rates.json").write_text(rates_text(rates))
    stub = ModuleType("triton_python_backend_utils")
    stub.get_input_tensor_by_name = lambda request, name: ModuleType(name) if name != "payload" else Tensor(request)
    stub.Tensor = lambda name, values: (name, values)
    stub.InferenceResponse, stub.TritonError = Response, TritonError
    for name in [name for name in sys.modules if name.partition(".")[0] in ("bottlefit_jax", "export")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, stub.__name__, stub)
    spec = importlib.util.spec_from_file_location("model_of_triton", tmp_path / "model.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    loaded = module.TritonPythonModel()
    config = {"input": [{"name": "payload"}], "output": [{"name": "latent"}]}
    loaded.initialize({"model_config": json.dumps(config)})
    return loaded


class Tensor:
    def __init__(self, request):
        self.as_numpy = lambda: request.payloads


def latents(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def test_latents_are_those_of_the_package_to_the_bit(model, rates):
    images = latents(12)
    images[6:] = 128 + images[6:] % 32  # few values, as a payload is made for
    payloads = [wire.encode(image, rates.rates[index % len(rates.rates)]) for index, image in enumerate(images)]
    requests = [Request(*payloads[:5]), Request(payloads[5], head=rates.head[:32]), Request(*payloads[6:])]
    responses = model.execute(requests)
    assert [response.error for response in responses] == [None, None, None]
    decoded = np.concatenate([response.tensors["latent"] for response in responses])
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, [wire.decode(payload, rates) for payload in payloads])


def test_an_invalid_payload_fails_its_own_request_alone(model, rates):
    good = wire.encode(latents(1)[0], rates.rates[-1])
    stranger = wire.encode(latents(1)[0], example.rates(SHAPE, head="c" * 64).rates[-1])
    requests = [Request(good), Request(good, good[:-1]), Request(b""), Request(stranger), Request(good)]
    errors = [response.error for response in model.execute(requests)]
    assert errors[0] is None
    assert errors[4] is None
    for payload, error in zip([good[:-1], b"", stranger], errors[1:4], strict=True):
        assert error == wire.header_problem(payload, rates)


def test_a_request_of_another_head_is_refused(model, rates):
    good = wire.encode(latents(1)[0], rates.rates[0])
    heads = [{"head": "c" * 32}, {"head": ""}, {"head": 5}, {"head": "c\n"}, {"head": rates.head[:32]}, {"timeout": 5}]
    errors = [response.error for response in model.execute([Request(good, **head) for head in heads])]
    assert errors[0] == "the request is from head 'cccccccccccc', and this model decodes the latents of 'aaaaaaaaaaaa'"
    assert [error is None for error in errors] == [False, False, False, False, True, True]
    assert "\n" not in errors[3]


def test_the_file_imports_the_standard_library_and_numpy_alone():
    tree = ast.parse(triton_source.decoder_source())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    others = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    assert others == {"numpy", "triton_python_backend_utils"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.py": "X = 1\n", "b.py": "from package.a import X\nimport y\nX = 2\n"}, "X is defined in .*a.py and in"),
        ({"b.py": "if 1:\n    X = 2\n"}, "b.py, line 1: only imports, definitions and constants"),
        ({"a.py": "X = 1\n", "b.py": "from package.a import X as Y\n"}, "X is imported as Y"),
    ],
)
def test_modules_that_cannot_be_one_file_are_refused(tmp_path, monkeypatch, files, message):
    package = tmp_path / "package"
    package.mkdir()
    for name, text in files.items():
        (package / name).write_text(text)
    decoder = tmp_path / "decoder.py"
    decoder.write_text("from package.b import X\n\n\nclass TritonPythonModel:\n    x = X\n")
    monkeypatch.setattr(triton_source, "PACKAGE", package)
    monkeypatch.setattr(triton_source, "DECODER", decoder)
    with pytest.raises(ValueError, match=message):
        triton_source.decoder_source()
