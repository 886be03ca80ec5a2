"""The colours of all plots, and the markers of what appears in several of them.

The first seven are from Okabe and Ito, "Color Universal Design" (https://jfly.uni-koeln.de/color/), a set that readers
with any kind of colour vision tell apart; its yellow is left out, as it is too light for a line on white. Navy and
wine keep a distance to them in simulated deuteranopia and protanopia, too. No plot relies on colour alone: markers,
line styles or names differ as well.
"""

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
NAVY, WINE = "#12306B", "#882255"
GREY = "#6B6B6B"  # of what is beside the data: ticks, notes
GRID = "#E4E4E4"

# colour and marker, as Matplotlib spells it
SPLIT, LOCAL, JPEG, WEBP = (BLUE, "o"), (BLACK, "s"), (ORANGE, "^"), (VERMILLION, "D")

READABLE = 4.5  # the contrast that WCAG 2.2 wants between a text and what is behind it


def ink(colour: str) -> str:
    """Return a colour for text on white: the same hue, as dark as a reader needs.

    Args:
        colour: "#RRGGBB".
    """
    rgb = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    while _contrast_on_white(rgb) < READABLE:
        rgb = [0.97 * value for value in rgb]
    return "#" + "".join(f"{int(255 * value):02X}" for value in rgb)


def _contrast_on_white(rgb: list[float]) -> float:
    """Return the contrast to white as WCAG has it, from 1 to 21."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in rgb]
    luminance = sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return 1.05 / (luminance + 0.05)
