"""Shaped links, and what is measured over them. Runs where there is no JAX.

`python -m bottlefit_jax.links.bench` measures, `python -m bottlefit_jax.links.jpeg_server` is its server for JPEG.
"""

from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from bottlefit_jax.links.energy import Watts, find_meter
    from bottlefit_jax.links.link import DirectLink, Link, ShapedLink
    from bottlefit_jax.links.measure import measure_all
    from bottlefit_jax.links.options import BenchOptions
    from bottlefit_jax.links.shaper import open_link
    from bottlefit_jax.links.summary import Crossing, Row, Sample, crossings

__all__ = [
    "BenchOptions",
    "Crossing",
    "DirectLink",
    "Link",
    "Row",
    "Sample",
    "ShapedLink",
    "Watts",
    "crossings",
    "find_meter",
    "measure_all",
    "open_link",
]

__getattr__ = exports(
    __name__,
    {
        "energy": ("Watts", "find_meter"),
        "link": ("DirectLink", "Link", "ShapedLink"),
        "measure": ("measure_all",),
        "options": ("BenchOptions",),
        "shaper": ("open_link",),
        "summary": ("Crossing", "Row", "Sample", "crossings"),
    },
)
