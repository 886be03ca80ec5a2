"""Energy: measured by the machine's own meters, or modelled as time x the watts that the user states.

Jetson's INA3221 measures the power of its rails (hwmon, or iio on older systems), x86's RAPL counts microjoules. Both
measure the whole machine, whatever it does.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.02
INPUT_RAILS = ("VDD_IN", "POM_5V_IN", "VDD_IN_SYS", "SYS_VDD_IN")  # a rail of these names feeds all the others


@dataclass(frozen=True)
class Watts:
    """The power that the user states for the device, in W.

    Attributes:
        compute: while it computes.
        send: while it sends.
        idle: while it waits.
    """

    compute: float
    send: float
    idle: float

    def millijoules(self, *, compute_ms: float, network_ms: float, wait_ms: float, sent: float, mbit: float) -> float:
        """Return the energy of one image in mJ.

        Args:
            compute_ms: in which the device computes.
            network_ms: in which it communicates: it sends as long as the link takes for its bytes, and waits the rest.
            wait_ms: in which the server computes.
            sent: bytes that the device sends.
            mbit: the link's rate in Mbit/s.
        """
        sending = min(network_ms, sent * 8e-3 / mbit) if sent else 0.0
        return self.compute * compute_ms + self.send * sending + self.idle * (network_ms - sending + wait_ms)


@dataclass(frozen=True)
class Rail:
    """A rail of an INA3221: the product of its files, times `factor`, is its power in W."""

    name: str
    files: tuple[Path, ...]
    factor: float


@dataclass(frozen=True)
class Domain:
    """A RAPL domain: the file that counts microjoules, and the number after which it starts again at 0."""

    name: str
    counter: Path
    largest: int


class PowerMeter:
    """A context that integrates the power of rails, read every SAMPLE_SECONDS.

    Attributes:
        source: what is read, in words.
        joules: the energy, after the context; None where a rail could not be read.
    """

    def __init__(self, rails: list[Rail]):
        self._rails = rails
        self.source = f"INA3221, {' + '.join(rail.name for rail in rails)}, the whole board"
        self.joules: float | None = None

    def __enter__(self) -> "PowerMeter":
        self.joules = None
        self._total, self._failed = 0.0, False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.joules = None if self._failed else self._total

    def _sample(self) -> None:
        """Sum trapezoids between readings; the first is at the start, the last at the end."""
        last_power, last_time = self._power(), time.monotonic()
        while True:
            stopped = self._stop.wait(SAMPLE_SECONDS)
            power, now = self._power(), time.monotonic()
            self._total += (last_power + power) / 2 * (now - last_time)
            last_power, last_time = power, now
            if stopped:
                return

    def _power(self) -> float:
        powers = [_watts(rail) for rail in self._rails]
        self._failed = self._failed or None in powers
        return sum(power for power in powers if power is not None)


class CounterMeter:
    """A context that takes the differences of RAPL's counters.

    A counter starts again at 0 after a quarter of an hour at the earliest, and a row of the measurement is seldom
    longer; once is accounted for.

    Attributes:
        source: as of PowerMeter.
        joules: as of PowerMeter.
    """

    def __init__(self, domains: list[Domain]):
        self._domains = domains
        self.source = f"RAPL, {' + '.join(domain.name for domain in domains)}, the whole processor"
        self.joules: float | None = None

    def __enter__(self) -> "CounterMeter":
        self.joules = None
        self._before = [_integer(domain.counter) for domain in self._domains]
        return self

    def __exit__(self, *_: object) -> None:
        after = [_integer(domain.counter) for domain in self._domains]
        joules = 0.0
        for domain, start, end in zip(self._domains, self._before, after, strict=True):
            if start is None or end is None:
                return
            joules += 1e-6 * (end - start if end >= start else end - start + domain.largest)
        self.joules = joules


Meter = PowerMeter | CounterMeter


def find_meter(root: Path | str = "/sys") -> Meter | None:
    """Return a meter of this machine that can be read; None without one.

    Args:
        root: where sysfs is.
    """
    root = Path(root)
    for kind in (_hwmon, _iio):
        rails = [rail for rail in kind(root) if _watts(rail) is not None]
        if rails:
            return PowerMeter(_input_rails(rails))
    domains = [domain for domain in _domains(root) if _integer(domain.counter) is not None]
    return CounterMeter(domains) if domains else None


def _hwmon(root: Path) -> Iterator[Rail]:
    """Yield the rails as Linux has them."""
    for chip in sorted((root / "class/hwmon").glob("hwmon*")):
        if _text(chip / "name") != "ina3221":
            continue
        for number in (1, 2, 3):
            name = _text(chip / f"in{number}_label") or f"{chip.name} rail {number}"
            yield Rail(name, (chip / f"in{number}_input", chip / f"curr{number}_input"), 1e-6)  # mV x mA


def _iio(root: Path) -> Iterator[Rail]:
    """Yield the rails as JetPack 4 has them."""
    for chip in sorted((root / "bus/iio/devices").glob("iio:device*")):
        for number in (0, 1, 2):
            name = _text(chip / f"rail_name_{number}")
            if name:
                yield Rail(name, (chip / f"in_power{number}_input",), 1e-3)  # mW


def _input_rails(rails: list[Rail]) -> list[Rail]:
    """Return the one rail that feeds the others, or all of them."""
    return [rail for rail in rails if rail.name.upper() in INPUT_RAILS][:1] or rails


def _domains(root: Path) -> Iterator[Domain]:
    """Yield packages and memory, where that has a counter. Cores are part of their package; psys counts all again."""
    folder = root / "class/powercap"
    for path in sorted(folder.glob("intel-rapl:*")):
        name, largest = _text(path / "name"), _integer(path / "max_energy_range_uj")
        if name and largest and (name.startswith("package") or name == "dram"):
            yield Domain(name, path / "energy_uj", largest)


def _watts(rail: Rail) -> float | None:
    watts = rail.factor
    for path in rail.files:
        value = _integer(path)
        if value is None:
            return None
        watts *= value
    return watts


def _text(path: Path) -> str | None:
    """Return a file's one line; None where it does not exist or this user may not read it (RAPL needs root)."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return None


def _integer(path: Path) -> int | None:
    text = _text(path)
    with contextlib.suppress(ValueError, TypeError):
        return int(text)  # pyright: ignore[reportArgumentType]
    return None
