"""How the axes of our plots look."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bottlefit_jax.drawing.colours import GREY, GRID
from bottlefit_jax.drawing.figures import SMALL, TEXT

DENSE = 3.2  # decades up to which there is room for the ticks 2 and 5
LEAST_FACTOR = 7.0  # of a logarithmic axis, from end to end; it then has two of the ticks 1, 2 and 5 at least


def decorate(axes: Axes) -> None:
    """Give a panel a light grid behind the data, no box, and texts of our sizes.

    Args:
        axes: of a plot.
    """
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL, color=GREY)
    axes.xaxis.label.set_fontsize(TEXT)
    axes.yaxis.label.set_fontsize(TEXT)


def decorate_log_axis(axis: Axis) -> None:
    """Give a logarithmic axis the ticks 1, 2 and 5, or powers of ten alone, as plain numbers: 0.5, 20, 1,000.

    Args:
        axis: of a panel; its scale is logarithmic and its ends are set already.
    """
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if math.log10(high / low) < DENSE else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_minor_formatter(NullFormatter())


def number(value: float) -> str:
    """Write a number in three digits, or a large one in whole units with commas between thousands."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def log_limits(values: Sequence[float], *, before: float = 1.5, after: float = 1.5) -> tuple[float, float]:
    """Return the ends of a logarithmic axis: around one value as well as around many.

    Args:
        values: that are shown, all above 0.
        before: factor between the lower end and the smallest value, at least.
        after: factor between the largest value and the upper end, at least.
    """
    low, high = min(values) / before, max(values) * after
    more = max(1.0, math.sqrt(LEAST_FACTOR * low / high))
    return low / more, high * more
