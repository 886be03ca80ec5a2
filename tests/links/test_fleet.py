"""Fleets in virtual time: the server's queue against theory, and the search for the number of servers."""

import json
import math
import random

import pytest

from bottlefit_jax.edge.path import HEAD, LOCAL, Path
from bottlefit_jax.errors import UserError
from bottlefit_jax.links import fleet_plot
from bottlefit_jax.links import simulate as command
from bottlefit_jax.links.fleet import FleetOutcome, devices_of, fewest_servers, run_fleet, simulate_fleet
from bottlefit_jax.links.options import FleetOptions, SimulateOptions
from bottlefit_jax.links.trace import Trace
from bottlefit_jax.links.virtual_server import Events, VirtualServer
from bottlefit_jax.links.world import Outcome, Times
from bottlefit_jax.serve.options import ServerOptions
from tests.bundle import example

PATHS = (Path("fine", 75.0, HEAD, 3000.0, 3500.0), Path("coarse", 70.0, HEAD, 1000.0, 1200.0))
ALONE = Path(LOCAL, 60.0, LOCAL)
STEADY = Trace("steady", (0.0,), (20.0,))
DEVICE = SimulateOptions("bundle", "trace", deadline_ms=100.0, seconds=60.0)
TIMES = Times(0.005, 0.03, 0.02, 0.01)


def served(rate, seconds, *, count=40_000, **options):
    """The mean seconds in queue and tail of Poisson arrivals at one server."""
    events, chance, times, now = Events(), random.Random(1), [], 0.0
    server = VirtualServer(events, lambda images: images * seconds, ServerOptions(**options))
    for _ in range(count):
        now += chance.expovariate(rate)
        events.at(
            now,
            lambda at: server.submit(at, deadline=math.inf, factor=1.0, done=lambda _, waited: times.append(waited)),
        )
    events.run()
    assert len(times) == count
    return sum(times) / count, server


def test_a_server_with_too_much_to_do_still_answers_a_good_part_in_time():
    times = Times(0.005, None, 0.06, 0.015)  # batches of 8 are 48 images a second
    device = SimulateOptions("bundle", "trace", deadline_ms=400.0, seconds=60.0)
    light, heavy = (
        simulate_fleet(FleetOptions(32, every=every), device, [STEADY], PATHS, times, servers=1) for every in (4.0, 0.5)
    )
    assert light.images.percent_in_time > 99.9
    assert light.refused < 0.01 * light.images.images
    assert heavy.images.percent_in_time > 40  # where it computed what is late, 1 %
    assert heavy.batch > 6


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_a_server_without_batches_is_the_queue_of_theory(load):
    """M/D/1: the mean wait is load * service / (2 (1 - load)), by Pollaczek and Khinchine."""
    service = 0.01
    mean, server = served(load / service, service, max_batch=1, queue=10_000)
    assert mean == pytest.approx(service + load * service / (2 * (1 - load)), rel=0.05)
    assert server.busy == pytest.approx(server.images * service)


def test_batches_carry_more_than_single_images():
    one, _ = served(90.0, 0.01, max_batch=1, queue=100_000, count=10_000)
    server = VirtualServer(events := Events(), lambda images: 0.01 + 0.001 * (images - 1), ServerOptions(max_batch=8))
    chance, now, times = random.Random(1), 0.0, []
    for _ in range(10_000):
        now += chance.expovariate(90.0)
        events.at(now, lambda at: server.submit(at, deadline=math.inf, factor=1, done=lambda _, s: times.append(s)))
    events.run()
    assert sum(times) / len(times) < 0.5 * one
    assert server.images / server.batches > 1.2


