"""New tails and new heads on a server that runs, and what devices see."""

import shutil

import pytest

from bottlefit_jax.errors import Unavailable, UserError
from bottlefit_jax.serve.load import main as load
from tests.bundle import example as bundle_example
from tests.edge.conftest import LATENT, manifest
from tests.operations import OTHER_HEAD, device, write
from tests.serve import example


@pytest.fixture
def server(bundles):
    with example.serving(parents=[bundles], metrics_port=0, repository_port=0) as running:
        yield running


@pytest.fixture
def reload(server, capsys):
    """A function that loads what is in the folder, and returns what is served."""

    def change():
        assert load(["--server", f"127.0.0.1:{server.repository_port}", "digits"]) == 0
        return capsys.readouterr().out.splitlines()

    return change


def test_a_new_tail_answers_the_next_image_and_an_old_one_after_it_is_taken_back(
    bundle, bundles, server, reload, answered, image, tmp_path
):
    one = bundles / "digits-1"
    with device(one, server.address) as free, device(one, server.address, version=1) as pinned:
        for client in (free, pinned):
            client.infer(image)
        assert answered(server.metrics_port) == {1: 2}
        write(bundles / "digits-2", bundle, version=2, seed=2)
        assert reload() == ["digits:1 READY", "digits:2 READY"]
        for client in (free, pinned):
            client.infer(image)
        assert answered(server.metrics_port) == {1: 3, 2: 1}
        shutil.move(bundles / "digits-2", tmp_path / "retired")
        assert reload() == ["digits:1 READY"]
        free.infer(image)
        assert answered(server.metrics_port) == {1: 4, 2: 1}


def test_devices_of_two_heads_each_get_the_tail_of_theirs(bundle, bundles, server, reload, answered, image, tmp_path):
    new = write(tmp_path / "new", bundle, version=2, head=OTHER_HEAD, seed=2)
    old = shutil.copytree(bundles / "digits-1", tmp_path / "old")
    with device(new, server.address) as client, pytest.raises(UserError, match="belongs to another head, aaaaaaaaaaaa"):
        client.infer(image)
    with device(old, server.address) as running:
        running.infer(image)
        shutil.copytree(new, bundles / "digits-2")
        reload()
        running.infer(image)
        for folder in (old, new):
            with device(folder, server.address) as client:
                client.infer(image)
        assert answered(server.metrics_port) == {1: 3, 2: 1}
        shutil.rmtree(bundles / "digits-1")
        assert reload() == ["digits:2 READY"]
        with pytest.raises(UserError, match="FAILED_PRECONDITION: the tail of model 'digits' belongs to head cccccccc"):
            running.infer(image)
    with device(old, server.address) as client, pytest.raises(UserError, match="belongs to another head, cccccccccccc"):
        client.infer(image)


def test_a_device_that_is_kept_on_a_version_that_is_gone_gets_no_answer(bundles, server, image):
    kept = device(bundles / "digits-1", server.address, version=9, deadline_ms=300)
    with kept as client, pytest.raises(Unavailable, match="no answer from"):
        client.infer(image)


def test_payloads_become_raw_latents_where_the_server_has_other_rates(bundles, server, image, tmp_path, caplog):
    other = shutil.copytree(bundles / "digits-1", tmp_path / "other")
    files = {
        path.name: path.read_bytes() for path in other.iterdir() if path.name not in ("manifest.json", "rates.json")
    }
    values = {key: value for key, value in manifest().items() if key not in ("files", "rates", "default_rate")}
    tables = bundle_example.rates(LATENT, steps={"lossless": 1, "coarser": 16})
    bundle_example.write(other, **bundle_example.with_rates(tables, files=files, **values))
    with device(other, server.address) as client:
        assert client.infer(image).bytes_sent.payload == LATENT[0] * LATENT[1] * LATENT[2]
    assert "raw latents are sent, which are larger" in caplog.text
    with device(bundles / "digits-1", server.address) as client:
        assert client.infer(image).bytes_sent.payload < LATENT[0] * LATENT[1] * LATENT[2]
