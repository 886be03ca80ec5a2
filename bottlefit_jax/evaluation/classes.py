"""Accuracy class by class: which classes a network gets wrong, and how much so few images can say of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bottlefit_jax.evaluation.accuracy import wilson_interval

SHOWN = 10  # classes in a report for people


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassResult:
    """The evaluation images of one class.

    Attributes:
        name: of the class.
        images: how many there are, at least one.
        correct: "teacher", "student" or both -> how many of them it classifies correctly.
    """

    name: str
    images: int
    correct: Mapping[str, int]

    def top1(self, role: str) -> float:
        """Return the share of a network's correct images, percent."""
        return 100 * self.correct[role] / self.images

    @property
    def interval95(self) -> tuple[float, float]:
        """The 95 % interval of top-1: the student's, or the teacher's where there is no student."""
        return wilson_interval(self.correct["student" if "student" in self.correct else "teacher"], self.images)

    def to_json(self) -> dict[str, Any]:
        """Return its row in `report.json`."""
        accuracies = {f"{role}_top1": self.top1(role) for role in ("teacher", "student") if role in self.correct}
        return {"class": self.name, "images": self.images, **accuracies}


def class_results(
    names: Sequence[str], images: Sequence[int], correct: Mapping[str, Sequence[int]]
) -> list[ClassResult]:
    """Return a row for each class that has images, in the order of the classes.

    Args:
        names: of all classes.
        images: how many evaluation images each has.
        correct: "teacher", "student" or both -> how many of each class it classifies correctly.
    """
    return [
        ClassResult(name=name, images=int(count), correct={role: int(hits[at]) for role, hits in correct.items()})
        for at, (name, count) in enumerate(zip(names, images, strict=True))
        if count
    ]


def worst(rows: Sequence[ClassResult]) -> list[ClassResult]:
    """Return the classes of which it is surest that they are bad, the worst first."""
    return sorted(rows, key=lambda row: row.interval95[1])[:SHOWN]
