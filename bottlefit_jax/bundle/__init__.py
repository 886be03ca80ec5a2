"""The bundle: the folder that deployment reads, and its manifest. Standard library only, as the device runs it."""

from bottlefit_jax.bundle.folder import Bundle, read_bundle, write_manifest
from bottlefit_jax.bundle.manifest import (
    FORMAT,
    Calibration,
    File,
    Head,
    Image,
    Latent,
    Local,
    Manifest,
    Model,
    Tail,
    identity,
)

__all__ = [
    "FORMAT",
    "Bundle",
    "Calibration",
    "File",
    "Head",
    "Image",
    "Latent",
    "Local",
    "Manifest",
    "Model",
    "Tail",
    "identity",
    "read_bundle",
    "write_manifest",
]
