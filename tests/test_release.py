"""A release is described: the version of the package has its section in the changelog, and tools know what it needs."""

import datetime
import re
import tomllib
from pathlib import Path

from bottlefit_jax import __version__

ROOT = Path(__file__).parents[1]
SECTIONS = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def number(version):
    return tuple(map(int, version.split(".")))


def test_the_changelog_has_the_packages_version_below_unreleased():
    assert SECTIONS[0] == "Unreleased"
    assert SECTIONS[1].partition(" - ")[0] == __version__


def test_every_version_has_a_date_and_the_newest_is_first():
    versions, dates = zip(*(section.split(" - ") for section in SECTIONS[1:]), strict=True)
    assert sorted(map(number, versions), reverse=True) == list(map(number, versions))
    days = [datetime.date.fromisoformat(date) for date in dates]
    assert sorted(days, reverse=True) == days


def test_the_classifiers_are_the_pythons_that_the_package_accepts():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    least, limit = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()
    named = [re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", name) for name in project["classifiers"]]
    assert [int(match[1]) for match in named if match] == list(range(int(least), int(limit)))
