"""Golden images: a few evaluation images, and what a bundle made of them where it was exported.

golden = read_golden(bundle)
golden.images[0], golden.latents["litert"][0], golden.sent[0], golden.logits[0]

A device compares with them what its own runtime makes (`edge.check`). The file is a NumPy archive without pickles.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bottlefit_jax.bundle.folder import Bundle
from bottlefit_jax.errors import UserError, first_line

FILE = "golden.npz"
MAX_BYTES = 1 << 26  # of the file: five images of 1,000 pixels a side have 15 MB
LATENTS, PAYLOADS = "latents.", "payloads."  # before the name of a runtime, and before a rate's id


@dataclass(frozen=True)
class Golden:
    """N images and what the bundle's files made of them.

    Attributes:
        images: uint8 [N, H, W, 3], of the head's size.
        latents: what the head of each runtime gave, as the manifest names it: uint8 or float32 [N, h, w, c].
        sent: uint8 [N, h, w, c], the latents of the LiteRT head behind the quantiser.
        payloads: by the id of a rate, `identity` of the payloads of `sent`.
        logits: float32 [N, classes], what the tail gave for `sent`.
        local: float32 [N, classes], logits of the local network; None where the bundle has none.
    """

    images: np.ndarray
    latents: Mapping[str, np.ndarray]
    sent: np.ndarray
    payloads: Mapping[str, str]
    logits: np.ndarray
    local: np.ndarray | None


def write_golden(path: Path, golden: Golden) -> None:
    """Write the file; the same content is the same bytes."""
    arrays = {"images": golden.images, "sent": golden.sent, "logits": golden.logits}
    arrays |= {} if golden.local is None else {"local": golden.local}
    arrays |= {LATENTS + name: latents for name, latents in golden.latents.items()}
    arrays |= {PAYLOADS + id: np.frombuffer(bytes.fromhex(sha256), np.uint8) for id, sha256 in golden.payloads.items()}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def read_golden(bundle: Bundle) -> Golden:
    """Read the golden images of a bundle whose file of them was verified.

    Raises:
        UserError: the bundle has none, or the file is not what `write_golden` writes for this bundle.
    """
    manifest = bundle.manifest
    if manifest.golden is None:
        raise UserError(f"{bundle.folder} has no golden images: bottlefit-jax exports them since format 4")
    path = bundle.path(manifest.golden)
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise UserError(f"{path} has {size:,} bytes; golden images have at most {MAX_BYTES:,}")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive.items())
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read as golden images: {first_line(error)}") from error
    _check_arrays(path, bundle, arrays)

    def beginning(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): each for name, each in arrays.items() if name.startswith(prefix)}

    payloads = {id: digest.tobytes().hex() for id, digest in beginning(PAYLOADS).items()}
    local = arrays.get("local")
    return Golden(arrays["images"], beginning(LATENTS), arrays["sent"], payloads, arrays["logits"], local)


def _check_arrays(path: Path, bundle: Bundle, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise UserError where arrays have other names, shapes or types than the manifest implies."""
    manifest, count = bundle.manifest, len(arrays["images"]) if arrays.get("images", np.empty(())).ndim else 0
    image, classes = manifest.image, manifest.model.num_classes
    wanted = {
        "images": (np.uint8, (count, image.height, image.width, 3)),
        "sent": (np.uint8, (count, *manifest.latent.shape)),
        "logits": (np.float32, (count, classes)),
    }
    wanted |= {LATENTS + head.runtime: (head.output.dtype, (count, *head.output.shape[1:])) for head in manifest.heads}
    wanted |= {PAYLOADS + rate.id: (np.uint8, (32,)) for rate in manifest.rates}
    wanted |= {} if manifest.local is None else {"local": (np.float32, (count, classes))}
    if not count or arrays.keys() != wanted.keys():
        raise UserError(f"{path} has {', '.join(sorted(arrays))}; its bundle implies {', '.join(sorted(wanted))}")
    for name, (dtype, shape) in wanted.items():
        if (arrays[name].dtype, arrays[name].shape) != (np.dtype(dtype), shape):
            found = f"{arrays[name].dtype} {list(arrays[name].shape)}"
            raise UserError(f"{path} has {name} as {found}; its bundle implies {np.dtype(dtype)} {list(shape)}")
