"""The manifest of a bundle as dataclasses, and the checks that a valid manifest passes.

manifest.schema.json describes the file. `folder` reads and writes it.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottlefit_jax import __version__
from bottlefit_jax.bundle import schema
from bottlefit_jax.errors import UserError

FORMAT = 2  # format 1 listed the names of the calibration images; it is still read
MANIFEST = "manifest.json"
MAX_PROBLEMS = 20  # in one message


@dataclass(frozen=True)
class Model:
    """The arguments of `bottlefit_jax.models.create`."""

    name: str
    options: dict[str, Any]
    bottleneck: dict[str, Any]
    num_classes: int


@dataclass(frozen=True)
class Image:
    """What the head takes: uint8 [height, width, 3], cut from the centre of an image whose short side is `resize`."""

    height: int
    width: int
    order: str
    dtype: str
    resize: int


@dataclass(frozen=True)
class Latent:
    """What is sent: uint8 of `shape` [h, w, c], where x = scale * (q - zero_point)."""

    shape: tuple[int, int, int]
    dtype: str
    bits: int
    scale: float
    zero_point: int


@dataclass(frozen=True)
class Head:
    """`precision` is that of the LiteRT file: int8, float16 or float32. The ONNX file gives float32, unquantised."""

    id: str
    precision: str
    litert: str
    onnx: str


@dataclass(frozen=True)
class Tail:
    """`head` is the id of the head that the tail belongs to."""

    id: str
    head: str
    onnx: str
    stablehlo: str


@dataclass(frozen=True)
class Local:
    """The whole student as a LiteRT file."""

    litert: str


@dataclass(frozen=True)
class Calibration:
    """The images that int8 was calibrated with: the split, how many, and the `identity` of their names in order."""

    split: str
    count: int
    sha256: str


@dataclass(frozen=True)
class File:
    """Hexadecimal sha256 and size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json.

    Attributes:
        name: of the model on a server.
        version: of the model on a server.
        model: the network that was exported.
        labels: one for each logit, in order; empty where they are not known.
        image: what the head takes.
        latent: what is sent.
        head: what runs on the device.
        tail: what runs on the server.
        local: the whole network for a device without a link, if the bundle has it.
        calibration: the images that int8 was calibrated with.
        versions: of the software that wrote the bundle.
        files: all files of the bundle but manifest.json; `write_manifest` fills it in.
        format: of the file that was read.
    """

    name: str
    version: int
    model: Model
    labels: tuple[str, ...]
    image: Image
    latent: Latent
    head: Head
    tail: Tail
    local: Local | None
    calibration: Calibration
    versions: dict[str, str]
    files: dict[str, File] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def named(self) -> tuple[str, ...]:
        """The files that other fields name; `files` holds these and may hold more."""
        local = () if self.local is None else (self.local.litert,)
        return (self.head.litert, self.head.onnx, self.tail.onnx, self.tail.stablehlo, *local)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON values of manifest.json, in the newest format."""
        return {"format": FORMAT, **{key: value for key, value in _plain(self).items() if key != "format"}}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Manifest":
        """Make a manifest from JSON values that `manifest_schema` accepts, of any format."""
        model, image, latent = values["model"], values["image"], values["latent"]
        height, width, channels = map(int, latent["shape"])  # a valid integer may be a float such as 1.0
        return cls(
            name=values["name"],
            version=int(values["version"]),
            model=Model(**{**model, "num_classes": int(model["num_classes"])}),
            labels=tuple(values["labels"]),
            image=Image(**{**image, **{key: int(image[key]) for key in ("height", "width", "resize")}}),
            latent=Latent(
                shape=(height, width, channels),
                dtype=latent["dtype"],
                bits=int(latent["bits"]),
                scale=float(latent["scale"]),
                zero_point=int(latent["zero_point"]),
            ),
            head=Head(**values["head"]),
            tail=Tail(**values["tail"]),
            local=None if values["local"] is None else Local(**values["local"]),
            calibration=_calibration(values["calibration"]),
            versions=values["versions"],
            files={name: File(file["sha256"], int(file["bytes"])) for name, file in values["files"].items()},
            format=int(values["format"]),
        )


def identity(*parts: bytes | str) -> str:
    """Return the sha256 of all parts in hexadecimal; it also depends on where one part ends and the next begins."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


@functools.cache
def manifest_schema(of_format: int = FORMAT) -> dict[str, Any]:
    """Return manifest.schema.json, for manifests of the given format."""
    rules = json.loads(Path(__file__).with_name("manifest.schema.json").read_text(encoding="utf-8"))
    if of_format == 1:
        rules["properties"]["calibration"] = {"$ref": "#/$defs/calibration_of_format_1"}
    schema.check(rules)
    return rules


def validate(values: Any, path: Path) -> Manifest:
    """Check JSON values and return the manifest that they are.

    Args:
        values: as `json.loads` returns them.
        path: of manifest.json, for the error.

    Raises:
        UserError: a newer format, values that the schema rejects, or values that contradict each other.
    """
    written = values.get("format") if isinstance(values, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise UserError(f"{path} has format {written}; {_who_reads(values)}")
    raise_problems(schema.problems(values, manifest_schema(1 if written == 1 else FORMAT)), f"{path} is not valid")
    manifest = Manifest.from_json(values)
    raise_problems(_contradictions(manifest), f"{path} is not valid")
    return manifest


def raise_problems(problems: Iterable[str], beginning: str) -> None:
    """Raise a UserError of one line with all problems, if there are any."""
    lines = [" ".join(problem.split()) for problem in problems]
    if lines:
        rest = [f"and {len(lines) - MAX_PROBLEMS:,} more"] if len(lines) > MAX_PROBLEMS else []
        raise UserError(f"{beginning}: {'; '.join(lines[:MAX_PROBLEMS] + rest)}")


def _plain(value: Any) -> Any:
    """Return the value as JSON has it: dataclasses as objects, tuples as lists."""
    if dataclasses.is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _calibration(values: dict[str, Any]) -> Calibration:
    if "pictures" in values:  # format 1
        return Calibration(values["split"], len(values["pictures"]), identity(*values["pictures"]))
    return Calibration(values["split"], int(values["count"]), values["sha256"])


def _who_reads(values: dict[str, Any]) -> str:
    """Say which formats this version reads, and which version wrote the manifest."""
    versions = values.get("versions")
    writer = versions.get("bottlefit_jax") if isinstance(versions, dict) else None
    newer = f"bottlefit-jax {writer}, which wrote it, reads it" if isinstance(writer, str) else "a newer one is needed"
    return f"this is bottlefit-jax {__version__}, which reads formats 1 to {FORMAT}; {newer}"


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """Yield what a schema cannot express."""
    image, latent, classes = manifest.image, manifest.latent, manifest.model.num_classes
    if manifest.tail.head != manifest.head.id:
        yield f"its tail belongs to head {manifest.tail.head[:12]}…, not to its head {manifest.head.id[:12]}…"
    if manifest.labels and len(manifest.labels) != classes:
        yield f"it has {len(manifest.labels):,} labels for {classes:,} classes"
    if image.resize < max(image.height, image.width):
        yield f"image.resize is {image.resize}, too small to cut {image.height} x {image.width} from it"
    if latent.zero_point >= 2**latent.bits:
        largest = 2**latent.bits - 1
        yield f"latent.zero_point is {latent.zero_point}; the largest value of {latent.bits} bits is {largest}"
    if MANIFEST in manifest.files:
        yield f"files has {MANIFEST} itself"
    yield from (f"files has no {name}" for name in sorted(set(manifest.named) - manifest.files.keys()))
