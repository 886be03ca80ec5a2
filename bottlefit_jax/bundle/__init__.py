"""The bundle: the folder that deployment reads, and its manifest. Standard library only, as the device runs it."""

from bottlefit_jax.bundle.manifest import FORMAT, Bundle, Manifest, identity, read_bundle, write_manifest

__all__ = ["FORMAT", "Bundle", "Manifest", "identity", "read_bundle", "write_manifest"]
