"""Rows and a setting for the tests of reports and plots."""

from bottlefit_jax.links import report
from bottlefit_jax.links.summary import Row

RATES = (0.25, 1, 5, 20, 100)
SETTING = report.Setting(
    bundle="b version 1",
    command="python -m …",
    link="process",
    link_how="a proxy",
    counts="bytes",
    energy=None,
    slower=1.0,
    count=5,
    images=3,
    machine="a machine",
    notes=["Note."],
)


def row(method, rate, p50, *, delay=5.0, error=None, spread=0.01):
    ms = {} if error else {"total": {"p50": p50, "p95": 1.2 * p50, "p99": 1.3 * p50}}
    interval = None if error else (p50 * (1 - spread), p50 * (1 + spread))
    return Row(method, rate, delay, 0 if error else 50, ms, 100.0, 200.0, None, error, interval)


def example(delay=5.0):
    """Split costs 10 ms and 20 kbit, JPEG 20 ms and 200 kbit, local 60 ms."""
    return [
        row(method, rate, fixed + kilobits / rate + 2 * delay, delay=delay)
        for rate in RATES
        for method, fixed, kilobits in (("split", 10, 20), ("local", 60 - 2 * delay, 0), ("jpeg", 20, 200))
    ]
