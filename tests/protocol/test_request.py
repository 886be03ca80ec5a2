from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.protocol.classification import Output
from bottlefit_jax.protocol.request import RequestMaker
from tests.bundle import example


def test_a_request_has_one_latent_and_the_head_that_made_it(tmp_path):
    example.write(tmp_path)
    manifest = read_bundle(tmp_path).manifest
    request = RequestMaker(manifest).request(b"latent", "", 0.25)
    assert (request.model_name, request.model_version) == (manifest.name, "")
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("latent", "UINT8", [1, *manifest.latent.shape])
    assert list(request.raw_input_contents) == [b"latent"]
    assert request.parameters["head"].string_param == manifest.head.id[:32]
    assert request.parameters["timeout"].int64_param == 250_000


def test_a_request_keeps_its_values_while_the_next_one_is_made(tmp_path):
    example.write(tmp_path)
    maker = RequestMaker(read_bundle(tmp_path).manifest)
    first = maker.request(b"first", "3", 2.0)
    second = maker.request(b"second", "", 0.0)
    assert (list(first.raw_input_contents), first.model_version) == ([b"first"], "3")
    assert (list(second.raw_input_contents), second.model_version) == ([b"second"], "")
    assert second.parameters["timeout"].int64_param == 1  # 0 would be no timeout
    assert "timeout" not in maker.request(b"third", "", None).parameters


def test_a_payload_goes_to_the_model_that_takes_it_and_names_the_outputs(tmp_path):
    example.write(tmp_path)
    outputs = (Output("probabilities", 5), Output("identity"))
    maker = RequestMaker(read_bundle(tmp_path).manifest, model="digits-payload", payload=True, outputs=outputs)
    request = maker.request(b"payload", "", 0.25)
    (tensor,) = request.inputs
    assert (request.model_name, tensor.name, tensor.datatype, list(tensor.shape)) == (
        "digits-payload",
        "payload",
        "BYTES",
        [1, 1],
    )
    assert list(request.raw_input_contents) == [b"\x07\0\0\0payload"]
    assert [(output.name, output.parameters["classification"].int64_param) for output in request.outputs] == [
        ("probabilities", 5),
        ("identity", 0),
    ]
    assert request.ByteSize() - len(b"payload") <= 200
