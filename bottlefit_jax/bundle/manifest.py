"""The manifest of a bundle as dataclasses.

manifest.schema.json describes the file, `validation` checks it, `folder` reads and writes it.
"""

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import Any

from bottlefit_jax.errors import UserError

FORMAT = 4  # `older_formats` has what formats 1 to 3 were; they are still read
MANIFEST = "manifest.json"
RAW = "raw"  # the name of what is sent without a rate: the latent itself


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
    """`id` depends on the encoder, its preprocessing and its quantiser; tail and tables belong to one head."""

    id: str


@dataclass(frozen=True)
class Tensor:
    """An input or an output of a file: uint8 or float32, with the batch in `shape`."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class HeadFile:
    """The head for one runtime.

    Attributes:
        runtime: litert or onnx.
        file: its name.
        precision: int8, float16 or float32.
        input: the image, [1, H, W, 3].
        output: [1, h, w, c], the quantised latent if it is uint8, else the latent before the quantiser.
    """

    runtime: str
    file: str
    precision: str
    input: Tensor
    output: Tensor


@dataclass(frozen=True)
class RateEntry:
    """A rate, as the export measured it on the evaluation images.

    Attributes:
        id: its name, not `raw`.
        steps: of each channel.
        tables: the name of the file with its code tables, which all rates share.
        bytes_mean: of the payloads.
        bytes_p95: of the payloads; 95 percent have at most so many.
        top1: percent; where the evaluation images have no labels, of agreement with the teacher.
    """

    id: str
    steps: tuple[int, ...]
    tables: str
    bytes_mean: float
    bytes_p95: float
    top1: float


@dataclass(frozen=True)
class Tail:
    """`head` is the id of the head that the tail belongs to."""

    id: str
    head: str
    onnx: str
    stablehlo: str


@dataclass(frozen=True)
class Local:
    """The whole student as a LiteRT file.

    Attributes:
        litert: its name.
        top1: as of a rate; None where the bundle is of an older format.
    """

    litert: str
    top1: float | None = None


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
        heads: its files, one for each runtime.
        tail: what runs on the server.
        local: the whole network for a device without a link, if the bundle has it.
        rates: the ways to make a payload, in the order of the tables' file; empty where raw latents alone are sent.
        default_rate: the id of the one to use where nothing else is asked for, or RAW.
        golden: the file of golden images (`bundle.golden`); None where the bundle has none.
        calibration: the images that int8 was calibrated with.
        versions: of the software that wrote the bundle.
        extensions: anything that other programs add; not read here.
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
    heads: tuple[HeadFile, ...]
    tail: Tail
    local: Local | None
    rates: tuple[RateEntry, ...]
    default_rate: str
    golden: str | None
    calibration: Calibration
    versions: dict[str, str]
    extensions: dict[str, Any] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def named(self) -> tuple[str, ...]:
        """The files that other fields name; `files` holds these and may hold more."""
        local = () if self.local is None else (self.local.litert,)
        others = tuple(name for name in (self.tables, self.golden) if name is not None)
        return (*(head.file for head in self.heads), self.tail.onnx, self.tail.stablehlo, *local, *others)

    @property
    def tables(self) -> str | None:
        """The file of code tables; None in a bundle without rates."""
        return self.rates[0].tables if self.rates else None

    def head_file(self, runtime: str) -> HeadFile:
        """Return the head for a runtime: litert or onnx.

        Raises:
            UserError: the bundle has none.
        """
        for head in self.heads:
            if head.runtime == runtime:
                return head
        raise UserError(
            f"the bundle has no head for {runtime}, only for {', '.join(each.runtime for each in self.heads)}"
        )

    def device_files(self, runtime: str = "litert") -> tuple[str, ...]:
        """Return what a device needs to send: the head for its runtime, and the tables if there are rates.

        Raises:
            UserError: the bundle has no head for that runtime.
        """
        head = self.head_file(runtime).file
        return (head,) if self.tables is None else (head, self.tables)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON values of manifest.json, in the newest format."""
        return {"format": FORMAT, **{key: value for key, value in _plain(self).items() if key != "format"}}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Manifest":
        """Make a manifest from JSON values that the newest format's schema accepts."""
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
            heads=tuple(_head_file(head) for head in values["heads"]),
            tail=Tail(**values["tail"]),
            local=None if values["local"] is None else Local(**values["local"]),
            rates=tuple(_rate_entry(rate) for rate in values["rates"]),
            default_rate=values["default_rate"],
            golden=values["golden"],
            calibration=Calibration(**{**values["calibration"], "count": int(values["calibration"]["count"])}),
            versions=values["versions"],
            extensions=values.get("extensions", {}),
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


def _plain(value: Any) -> Any:
    """Return the value as JSON has it: dataclasses as objects, tuples as lists."""
    if dataclasses.is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _head_file(values: dict[str, Any]) -> HeadFile:
    tensors = {key: Tensor(values[key]["dtype"], tuple(map(int, values[key]["shape"]))) for key in ("input", "output")}
    return HeadFile(**{**values, **tensors})


def _rate_entry(values: dict[str, Any]) -> RateEntry:
    return RateEntry(**{**values, "steps": tuple(map(int, values["steps"]))})
