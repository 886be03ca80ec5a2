"""The bundle: the folder that deployment reads, and its manifest. Without JAX, as the device runs it."""

from bottlefit_jax.bundle.folder import Bundle, read_bundle, write_manifest
from bottlefit_jax.bundle.manifest import (
    FORMAT,
    RAW,
    Calibration,
    File,
    Head,
    HeadFile,
    Image,
    Latent,
    Local,
    Manifest,
    Model,
    RateEntry,
    Tail,
    Tensor,
    identity,
)

__all__ = [
    "FORMAT",
    "RAW",
    "Bundle",
    "Calibration",
    "File",
    "Head",
    "HeadFile",
    "Image",
    "Latent",
    "Local",
    "Manifest",
    "Model",
    "RateEntry",
    "Tail",
    "Tensor",
    "identity",
    "read_bundle",
    "write_manifest",
]