def test_a_server_that_is_down_refuses_what_it_has_and_what_comes():
    server, answers = VirtualServer(events := Events(), lambda images: 0.5 * images), []
    server.fail(1.2, 2.0)
    for at in (0.0, 1.0, 1.5, 2.1):
        events.at(at, lambda now: server.submit(now, deadline=9.0, factor=1, done=lambda t, s: answers.append((t, s))))
    events.run()
    assert answers == [(0.5, 0.5), (1.5, None), (1.5, None), (2.6, 0.5)]
    assert (server.images, server.refused) == (2, 2)


def test_what_is_due_at_one_time_happens_in_the_order_in_which_it_was_planned():
    events, seen = Events(), []
    for name, time in (("b", 2.0), ("c", 2.0), ("a", 1.0)):
        events.at(time, lambda now, name=name: seen.append((name, now)))
    events.at(1.0, lambda now: events.at(now, lambda now: seen.append(("later", now))))
    events.run()
    assert seen == [("a", 1.0), ("later", 1.0), ("b", 2.0), ("c", 2.0)]


def fleet(**options):
    return FleetOptions(**{"devices": 60, "every": 1.0, **options})


def test_one_slow_server_is_too_few_and_the_search_finds_how_many_it_takes():
    found = run_fleet(fleet(goal=99.0, devices=150), DEVICE, [STEADY], PATHS, TIMES)
    rows = {row["servers"]: row["in_time"] for row in found["rows"]}
    assert rows[1] < 99.0
    assert found["fewest"] > 1
    assert rows[found["fewest"]] >= 99.0
    assert rows[found["fewest"] - 1] < 99.0


def test_a_fleet_with_a_local_network_answers_what_a_dead_server_cannot():
    quiet, outage = (
        simulate_fleet(fleet(outage=each), DEVICE, [STEADY], (*PATHS, ALONE), TIMES, servers=2).to_json()
        for each in (None, (20.0, 40.0))
    )
    assert quiet["in_time"] == 100.0
    assert outage["in_time"] >= 99.9
    assert quiet["paths"].get(LOCAL, 0.0) < 2.0
    assert 10.0 < outage["paths"][LOCAL] < 25.0  # half of the devices for a third of the time
    assert outage["refused"] > quiet["refused"]
    assert quiet["images_per_second"] == pytest.approx(60, rel=0.1)


def test_each_device_begins_somewhere_in_a_trace_and_always_at_the_same_place():
    long = Trace("long", (0.0, 5.0, 50.0), (1.0, 2.0, 3.0))
    devices = devices_of(fleet(every=2.0), [STEADY, long])
    assert devices == devices_of(fleet(every=2.0), [STEADY, long])
    assert {device.trace for device in devices} == {STEADY, long}
    assert all(device.passed < device.trace.seconds and device.begins < 2.0 for device in devices)
    assert len({device.first for device in devices}) > 50
    device = next(device for device in devices if 5.0 < device.passed < 49.0)
    assert device.link.arrives(1.0, 250_000) == pytest.approx(2.0)  # 2 Mbit at 2 Mbit/s


def test_the_same_fleet_has_the_same_outcome():
    one, other = (simulate_fleet(fleet(devices=9), DEVICE, [STEADY], PATHS, TIMES, servers=1) for _ in range(2))
    assert one == other


@pytest.mark.parametrize(("needed", "tried"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5, 6, 8]), (8, [1, 2, 4, 6, 7, 8])])
def test_the_search_halves_what_is_left(needed, tried):
    def run(servers):
        images = Outcome(images=100, times=[0.1] * (100 if servers >= needed else 50))
        return FleetOutcome(servers, 1.0, images, 0, 100.0, 1.0)

    assert [each.servers for each in fewest_servers(run, 99.9)] == tried


def test_a_goal_that_no_number_of_servers_keeps_is_an_error():
    slow = Trace("slow", (0.0,), (0.05,))
    with pytest.raises(UserError, match=r"--goal 99 is out of reach: 4 servers run for .* the devices set the limit"):
        run_fleet(fleet(goal=99.0, devices=10, every=10.0), DEVICE, [slow], PATHS, TIMES)


