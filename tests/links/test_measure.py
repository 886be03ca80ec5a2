"""What becomes of a measurement whose methods, links and servers fail, are interrupted, or do not."""

import pytest

from bottlefit_jax.errors import ProtocolError, Unavailable, UserError
from bottlefit_jax.links import measure
from bottlefit_jax.links.energy import Watts
from bottlefit_jax.links.summary import METHODS, Sample
from tests.links.fakes import IMAGES, Fragile, Steady, Wire, run


def test_rows_come_in_order_and_local_is_measured_once():
    local = Steady("local", 7.0)
    rows, stopped, wire, lines = run([Steady("split", 3.0), local, Steady("jpeg", 9.0)], delays=(5, 40))
    assert [(one.delay_ms, one.rate_mbit, one.method) for one in rows] == [
        (delay, rate, method) for delay in (5, 40) for rate in (1, 5) for method in METHODS
    ]
    assert not stopped
    assert local.calls == measure.WARM_UP + 4
    assert all(one.p(50) == {"split": 3, "local": 7, "jpeg": 9}[one.method] for one in rows)
    assert wire.shapes[0] == (1, 5)
    assert lines[0] == "5 ms, 1 Mbit/s, split: 3.0 ms"


def test_energy_is_the_model_of_the_stated_watts():
    rows, *_ = run([Steady("local", 7.0)], rates=(1,), watts=Watts(2, 5, 1))
    assert rows[0].energy_mj == pytest.approx(2 * 7)


def test_a_slower_device_computes_longer_and_network_and_server_stay_as_measured():
    sample = Sample({"preprocess": 1.0, "head": 2.0, "quantizer": 0.5, "network": 10.0, "tail": 30.0, "total": 44.0}, 7)
    found = sample.on_a_slower_device(4)
    wanted = {"preprocess": 4.0, "head": 8.0, "quantizer": 2.0, "network": 10.0, "tail": 30.0, "total": 44 + 3 * 3.5}
    assert found == Sample(wanted, 7)
    rows, *_ = run([Steady("local", 7.0)], rates=(1,), slower=4)
    assert rows[0].p(50) == 28


def test_a_method_that_sends_nothing_has_no_bytes_of_idle_connections():
    class Silent(Steady):
        def once(self, image):
            return Sample(super().once(image).ms)

    rows, *_ = run([Silent("local", 7.0), Steady("jpeg", 9.0)], rates=(1,))
    assert [one.bytes_sent for one in rows] == [0, 25]


def test_a_failure_is_a_row_and_the_other_rows_are_measured():
    rows, stopped, *_ = run([Steady("split", 3.0, UserError("no answer"), at=measure.WARM_UP + 1), Steady("jpeg", 9.0)])
    assert rows[0].error == "no answer, after 1 of 4 images"
    assert rows[0].images == 1
    assert (rows[0].ms["total"]["p50"], rows[0].p(50)) == (3, None)
    assert rows[2].error == "no answer, after 0 of 4 images"
    assert rows[1].p(50) == 9
    assert not stopped


@pytest.mark.parametrize("error", [UserError("no"), Unavailable("no"), ProtocolError("no")])
def test_every_error_of_a_method_is_a_row(error):
    rows, stopped, *_ = run([Steady("split", 3.0, error), Steady("jpeg", 9.0)], rates=(1,))
    assert [one.error for one in rows] == ["no, after 0 of 4 images", None]
    assert not stopped


def test_an_interruption_keeps_the_measured_rows():
    rows, stopped, *_ = run([Steady("split", 3.0), Steady("jpeg", 9.0, KeyboardInterrupt(), at=measure.WARM_UP + 2)])
    assert stopped
    assert [one.error for one in rows] == [None, "interrupted, after 2 of 4 images", "interrupted", "interrupted"]


def test_an_interruption_between_two_rows_loses_none():
    def progress(line):
        raise KeyboardInterrupt

    methods = {"split": Steady("split", 3.0), "local": "export it with --local"}
    rows, stopped = measure.measure_all(
        methods, [], Wire(), IMAGES, rates=[1, 5], delays=[5], count=4, progress=progress
    )
    assert stopped
    assert [one.error for one in rows] == [None, "export it with --local", "interrupted", "export it with --local"]


def test_a_server_that_has_ended_is_started_again():
    server = Fragile("it ended with signal 9")
    rows, _, _, lines = run([Steady("split", 3.0)], servers=[server])
    assert (server.started, rows[0].error) == (1, None)
    assert lines[0] == "the edge server is started again: it ended with signal 9"


def test_a_server_that_does_not_start_again_is_the_reason_in_every_row():
    rows, stopped, *_ = run([Steady("split", 3.0)], servers=[Fragile("gone", starts=False)])
    assert [one.error for one in rows] == ["the edge server did not start: no memory"] * 2
    assert not stopped


def test_a_method_that_is_not_available_gives_rows_with_the_reason():
    wire = Wire()
    rows, _ = measure.measure_all({"local": "export it with --local"}, [], wire, [], rates=[1], delays=[5], count=1)
    assert (rows[0].error, wire.shapes) == ("export it with --local", [])
