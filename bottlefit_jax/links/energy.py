"""Energy: what the machine's own meters read, or time x the watts that the user states.

Jetson's INA3221 gives the power of its rails (hwmon, or iio on older systems), x86's RAPL counts microjoules. Both
tell the whole machine, whatever it does.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.02
INPUT_RAILS = ("VDD_IN", "POM_5V_IN", "VDD_IN_SYS", "SYS_VDD_IN")  # these feed all the others


@dataclass(frozen=True)
class Watts:
    """What the user states of the device, in W: it computes, it sends, it waits."""

    compute: float
    send: float
    idle: float

    def millijoules(self, *, compute_ms: float, network_ms: float, wait_ms: float, sent: float, mbit: float) -> float:
        """The energy of one image in mJ.

        Args:
            compute_ms: that the device itself computes.
            network_ms: that it communicates; it sends for as long as the link takes for its bytes, and waits else.
            wait_ms: that the server computes.
            sent: bytes that it sends.
            mbit: the link's rate in Mbit/s.
        """
        sending = min(network_ms, sent * 8e-3 / mbit) if sent else 0.0
        return self.compute * compute_ms + self.send * sending + self.idle * (network_ms - sending + wait_ms)


@dataclass(frozen=True)
class Rail:
    """A rail of an INA3221: files whose product, times `factor`, is W."""

    name: str
    files: tuple[Path, ...]
    factor: float


@dataclass(frozen=True)
class Domain:
    """A RAPL domain: the file that counts microjoules, and the number after which it begins again at 0."""

    name: str
    counter: Path
    largest: int


class PowerMeter:
    """Sums the power of rails, read every SAMPLE_SECONDS while its context lasts.

    Attributes:
        source: what is read, in words.
        joules: what was used, after the context; None where a rail could not be read.
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
        """Add up trapezoids between readings, one at the very beginning and one at the very end included."""
        before, then = self._power(), time.monotonic()
        while True:
            last = self._stop.wait(SAMPLE_SECONDS)
            power, now = self._power(), time.monotonic()
            self._total += (before + power) / 2 * (now - then)
            before, then = power, now
            if last:
                return

    def _power(self) -> float:
        found = [_watts(rail) for rail in self._rails]
        self._failed = self._failed or None in found
        return sum(one for one in found if one is not None)


class CounterMeter:
    """Differences of RAPL's counters. They wrap around after a quarter of an hour at the very least, which a row of
    the measurement seldom lasts; once is allowed for. `source` and `joules` as PowerMeter's.
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
        for domain, begun, ended in zip(self._domains, self._before, after, strict=True):
            if begun is None or ended is None:
                return
            joules += 1e-6 * (ended - begun if ended >= begun else ended - begun + domain.largest)
        self.joules = joules


Meter = PowerMeter | CounterMeter


def find_meter(root: Path | str = "/sys") -> Meter | None:
    """The meter of this machine under `root`, which can be read; None without one."""
    root = Path(root)
    for kind in (_hwmon, _iio):
        rails = [rail for rail in kind(root) if _watts(rail) is not None]
        if rails:
            return PowerMeter(_input_rails(rails))
    domains = [domain for domain in _domains(root) if _integer(domain.counter) is not None]
    return CounterMeter(domains) if domains else None


def _hwmon(root: Path) -> Iterator[Rail]:
    """The rails as Linux has them."""
    for chip in sorted((root / "class/hwmon").glob("hwmon*")):
        if _text(chip / "name") != "ina3221":
            continue
        for number in (1, 2, 3):
            name = _text(chip / f"in{number}_label") or f"{chip.name} rail {number}"
            yield Rail(name, (chip / f"in{number}_input", chip / f"curr{number}_input"), 1e-6)  # mV x mA


def _iio(root: Path) -> Iterator[Rail]:
    """The rails as JetPack 4 has them."""
    for chip in sorted((root / "bus/iio/devices").glob("iio:device*")):
        for number in (0, 1, 2):
            name = _text(chip / f"rail_name_{number}")
            if name:
                yield Rail(name, (chip / f"in_power{number}_input",), 1e-3)  # mW


def _input_rails(rails: list[Rail]) -> list[Rail]:
    """The one rail that feeds the others, or all of them."""
    return [rail for rail in rails if rail.name.upper() in INPUT_RAILS][:1] or rails


def _domains(root: Path) -> Iterator[Domain]:
    """Packages and, where it is counted apart, memory. Cores are part of their package, and psys has it all twice."""
    folder = root / "class/powercap"
    for path in sorted(folder.glob("intel-rapl:*")):
        name, largest = _text(path / "name"), _integer(path / "max_energy_range_uj")
        if name and largest and (name.startswith("package") or name == "dram"):
            yield Domain(name, path / "energy_uj", largest)


def _watts(rail: Rail) -> float | None:
    found = [_integer(path) for path in rail.files]
    watts = rail.factor
    for one in found:
        if one is None:
            return None
        watts *= one
    return watts


def _text(path: Path) -> str | None:
    """A file's one line; None where it is not there or may not be read (RAPL is root's)."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return None


def _integer(path: Path) -> int | None:
    text = _text(path)
    with contextlib.suppress(ValueError, TypeError):
        return int(text)  # pyright: ignore[reportArgumentType]
    return None
