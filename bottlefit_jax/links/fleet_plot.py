"""The plot of a fleet: what is answered in time with so many servers. Needs matplotlib."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from bottlefit_jax.drawing.axes import decorate, decorate_log_axis, log_limits
from bottlefit_jax.drawing.colours import BLACK, BLUE, ORANGE
from bottlefit_jax.drawing.figures import SMALL, TEXT, figure, save, title
from bottlefit_jax.links.fleet import counted


def draw(path: Path, found: dict[str, Any]) -> None:
    """Write the plot as PNG.

    Args:
        path: of the file.
        found: as `fleet.run_fleet` returns it.

    Raises:
        UserError: the file cannot be written.
    """
    save(_figure(found), path)


def message(found: dict[str, Any]) -> str:
    """Return the title: how many images the fewest servers that keep the goal, or those that were given, answer.

    Args:
        found: as `fleet.run_fleet` returns it.
    """
    row = _chosen(found)
    answers = "answers" if row["servers"] == 1 else "answer"
    return (
        f"{counted(row['servers'])} {answers} {row['in_time']:.2f} % within {found['deadline_ms']:g} ms "
        f"({found['devices']:,} devices, an image every {found['every']:g} s each)"
    )


def _chosen(found: dict[str, Any]) -> dict[str, Any]:
    """Return the row that the plot is about."""
    return next((row for row in found["rows"] if row["servers"] == found["fewest"]), found["rows"][-1])


def _figure(found: dict[str, Any]) -> Figure:
    """Return the plot."""
    plot = figure(4.8)
    title(plot, message(found))
    axes = plot.subplots()
    servers = [row["servers"] for row in found["rows"]]
    in_time = [row["in_time"] for row in found["rows"]]
    axes.plot(servers, in_time, "o-", color=BLUE, label="images answered by the deadline")
    axes.plot(servers, [row["busy"] for row in found["rows"]], "s--", color=ORANGE, label="time in which a tail runs")
    chosen = _chosen(found)
    ring = {"markersize": 13, "markerfacecolor": "none", "markeredgewidth": 1.6, "linestyle": "none"}
    axes.plot([chosen["servers"]], [chosen["in_time"]], "o", color=BLUE, gid="chosen", **ring)
    if found["goal"] is not None:
        axes.axhline(found["goal"], color=BLACK, linewidth=1, linestyle=":")
        axes.annotate(
            f"goal\n{found['goal']:g} %",
            (1, found["goal"]),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
        )
    axes.set_xlabel("servers (number, logarithmic)")
    axes.set_ylabel("share of images or of time, %")
    axes.set_ylim(0, 106)
    axes.set_yticks(range(0, 101, 20))
    axes.set_xscale("log")  # the search doubles the number first
    axes.set_xlim(*log_limits(servers, before=1.3, after=1.3))
    decorate(axes)
    decorate_log_axis(axes.xaxis)
    low, high = axes.get_xlim()
    axes.set_xticks([tick for tick in axes.get_xticks() if max(low, 1) <= tick <= high])  # there is no half a server
    axes.xaxis.set_minor_locator(NullLocator())
    plot.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=TEXT)
    return plot