@pytest.fixture
def flags(tmp_path):
    example.write(tmp_path / "bundle", **example.with_rates())
    (tmp_path / "trace.csv").write_text("seconds,mbit_per_s\n0,5\n10,1\n")
    words = [
        "--bundle",
        tmp_path / "bundle",
        "--trace",
        tmp_path / "trace.csv",
        "--deadline-ms",
        "100",
        "--head-ms",
        "2",
    ]
    return [*map(str, words), "--tail-ms", "5", "--seconds", "20"]


def test_a_fleet_is_a_table_or_an_object_and_a_plot(flags, tmp_path, capsys):
    plot = tmp_path / "fleet.png"
    assert command.main([*flags, "--devices", "20", "--every", "1", "--goal", "90", "--plot", str(plot)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("20 devices, an image every 1 s each, deadlines of 100 ms\nservers  in time, %")
    assert "\ngoal of 90 %: 1 server" in out
    assert err.startswith("1 server: ")
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert command.main([*flags, "--devices", "20", "--servers", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["devices"], found["fewest"], found["rows"][0]["servers"]) == (20, None, 2)


def found(*servers, goal=None, fewest=None):
    """A fleet with so many servers; each answers 30 % of the images."""
    rows = [{"servers": count, "in_time": min(30.0 * count, 99.5), "busy": 100 / count} for count in servers]
    shared = {"devices": 1000, "every": 2.0, "deadline_ms": 100.0}
    return {**shared, "goal": goal, "fewest": fewest, "rows": rows}


@pytest.mark.parametrize(
    ("fleet", "title"),
    [
        (found(1, 2, 4, goal=50, fewest=2), "2 servers answer 60.00 % within 100 ms"),
        (found(1), "1 server answers 30.00 % within 100 ms"),
        (found(3000), "3,000 servers answer 99.50 % within 100 ms"),
    ],
)
def test_the_plot_of_a_fleet_says_what_its_servers_answer(fleet, title):
    plot = fleet_plot._figure(fleet)
    assert plot.get_suptitle() == f"{title} (1,000 devices, an image every 2 s each)"
    (axes,) = plot.axes
    (ring,) = [line for line in axes.lines if line.get_gid() == "chosen"]
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert left * 1.25 < ring.get_xdata()[0] < right / 1.25
    assert low < ring.get_ydata()[0] < high
    assert right / left < 10
    assert all(tick >= 1 and tick == int(tick) for tick in axes.get_xticks())
    assert "servers" in axes.get_xlabel()
    assert "%" in axes.get_ylabel()


@pytest.mark.parametrize("goal", [None, 50, 99.9])
def test_texts_of_a_fleet_are_in_the_image_and_the_legend_hides_nothing(goal):
    plot = fleet_plot._figure(found(1, 2, 4, 8, 1024, goal=goal, fewest=1024))
    plot.draw_without_rendering()
    (axes,), (legend,) = plot.axes, plot.legends
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())
    for text in (plot._suptitle, axes.xaxis.label, axes.yaxis.label, *axes.texts):
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= plot.bbox.width + 1, text
        assert 0 <= box.y0 < box.y1 <= plot.bbox.height + 1, text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--servers", "2"], "--servers goes with --devices N only"),
        (["--devices", "0"], "--devices is 0; it must be 1 to 1,000,000"),
        (["--devices", "5", "--fps", "3"], "--fps does not go with --devices"),
        (["--devices", "5", "--servers", "3", "--goal", "9"], "--servers and --goal exclude each other"),
        (["--devices", "5", "--goal", "101"], "--goal is 101; it must be 0 to 100"),
        (["--devices", "5", "--outage", "9-3"], "'9-3' is not a time: give seconds such as 60-120"),
        (["--devices", "5", "--every", "nan"], "--every is nan"),
    ],
)
def test_a_mistake_is_one_line(flags, more, message, capsys):
    assert command.main([*flags, *more]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
