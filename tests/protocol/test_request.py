from bottlefit_jax.bundle import read_bundle
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


def test_the_next_request_is_the_same_message_with_other_values(tmp_path):
    """What does not change between images is made once."""
    example.write(tmp_path)
    maker = RequestMaker(read_bundle(tmp_path).manifest)
    first = maker.request(b"first", "3", 2.0)
    second = maker.request(b"second", "", 0.0)
    assert second is first
    assert (list(second.raw_input_contents), second.model_version) == ([b"second"], "")
    assert second.parameters["timeout"].int64_param == 1  # 0 would be no timeout
