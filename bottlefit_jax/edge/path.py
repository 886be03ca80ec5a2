"""The ways in which a device can get a prediction: at a rate of the bundle, by itself, or by sending the image."""

import math
from dataclasses import dataclass
from functools import cached_property

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.errors import UserError

LOCAL = "local"
P95 = 1.645  # standard deviations above the mean of a normal distribution
HEAD = "head"  # what a device computes of a path to the server


@dataclass(frozen=True)
class Path:
    """A way to get a prediction.

    Attributes:
        name: a rate's id, or LOCAL.
        top1: how many of a hundred predictions are right.
        work: what the device computes: HEAD or LOCAL; paths of one work take the device the same time.
        bytes_mean: of a payload; 0 where nothing is sent.
        bytes_p95: of a payload; 95 percent have at most so many.
    """

    name: str
    top1: float
    work: str
    bytes_mean: float = 0.0
    bytes_p95: float = 0.0

    @cached_property
    def varied(self) -> float:
        """The variance of the logarithm of a payload's bytes, for a path that sends something."""
        return (math.log(max(self.bytes_p95 / self.bytes_mean, 1.0)) / P95) ** 2


def paths_of(manifest: Manifest, *, local: bool) -> tuple[Path, ...]:
    """Return the paths of a bundle, those that send the most first, and the local one at the end.

    Args:
        manifest: of the bundle.
        local: whether the device may run the whole network.

    Raises:
        UserError: the bundle has no rates, so that nothing is known of their accuracy; or `local`, and it has no
            network for it.
    """
    rates = [Path(rate.id, rate.top1, HEAD, rate.bytes_mean, rate.bytes_p95) for rate in manifest.rates]
    if not rates:
        raise UserError("the bundle has no rates, and so no accuracies to choose by: export it again")
    rates.sort(key=lambda path: -path.bytes_mean)
    if not local:
        return tuple(rates)
    if manifest.local is None:
        raise UserError("the bundle has no network to run locally: export it with --local")
    top1 = manifest.local.top1
    if top1 is None:  # older bundles do not say how good it is; as it has no quantiser, no rate is better
        top1 = max(path.top1 for path in rates)
    return (*rates, Path(LOCAL, top1, LOCAL))
