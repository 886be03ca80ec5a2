"""The bottlenecks that BottleFit is compared with. Importing this file registers them by name."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bottlefit_jax.models.designs import NORM_RELU, RESIZE, Design, Layer, conv, register
from bottlefit_jax.models.layers import ConvNorm, Linear, Style, global_average


class EarlyExit(nn.Module):
    """SPINN's early exit: convolution 3×3/2 of as many channels, BN, ReLU, mean over the image, linear layer."""

    classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Classify the feature at the cut.

        Args:
            x: `[B, h, w, c]`.
            train: the batch norm uses and records the batch's statistics.

        Returns:
            Logits `[B, classes]`.
        """
        x = ConvNorm(Style(self.dtype), x.shape[-1], 3, 2, 1, activation=nn.relu, name="0")(x, train)
        return Linear(self.classes, self.dtype, name="1")(global_average(x))


DESIGNS = {
    # Split computing before BottleFit. A transposed convolution 2×2 of stride 1 is a convolution 2×2 with padding 1 and
    # its kernel rotated by 180°.
    "autoencoder": Design(
        encoder=(conv(128), *NORM_RELU, conv(64), *NORM_RELU, conv(32), *NORM_RELU, conv("latent")),
        decoder=(
            *(conv(32, padding=1), *NORM_RELU, conv(64, padding=1), *NORM_RELU),
            *(conv(128, padding=1), *NORM_RELU, conv("cut", padding=1), RESIZE),
        ),
        after_cut=True,
    ),
    # Channel reduction (and, as everywhere, quantisation).
    "reduction": Design(encoder=(conv("latent", 1),), decoder=(conv("cut", 1), RESIZE), after_cut=True),
    # Entropic Student (Matsubara et al., WACV 2022): `FPBasedResNetBottleneck` of yoshitomo-matsubara/sc2-benchmark.
    # The pool at the end is ours, for other cuts; the feature after a ResNet's layer1 has its input's size.
    "entropic": Design(
        encoder=(
            *(conv("4*latent", 5, 2, 2), Layer("gdn"), conv("2*latent", 5, 2, 2), Layer("gdn")),
            conv("latent"),
        ),
        decoder=(
            *(conv("2*cut", padding=1), Layer("inverse_gdn"), conv("cut"), Layer("inverse_gdn")),
            *(conv("cut", padding=1), RESIZE),
        ),
    ),
    # SPINN (Laskaridis et al., MobiCom 2020): the feature at the cut as it is, behind an early exit.
    "spinn": Design(encoder=(), decoder=(), after_cut=True, early_exit=EarlyExit),
}

for _name, _design in DESIGNS.items():
    register(_name, _design)
