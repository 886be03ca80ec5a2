"""The options of the command, in both directions."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Given:
    """What the user states about a network. It overrides what the file states; None where it is not stated.

    Attributes:
        options: of `models.create`; `aux_logits` of an Inception v3 follows from the file.
        labels: file with the names of the classes, one a line.
        bits: of a student's quantiser, 0 for none; without it the file's, or else 8.
        teacher: folder of a converted teacher, which completes a file that holds a head alone.
        mean: of the images that it was trained with, red, green and blue, scaled to 0..1.
        std: likewise.
        image_size: side of those images, pixels.
    """

    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    labels: str | None = None
    bits: int | None = None
    teacher: Path | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    image_size: int | None = None


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """How a file of weights becomes a folder.

    Attributes:
        input: the file.
        output: the folder.
        model: its name; None where the file states it.
        weights: which set of weights, where the file holds several.
        given: what the user states about the network.
        overwrite: replace `output` where it exists.
    """

    input: Path
    output: Path
    model: str | None = None
    weights: str | None = None
    given: Given = dataclasses.field(default_factory=Given)
    overwrite: bool = False


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """How the folder of a network becomes a file.

    Attributes:
        input: the folder.
        output: the file; its suffix decides the format.
        overwrite: replace `output` where it exists.
    """

    input: Path
    output: Path
    overwrite: bool = False
