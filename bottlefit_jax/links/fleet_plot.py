"""The plot of a fleet: what is answered in time with so many servers. Needs matplotlib."""

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bottlefit_jax.files import atomic_file
from bottlefit_jax.links.fleet import counted

BLUE, ORANGE, GREY = "#2f6db3", "#d9822b", "#6b6b6b"


def draw(path: Path, found: dict[str, Any]) -> None:
    """Write the plot as PNG.

    Args:
        path: of the file.
        found: as `fleet.run_fleet` returns it.

    Raises:
        UserError: the file cannot be written.
    """
    figure = Figure(figsize=(8.0, 4.4), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    servers = [row["servers"] for row in found["rows"]]
    axes.plot(servers, [row["in_time"] for row in found["rows"]], "o-", color=BLUE, label="answered by the deadline")
    axes.plot(servers, [row["busy"] for row in found["rows"]], "s--", color=ORANGE, label="time in which a tail runs")
    if found["goal"] is not None:
        goal, place = f"goal {found['goal']:g} %", (servers[0], found["goal"])
        axes.axhline(found["goal"], color="black", linewidth=1, linestyle=":")
        axes.annotate(goal, place, xytext=(2, -11), textcoords="offset points", fontsize=8.5)
    axes.set_xlabel("servers")
    axes.set_ylabel("percent")
    axes.set_ylim(0, 104)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(servers) == 1:
        axes.set_xlim(servers[0] - 1, servers[0] + 1)
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5, color=GREY)
    axes.legend(frameon=False, fontsize=9, loc="center right")
    fewest = found["fewest"]
    result = f"{found['rows'][-1]['in_time']:.2f} % in time" if fewest is None else f"it takes {counted(fewest)}"
    figure.suptitle(
        f"{found['devices']:,} devices, an image every {found['every']:g} s, in {found['deadline_ms']:g} ms: {result}",
        fontsize=11,
        fontweight="bold",
        x=0.01,
        ha="left",
    )
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")
