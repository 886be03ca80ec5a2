"""Methods, links and servers that a test controls, and a measurement of them."""

import numpy as np

from bottlefit_jax.errors import UserError
from bottlefit_jax.links import measure
from bottlefit_jax.links.summary import Sample

IMAGES = [np.zeros((4, 4, 3), np.uint8)]


class Steady:
    """A method that takes a fixed time, and raises an error after some images."""

    def __init__(self, name, ms, error=None, at=0):
        self.name, self.ms, self.error, self.at, self.calls = name, ms, error, at, 0

    def once(self, image):
        self.calls += 1
        if self.error is not None and self.calls > self.at:
            raise self.error
        return Sample({"preprocess": 1.0, "head": self.ms - 1, "total": self.ms}, 10)


class Wire:
    """A link that records its shapes."""

    def __init__(self):
        self.shapes, self.bytes = [], 0

    def shape(self, rate, delay):
        self.shapes.append((rate, delay))

    def sent(self):
        self.bytes += 100
        return self.bytes


class Fragile:
    """A server that has ended, until it is started again."""

    name = "edge server"

    def __init__(self, why=None, starts=True):
        self.why, self.starts, self.started = why, starts, 0

    def lost(self):
        return self.why

    def start(self):
        self.started += 1
        if not self.starts:
            raise UserError("the edge server did not start: no memory")
        self.why = None


def run(methods, *, servers=(), rates=(1, 5), delays=(5,), count=4, **options):
    wire, lines = Wire(), []
    rows, stopped = measure.measure_all(
        {method.name: method for method in methods},
        servers,
        wire,
        IMAGES,
        rates=rates,
        delays=delays,
        count=count,
        progress=lines.append,
        **options,
    )
    return rows, stopped, wire, lines
