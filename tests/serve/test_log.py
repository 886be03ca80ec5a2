"""Which calls are logged."""

import logging

import pytest

from bottlefit_jax.serve.log import CallLog
from tests.serve import example


@pytest.mark.parametrize(("one_in", "lines"), [(1, 10), (3, 4), (0, 0)])
def test_calls_are_sampled_by_method_and_status(one_in, lines):
    log = CallLog(one_in)
    assert sum(log.takes("ModelInfer", "OK") for _ in range(10)) == lines
    assert log.takes("ModelInfer", "INTERNAL") == (one_in > 0)
    assert log.takes("ModelConfig", "OK") == (one_in > 0)


def test_a_server_logs_one_line_for_so_many_calls(tmp_path, caplog):
    bundle = example.write(tmp_path / "a")
    with (
        caplog.at_level(logging.INFO, logger="bottlefit_jax.serve"),
        example.serving(bundle, log_calls=4) as running,
        example.channel_to(running.address) as channel,
    ):
        method = example.raw_method(channel, "ModelInfer")
        for number in range(9):
            method(example.infer_request(example.latents(), id=f"{number}").SerializeToString(), timeout=60)
    calls = [record.fields["request"] for record in caplog.records if record.getMessage() == "call"]
    assert calls == ["0", "4", "8"]
