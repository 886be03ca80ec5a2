"""How all plots look: colours, markers, sizes of figures and texts, titles, axes, and labels that hide nothing."""

from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from bottlefit_jax.drawing.axes import decorate, decorate_log_axis, log_limits
    from bottlefit_jax.drawing.colours import ink
    from bottlefit_jax.drawing.figures import figure, save, title
    from bottlefit_jax.drawing.label_placement import Labels, label

__all__ = [
    "Labels",
    "decorate",
    "decorate_log_axis",
    "figure",
    "ink",
    "label",
    "log_limits",
    "save",
    "title",
]

__getattr__ = exports(
    __name__,
    {
        "axes": ("decorate", "decorate_log_axis", "log_limits"),
        "colours": ("ink",),
        "figures": ("figure", "save", "title"),
        "label_placement": ("Labels", "label"),
    },
)
