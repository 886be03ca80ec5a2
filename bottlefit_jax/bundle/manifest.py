"""manifest.json: what the device and the server know of a bundle, and the only code that reads or writes it.

What a bundle holds says manifest.schema.json. Every error is a UserError of one line that names all that is wrong.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bottlefit_jax import __version__
from bottlefit_jax.bundle import schema
from bottlefit_jax.errors import UserError
from bottlefit_jax.files import write_text

FORMAT = 2  # 1, which listed the names of the calibration's images, is read as well
MANIFEST = "manifest.json"
LARGEST = 1 << 26  # bytes of a manifest: a million labels fit, and a wrong file is not read into a device's memory
MOST_TOLD = 20  # problems in one line


@dataclass(frozen=True)
class Model:
    """The arguments of bottlefit_jax.models.create."""

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
    """What travels: uint8 of `shape` [h, w, c], where x = scale * (q - zero_point)."""

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
    """`head` is the id of the head that it belongs to."""

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
    """manifest.json. `labels` has one name per logit, or none; `files` all files of the bundle but itself."""

    format: int
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
    files: dict[str, File]

    @property
    def named(self) -> tuple[str, ...]:
        """The files that the manifest speaks of; `files` holds these and may hold more."""
        local = () if self.local is None else (self.local.litert,)
        return (self.head.litert, self.head.onnx, self.tail.onnx, self.tail.stablehlo, *local)


@dataclass(frozen=True)
class Bundle:
    """A bundle that `read_bundle` found good."""

    folder: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        """Where the file `name` of the manifest's `files` is, as `bundle.path(bundle.manifest.head.litert)`.

        Raises:
            UserError: the bundle has no such file.
        """
        if name not in self.manifest.files:
            raise UserError(f"{self.folder} has no file {name!r}, only {', '.join(sorted(self.manifest.files))}")
        return self.folder / name


def read_bundle(folder: Path | str, *, verify: bool | Callable[[Manifest], Collection[str]] = True) -> Bundle:
    """Read and check a bundle.

    Args:
        folder: that of manifest.json.
        verify: also read every file and compare its size and sha256; without it, a file has only to be there. A
            function that picks files by name, as `lambda manifest: [manifest.head.litert]`: those are compared, and the
            others need not be there, because a device has no use for a tail.

    Raises:
        UserError: no bundle; a manifest that is not valid, or of a newer format; a file that is missing, leads out of
            the folder or was changed; a tail of another head.
    """
    folder = Path(folder)
    manifest = _checked(_parse(folder), folder / MANIFEST)
    if isinstance(verify, bool):
        problems = _file_problems(folder, manifest.files, verify)
    else:
        problems = _file_problems(folder, {name: manifest.files[name] for name in verify(manifest)}, True)
    _refuse_if_any(problems, f"{folder} cannot be used")
    return Bundle(folder, manifest)


def write_manifest(folder: Path | str, manifest: dict[str, Any]) -> Bundle:
    """Write manifest.json for what is in the folder: `files` is computed from it, all else is given.

    Raises:
        UserError: something of it is not valid, or cannot be written; an earlier manifest.json is as it was then.
    """
    folder = Path(folder)
    try:
        found = sorted(path for path in folder.rglob("*") if not path.is_dir() and path != folder / MANIFEST)
        files = {path.relative_to(folder).as_posix(): _describe(path) for path in found if path.is_file()}
    except OSError as error:
        raise UserError(f"cannot read {error.filename or folder}: {error.strerror}") from error
    manifest = {**manifest, "files": files}
    checked = _checked(manifest, folder / MANIFEST)
    _refuse_if_any(_file_problems(folder, checked.files, verify=False), f"{folder} cannot be a bundle")
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2, allow_nan=False) + "\n")
    return Bundle(folder, checked)


def identity(*parts: bytes | str) -> str:
    """The sha256 of all parts in hexadecimal; where one ends and the next begins counts too."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


@functools.cache
def manifest_schema(written: int = FORMAT) -> dict[str, Any]:
    """manifest.schema.json, for manifests of the format `written`."""
    found = json.loads(Path(__file__).with_name("manifest.schema.json").read_text(encoding="utf-8"))
    if written == 1:
        found["properties"]["calibration"] = {"$ref": "#/$defs/calibration_of_format_1"}
    schema.check(found)
    return found


