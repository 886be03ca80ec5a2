"""Payloads, the likeliest classes, and what the device does where a server does not know them."""

import json
import logging
import shutil
import sys

import grpc
import numpy as np
import pytest

from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.codec import wire
from bottlefit_jax.edge.__main__ import main
from bottlefit_jax.edge.client import EdgeClient
from bottlefit_jax.errors import ProtocolError, UserError
from tests.bundle import example
from tests.edge.conftest import LATENT
from tests.edge.test_client import latent_of, refusal

RAW_BYTES = int(np.prod(LATENT))
OTHER_RATES = example.rates(LATENT, steps={"other": 3})


@pytest.fixture
def rates(rated):
    return read_bundle(rated).read_rates()


@pytest.fixture
def new(tail, rates):
    """The tail as a server of today has it."""
    tail.rates, tail.probabilities = rates, True
    return tail


def sent_latent(image, rates, rate):
    """The latent that the server restores."""
    return wire.decode(wire.encode(latent_of(image), rates.get(rate)), rates)


@pytest.mark.parametrize(("given", "rate"), [(None, "coarse"), ("lossless", "lossless")])
def test_an_image_goes_out_as_a_payload_of_the_chosen_rate(rated, server, new, rates, image, given, rate):
    with EdgeClient(rated, server, rate=given, policy="fixed") as client:
        prediction = client.infer(image)
    payload = wire.encode(latent_of(image), rates.get(rate))
    (request,) = new.requests
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("payload", "BYTES", [1, 1])
    assert list(request.raw_input_contents) == [len(payload).to_bytes(4, "little") + payload]
    assert request.parameters["head"].string_param == "a" * 32
    assert prediction.index == sent_latent(image, rates, rate).sum() % 10
    assert prediction.bytes_sent.payload == len(payload)
    assert prediction.bytes_sent.protocol == request.ByteSize() - len(payload)
    assert prediction.timings.encode > 0


def test_the_likeliest_classes_are_asked_for_by_name(rated, server, new, image):
    with EdgeClient(rated, server, top=3) as client:
        prediction = client.infer(image)
    (output,) = new.requests[0].outputs
    assert (output.name, output.parameters["classification"].int64_param) == ("probabilities", 3)
    assert prediction.top[0] == (f"class {prediction.index}", prediction.index, prediction.probability)
    assert prediction.probability == pytest.approx(np.exp(5) / (np.exp(5) + 9), abs=1e-6)
    assert len(prediction.top) == 3
    assert prediction.probabilities is None


def test_more_classes_than_there_are_is_all_of_them(rated, server, new, image):
    with EdgeClient(rated, server, top=99) as client:
        assert len(client.infer(image).top) == 10
        assert len(client.infer_local(image).top) == 10
    assert new.requests[0].outputs[0].parameters["classification"].int64_param == 10


def test_the_probabilities_of_all_classes_are_an_answer_on_request(rated, server, new, image):
    with EdgeClient(rated, server, full=True, top=2) as client:
        prediction = client.infer(image)
    assert not new.requests[0].outputs[0].parameters
    assert prediction.probabilities.sum() == pytest.approx(1)
    assert len(prediction.top) == 2


@pytest.mark.parametrize("probabilities", [False, True])
def test_a_server_without_payloads_gets_the_latent_and_is_warned_about_once(
    rated, server, tail, image, caplog, probabilities
):
    tail.probabilities = probabilities
    with caplog.at_level(logging.WARNING), EdgeClient(rated, server) as client:
        for _ in range(2):
            prediction = client.infer(image)
    assert prediction.index == latent_of(image).sum() % 10
    assert prediction.bytes_sent.payload == RAW_BYTES
    assert tail.requests[0].inputs[0].name == "latent"
    (record,) = caplog.records
    assert record.getMessage() == f"warning: raw latents are sent, which are larger: {server} takes no payloads"


def test_a_server_with_other_rates_of_the_same_head_gets_the_latent(rated, server, new, image, caplog):
    new.rates = OTHER_RATES
    with caplog.at_level(logging.WARNING), EdgeClient(rated, server) as client:
        assert client.infer(image).index == latent_of(image).sum() % 10
    (record,) = caplog.records
    assert f"{server} has other rates, {new.rates.key:08x}; this bundle's are " in record.getMessage()


def test_raw_needs_neither_rates_nor_a_warning(rated, bundle, server, new, image, caplog):
    for folder, rate in ((rated, "raw"), (bundle, None)):
        with EdgeClient(folder, server, rate=rate) as client:
            sent = client.infer(image)
            assert sent.bytes_sent.payload == RAW_BYTES
            assert sent.timings.encode == 0
    assert not caplog.records


def test_an_unknown_rate_is_refused(rated, bundle, server):
    assert "rate is 'fine'; this bundle has raw, lossless, coarse" in refusal(EdgeClient, rated, server, rate="fine")
    assert "rate is 'coarse'; this bundle has raw" in refusal(EdgeClient, bundle, server, rate="coarse")
    assert "top is 0: give 1 or more" in refusal(EdgeClient, bundle, server, top=0)


