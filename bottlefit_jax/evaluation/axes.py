"""How the axes of our plots of bytes look."""

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bottlefit_jax.evaluation.colours import GREY


def decorate_log_axis(axes: Axes, *, size: float = 8.5) -> None:
    """Give a logarithmic x axis plain numbers, a light grid and no box.

    Args:
        axes: of a plot.
        size: of the numbers, in points.
    """
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=size, color=GREY)
