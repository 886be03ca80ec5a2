"""What to export and where to, checked before JAX is imported."""

import re
from dataclasses import dataclass
from pathlib import Path

from bottlefit_jax.bundle.manifest import MANIFEST
from bottlefit_jax.errors import UserError
from export.triton_places import check_free

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # as in manifest.schema.json
PRECISIONS = ("float32", "float16", "int8")


@dataclass(frozen=True)
class ExportOptions:
    """What to export and where to. Messages call a field as `python -m export.bundle` calls its flag.

    Attributes:
        workdir: of a finished run with a student.
        output: folder of the bundle.
        head: what the device computes in: float32, float16 or int8.
        local: add the whole student, for a device without a link.
        triton: a Triton model repository to which the tail is added as well.
        data: where the run's images are now; None: where they were then.
        calibration: number of training images that set the range of the latent, and those of an int8 head.
        images: number of evaluation images in the parity check, at most.
        name: of the model on a server; None: the name of the output folder.
        version: of the model on a server.
        rates_from: an earlier bundle of the same head, whose rates are kept; None: new ones are made.
        overwrite: replace the output, and what the Triton repository has of that version or name.

    Raises:
        UserError: a value is out of range.
    """

    workdir: Path
    output: Path
    head: str = "int8"
    local: bool = False
    triton: Path | None = None
    data: Path | None = None
    calibration: int = 200
    images: int = 1000
    name: str | None = None
    version: int = 1
    rates_from: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.head not in PRECISIONS:
            raise UserError(f"--head is {self.head!r}; it must be one of {', '.join(PRECISIONS)}")
        for flag, what in (("calibration", "training images"), ("images", "evaluation images"), ("version", "")):
            value = getattr(self, flag)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"--{flag} is {value!r}; it must be at least 1 {what}".rstrip())
        if not NAME.fullmatch(self.model_name):
            raise UserError(
                f"--name {self.model_name!r} is invalid: letters, digits, '.', '_' and '-', at most 64, the first a "
                "letter or digit"
            )

    @property
    def model_name(self) -> str:
        """The model's name on a server."""
        return self.name or self.output.absolute().name

    def check_folders(self) -> None:
        """Check that the run exists and that the output can be written.

        Raises:
            UserError: there is no such run or earlier bundle, or the output or the Triton repository holds something
                else already.
        """
        if not self.workdir.is_dir():
            raise UserError(f"no run at {self.workdir}")
        if self.rates_from is not None and not (self.rates_from / MANIFEST).is_file():
            raise UserError(f"--rates-from {self.rates_from} is not a bundle: it has no {MANIFEST}")
        if self.output.exists():
            if not self.overwrite:
                raise UserError(f"{self.output} exists: give another --output, or --overwrite to replace it")
            empty = self.output.is_dir() and not any(self.output.iterdir())
            if not empty and not (self.output / MANIFEST).exists():
                raise UserError(f"{self.output} is not a bundle, so --overwrite does not remove it")
        if self.triton is not None:
            check_free(self.triton, self.model_name, self.version, overwrite=self.overwrite)