def test_a_device_needs_the_tables_as_the_manifest_has_them(rated, server, tmp_path):
    folder = shutil.copytree(rated, tmp_path / "b")
    (folder / "rates.json").write_text("{}")
    assert "rates.json" in refusal(EdgeClient, folder, server)
    (folder / "rates.json").unlink()
    assert "rates.json is missing" in refusal(EdgeClient, folder, server)


def test_on_triton_payloads_go_to_the_ensemble_and_the_ids_are_asked_for(rated, server, new, rates, image):
    new.triton, new.identity = True, None
    with EdgeClient(rated, server, policy="fixed") as client:
        prediction = client.infer(image)
        assert prediction.index == sent_latent(image, rates, "coarse").sum() % 10
        new.head = "d" * 64
        with pytest.raises(UserError, match="another head, dddddddddddd"):
            client.infer(image)
    request = new.requests[0]
    assert request.model_name == "digits-payload"
    assert 0 < request.parameters["timeout"].int64_param <= 60_000_000  # microseconds, for Triton's queue
    assert [output.name for output in request.outputs] == ["probabilities", "identity"]


def test_on_triton_without_the_ensemble_the_tail_gets_the_latent(rated, server, new, image, caplog):
    new.triton, new.identity, new.rates = True, None, None
    with caplog.at_level(logging.WARNING), EdgeClient(rated, server) as client:
        assert client.infer(image).index == latent_of(image).sum() % 10
    assert new.requests[0].model_name == "digits"
    assert "takes no payloads" in caplog.text


@pytest.mark.parametrize("change", [{"rates": None}, {"rates": None, "probabilities": False}, {"rates": OTHER_RATES}])
def test_a_server_that_comes_back_as_another_one_gets_what_it_takes(rated, server, new, image, change, caplog):
    with EdgeClient(rated, server) as client:
        client.infer(image)
        vars(new).update(change)
        assert client.infer(image).index == latent_of(image).sum() % 10
    assert [request.inputs[0].name for request in new.requests] == ["payload", "payload", "latent"]
    assert len(caplog.records) == 1


def test_a_payload_that_is_refused_by_the_same_server_fails_its_image_alone(rated, server, new, image):
    with EdgeClient(rated, server) as client:
        client.infer(image)
        new.refusals = [grpc.StatusCode.INVALID_ARGUMENT]
        with pytest.raises(ProtocolError, match="INVALID_ARGUMENT: come back later"):
            client.infer(image)
        client.infer(image)


def test_the_decoder_is_not_part_of_the_network(rated, server, new, image):
    new.seconds, new.parameters = 0.05, {"tail_us": 30_000, "queue_us": 5_000, "decode_us": 10_000}
    with EdgeClient(rated, server) as client:
        timings = client.infer(image).timings
    assert (timings.queue, timings.decode, timings.tail) == (5, 10, 30)
    parts = timings.preprocess + timings.head + timings.quantizer + timings.encode + timings.network
    assert timings.total == pytest.approx(parts + 45, abs=1)


def test_an_answer_of_another_head_is_refused_where_connections_cannot_be_told_apart(
    rated, server, new, image, monkeypatch
):
    """Off Linux there are no counters of TCP: each message is checked by what it says."""
    monkeypatch.setattr("bottlefit_jax.edge.tcp_counters._open_sockets", lambda: iter(()))
    with EdgeClient(rated, server) as client:
        assert client.infer(image).bytes_sent.transport is None
        new.head = "d" * 64
        with pytest.raises(UserError, match="another head, dddddddddddd"):
            client.infer(image)
        new.head, new.alter = "a" * 64, other_head  # the server says that it has our tail
        with pytest.raises(UserError, match="answered with the tail of another head, eeeeeeeeeeee"):
            client.infer(image)
        new.alter = lambda response: response
        client.infer(image)


def other_head(response):
    response.parameters["head"].string_param = "e" * 32


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="TCP_INFO is Linux's")
def test_a_payload_costs_at_most_200_bytes_of_framing(rated, server, new, image):
    with EdgeClient(rated, server) as client:
        client.infer(image)
        sent = [client.infer(image).bytes_sent for _ in range(9)]
    assert max(one.protocol for one in sent) <= 200
    # on a warm connection, with HTTP/2; the median, since now and then there is a ping
    assert sorted(one.total - one.payload for one in sent)[4] <= 200


def test_the_command_sends_at_a_rate_and_shows_as_many_classes_as_it_asks_for(
    rated, server, new, rates, image, image_file, capsys
):
    command = ["--bundle", str(rated), "--server", server, str(image_file)]
    assert main([*command, "--rate", "lossless", "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["bytes_sent"]["payload"] == len(wire.encode(latent_of(image), rates.get("lossless")))
    assert len(line["top"]) == 5
    for flags, count in (((), 1), (("--top", "3"), 3)):
        assert main([*command, *flags]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1 + count
    assert [request.outputs[0].parameters["classification"].int64_param for request in new.requests] == [5, 5, 3]
    assert main([*command, "--rate", "fine"]) == 2
    assert capsys.readouterr().err == "error: rate is 'fine'; this bundle has raw, lossless, coarse\n"
