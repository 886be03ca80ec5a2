"""The ModelConfig of our server, and those that the device refuses."""

import re

import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.protocol.model_config import (
    Capabilities,
    capabilities_of,
    check_config,
    head_of,
    make_config,
    payload_problem,
)
from tests.protocol.conftest import CLASSES, SHAPE


@pytest.fixture
def config(manifest):
    return make_config(manifest, platform="onnxruntime_onnx", backend="onnxruntime", max_batch=8, delay=0.002)


def test_the_config_of_our_server_passes_every_check(config, manifest):
    check_config(config, manifest, "edge:8001")
    assert head_of(config) == manifest.head.id
    assert config.parameters["tail"].string_value == manifest.tail.id
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000


@pytest.mark.parametrize("batch", [-1, 1])
def test_a_server_without_batches_has_the_batch_as_first_dimension(config, manifest, batch):
    config.max_batch_size = 0
    config.input[0].dims[:] = [batch, *SHAPE]
    config.output[0].dims[:] = [batch, CLASSES]
    check_config(config, manifest, "edge:8001")
    config.input[0].dims[:] = SHAPE
    with pytest.raises(UserError, match="its input is latent TYPE_UINT8"):
        check_config(config, manifest, "edge:8001")


def other_head(config):
    config.parameters["head"].string_value = "c" * 64


def no_head(config):
    del config.parameters["head"]


def other_shape(config):
    config.input[0].dims[:] = [6, 5, 3]


def other_type(config):
    config.output[0].data_type = 10


def no_output(config):
    del config.output[:]


def second_input(config):
    config.input.add().CopyFrom(config.input[0])
    config.input[1].name = "mask\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_head, "the tail on edge:8001 belongs to another head, cccccccccccc…; this bundle's is aaaaaaaaaaaa…"),
        (no_head, "the tail on edge:8001 does not say which head it is for"),
        (other_shape, "its input is latent TYPE_UINT8 [6, 5, 3] instead of latent TYPE_UINT8 [5, 6, 3]"),
        (other_type, "its output is logits TYPE_FP16 [4] instead of logits TYPE_FP32 [4]"),
        (no_output, "its output is missing instead of logits TYPE_FP32 [4]"),
        (second_input, "its input is latent TYPE_UINT8 [5, 6, 3], mask TYPE_UINT8 [5, 6, 3] instead of"),
    ],
)
def test_a_config_that_does_not_fit_the_bundle_is_an_error(config, manifest, change, message):
    change(config)
    with pytest.raises(UserError, match=re.escape(message)):
        check_config(config, manifest, "edge:8001")


def test_other_outputs_are_ignored(config, manifest):
    config.output.add(name="identity", data_type=2, dims=[32])
    check_config(config, manifest, "edge:8001")


def with_rates(manifest, rates):
    return make_config(manifest, platform="a", backend="b", max_batch=8, delay=0, rates=rates)


def test_a_server_of_payloads_says_so_in_parameters_and_lists_the_latent_alone(manifest, rates):
    config = with_rates(manifest, rates)
    check_config(config, manifest, "edge:8001")
    assert [tensor.name for tensor in config.input] == ["latent"]
    assert capabilities_of(config) == Capabilities("1", f"{rates.key:08x}", probabilities=True, identity=False)
    assert payload_problem(capabilities_of(config), rates, "edge:8001") is None


def test_payloads_are_not_sent_to_a_server_that_takes_none_or_others(config, manifest, rates):
    assert payload_problem(capabilities_of(config), rates, "edge:8001") == "edge:8001 takes no payloads"
    config = with_rates(manifest, rates)
    config.parameters["rates"].string_value = "\x1b[31m" + 500 * "9"
    problem = payload_problem(capabilities_of(config), rates, "edge:8001")
    assert problem == f"edge:8001 has other rates, [31m9999999999999999…; this bundle's are {rates.key:08x}"
    config.parameters["payload"].string_value = "2"
    assert (
        payload_problem(capabilities_of(config), rates, "edge:8001") == "edge:8001 takes payloads of version 2, not 1"
    )
