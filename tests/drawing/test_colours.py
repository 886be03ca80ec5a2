"""The palette: readers with any kind of colour vision tell its colours apart, and can read texts in them."""

import itertools

import numpy as np
import pytest

from bottlefit_jax.compare.methods import METHODS
from bottlefit_jax.drawing import colours
from bottlefit_jax.drawing.colours import BLACK, BLUE, GREEN, NAVY, ORANGE, PURPLE, SKY, VERMILLION, WINE, ink

PALETTE = {BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE, NAVY, WINE}
# What is left of linear RGB, at full severity: Machado, Oliveira and Fernandes (2009), doi:10.1109/TVCG.2009.113
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
TO_XYZ = np.array([[0.41246, 0.35758, 0.18044], [0.21267, 0.71515, 0.07218], [0.01933, 0.11919, 0.95030]])  # of sRGB
APART = 15.0  # CIE 1976: 2.3 is about the least that one sees side by side; lines are thin and far from each other


def linear(colour):
    rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    xyz = TO_XYZ @ rgb / TO_XYZ.sum(axis=1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one, other, vision):
    seen = [lab(np.clip(np.asarray(VISION[vision]) @ linear(colour), 0, 1)) for colour in (one, other)]
    return float(np.linalg.norm(seen[0] - seen[1]))


@pytest.mark.parametrize("vision", VISION)
def test_every_two_colours_differ(vision):
    pairs = {pair: distance(*pair, vision) for pair in itertools.combinations(sorted(PALETTE), 2)}
    assert min(pairs.values()) > APART, min(pairs, key=pairs.get)


def test_the_measure_finds_red_and_green():
    assert distance("#CC4444", "#5F7F1F", "normal") > 60
    assert distance("#CC4444", "#5F7F1F", "deuteranopia") < APART


@pytest.mark.parametrize("vision", VISION)
def test_our_methods_and_files_differ_in_colour(vision):
    seen = [method.colour for method in METHODS.values() if method.ours or method.image_format]
    assert min(distance(*pair, vision) for pair in itertools.combinations(seen, 2)) > APART


def test_every_method_has_a_marker_of_its_own():
    markers = [method.marker for method in METHODS.values()]
    assert len(set(markers)) == len(markers)
    shared = [colours.SPLIT, colours.LOCAL, colours.JPEG, colours.WEBP]
    assert len({colour for colour, _ in shared}) == len({marker for _, marker in shared}) == 4


@pytest.mark.parametrize("colour", sorted(PALETTE | {method.colour for method in METHODS.values()}))
def test_a_text_is_dark_enough_on_white_and_keeps_its_hue(colour):
    dark = linear(ink(colour))
    assert 1.05 / (0.05 + TO_XYZ[1] @ dark) >= 4.5
    assert (np.argsort(dark, kind="stable") == np.argsort(linear(colour), kind="stable")).all()