def _parse(folder: Path) -> Any:
    """manifest.json as plain JSON values."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: a bundle is the folder that python -m export.bundle writes")
    if not path.is_file():
        raise UserError(f"{folder} is no bundle: it has no {MANIFEST}")
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes; a manifest has at most {LARGEST:,}")
        text = path.read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except RecursionError as error:
        raise UserError(f"{path} is no manifest: it is nested too deeply") from error
    except ValueError as error:  # also of json and of the text's encoding
        raise error if isinstance(error, UserError) else UserError(f"{path} is no manifest: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers might take a different one of two equal keys."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _checked(found: Any, path: Path) -> Manifest:
    """The Manifest of JSON values that are valid and agree with each other, or a UserError."""
    written = found.get("format") if isinstance(found, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise UserError(f"{path} has format {written}; {_which_reads(found)}")
    problems = schema.problems(found, manifest_schema(1 if written == 1 else FORMAT))
    _refuse_if_any(problems, f"{path} is not valid")
    manifest = _manifest(found)
    _refuse_if_any(_disagreements(manifest), f"{path} is not valid")
    return manifest


def _which_reads(found: dict[str, Any]) -> str:
    versions = found.get("versions")
    writer = versions.get("bottlefit_jax") if isinstance(versions, dict) else None
    newer = f"bottlefit-jax {writer}, which wrote it, reads it" if isinstance(writer, str) else "a newer one is needed"
    return f"this is bottlefit-jax {__version__}, which reads formats 1 to {FORMAT}; {newer}"


def _manifest(found: dict[str, Any]) -> Manifest:
    """As dataclasses. A valid integer may still be a float such as 1.0, hence the int()."""
    model, image, latent = found["model"], found["image"], found["latent"]
    height, width, channels = map(int, latent["shape"])
    return Manifest(
        format=int(found["format"]),
        name=found["name"],
        version=int(found["version"]),
        model=Model(**{**model, "num_classes": int(model["num_classes"])}),
        labels=tuple(found["labels"]),
        image=Image(**{**image, **{key: int(image[key]) for key in ("height", "width", "resize")}}),
        latent=Latent(
            shape=(height, width, channels),
            dtype=latent["dtype"],
            bits=int(latent["bits"]),
            scale=float(latent["scale"]),
            zero_point=int(latent["zero_point"]),
        ),
        head=Head(**found["head"]),
        tail=Tail(**found["tail"]),
        local=None if found["local"] is None else Local(**found["local"]),
        calibration=_calibration(found["calibration"]),
        versions=found["versions"],
        files={name: File(file["sha256"], int(file["bytes"])) for name, file in found["files"].items()},
    )


def _calibration(found: dict[str, Any]) -> Calibration:
    if "pictures" in found:  # format 1
        return Calibration(found["split"], len(found["pictures"]), identity(*found["pictures"]))
    return Calibration(found["split"], int(found["count"]), found["sha256"])


def _disagreements(manifest: Manifest) -> Iterator[str]:
    """What no schema can say, but the manifest alone shows."""
    image, latent, classes = manifest.image, manifest.latent, manifest.model.num_classes
    if manifest.tail.head != manifest.head.id:
        yield f"its tail belongs to head {manifest.tail.head[:12]}…, not to its head {manifest.head.id[:12]}…"
    if manifest.labels and len(manifest.labels) != classes:
        yield f"it has {len(manifest.labels):,} labels for {classes:,} classes"
    if image.resize < max(image.height, image.width):
        yield f"image.resize is {image.resize}, too small to cut {image.height} x {image.width} from it"
    if latent.zero_point >= 2**latent.bits:
        yield f"latent.zero_point is {latent.zero_point}; {latent.bits} bits end at {2**latent.bits - 1}"
    if MANIFEST in manifest.files:
        yield f"files has {MANIFEST} itself"
    yield from (f"files has no {name}" for name in sorted(set(manifest.named) - manifest.files.keys()))


def _file_problems(folder: Path, files: dict[str, File], verify: bool) -> Iterator[str]:
    """What is wrong with the files themselves."""
    inside = folder.resolve()
    for name, wanted in sorted(files.items()):
        path = folder / name
        try:
            if not path.resolve().is_relative_to(inside):  # the schema refuses '..'; this is for links
                yield f"{name} leads out of the folder, to {path.resolve()}"
            elif not path.is_file():
                yield f"{name} is missing"
            elif verify and path.stat().st_size != wanted.bytes:
                yield f"{name} has {path.stat().st_size:,} bytes instead of {wanted.bytes:,}"
            elif verify and (sha256 := _describe(path)["sha256"]) != wanted.sha256:
                yield f"{name} was changed or damaged: its sha256 is {sha256[:12]}… instead of {wanted.sha256[:12]}…"
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            yield f"{name} cannot be read: {getattr(error, 'strerror', None) or error}"


def _describe(path: Path) -> dict[str, Any]:
    """A file's entry in `files`."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"sha256": digest, "bytes": stream.tell()}


def _refuse_if_any(problems: Iterator[str], beginning: str) -> None:
    """Raise UserError with all problems in one line."""
    found = list(problems)
    if found:
        rest = [f"and {len(found) - MOST_TOLD:,} more"] if len(found) > MOST_TOLD else []
        raise UserError(f"{beginning}: {'; '.join(' '.join(one.split()) for one in found[:MOST_TOLD] + rest)}")
