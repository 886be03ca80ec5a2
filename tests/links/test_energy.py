import types

import pytest

from bottlefit_jax.links import energy
from bottlefit_jax.links.energy import Watts, find_meter


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


@pytest.fixture
def orin(tmp_path):
    """A Jetson Orin: 5 V and 2 A into the board, of which 1 A goes to the processors; and another chip."""
    write(tmp_path / "class/hwmon/hwmon0/name", "cpu_thermal")
    chip = tmp_path / "class/hwmon/hwmon1"
    write(chip / "name", "ina3221")
    for number, label, milliamperes in ((1, "VDD_IN", 2000), (2, "VDD_CPU_GPU_CV", 1000), (3, "VDD_SOC", 400)):
        write(chip / f"in{number}_label", label)
        write(chip / f"in{number}_input", 5000)
        write(chip / f"curr{number}_input", milliamperes)
    return tmp_path


@pytest.fixture
def x86(tmp_path):
    """Two packages, the memory and cores of the first, and the platform that has it all once more."""
    names = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:2": "psys",
    }
    for folder, name in names.items():
        domain = tmp_path / "class/powercap" / folder
        write(domain / "name", name)
        write(domain / "energy_uj", 1_000_000)
        write(domain / "max_energy_range_uj", 10_000_000)
    return tmp_path


@pytest.fixture
def seconds(monkeypatch):
    """Passed between the first look at the meter's clock and the last, of which each takes half a second."""
    looks = []
    clock = types.SimpleNamespace(monotonic=lambda: looks.append(0.5) or sum(looks))
    monkeypatch.setattr(energy, "time", clock)
    return lambda: sum(looks[1:])


def test_the_rail_into_the_board_is_integrated(orin, seconds):
    meter = find_meter(orin)
    with meter:
        pass
    assert "VDD_IN" in meter.source
    assert "VDD_SOC" not in meter.source
    assert seconds() >= 0.5
    assert meter.joules == pytest.approx(10 * seconds())


def test_rails_without_an_input_rail_are_summed(orin, seconds):
    write(orin / "class/hwmon/hwmon1/in1_label", "VDD_GPU")
    meter = find_meter(orin)
    with meter:
        pass
    assert meter.joules == pytest.approx((10 + 5 + 2) * seconds())


def test_the_older_iio_rails_are_read(tmp_path, seconds):
    chip = tmp_path / "bus/iio/devices/iio:device0"
    for number, name, milliwatts in ((0, "POM_5V_IN", 3000), (1, "POM_5V_GPU", 500)):
        write(chip / f"rail_name_{number}", name)
        write(chip / f"in_power{number}_input", milliwatts)
    meter = find_meter(tmp_path)
    with meter:
        pass
    assert meter.joules == pytest.approx(3 * seconds())


def test_a_rail_that_fails_during_the_measurement_gives_no_energy(orin):
    meter = find_meter(orin)
    with meter:
        (orin / "class/hwmon/hwmon1/curr1_input").unlink()
    assert meter.joules is None


def test_packages_and_memory_are_counted_once(x86):
    meter = find_meter(x86)
    with meter:
        for path in (x86 / "class/powercap").glob("*/energy_uj"):
            write(path, 3_000_000)
    assert meter.joules == pytest.approx(3 * 2.0)
    assert meter.source == "RAPL, package-0 + dram + package-1, the whole processor"


def test_a_counter_that_wraps_around_is_accounted_for(x86):
    meter = find_meter(x86)
    with meter:
        write(x86 / "class/powercap/intel-rapl:0/energy_uj", 400_000)
    assert meter.joules == pytest.approx(0.4 - 1.0 + 10.0)


def test_a_counter_that_cannot_be_read_is_no_meter(x86):
    for path in (x86 / "class/powercap").glob("*/energy_uj"):
        path.unlink()
        path.mkdir()  # root may read any file, but no folder
    assert find_meter(x86) is None
    assert find_meter(x86 / "nothing") is None


def test_stated_watts_are_split_by_what_the_device_does():
    watts = Watts(compute=10, send=4, idle=1)
    # 1,000 bytes at 1 Mbit/s are 8 ms of sending; the other 12 ms of the network and 5 ms of the server are waited for
    energy = watts.millijoules(compute_ms=3, network_ms=20, wait_ms=5, sent=1000, mbit=1)
    assert energy == pytest.approx(10 * 3 + 4 * 8 + 1 * (12 + 5))
    assert watts.millijoules(compute_ms=3, network_ms=0, wait_ms=0, sent=0, mbit=1) == 30
