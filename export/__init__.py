"""A finished run as a bundle: LiteRT and ONNX for devices, ONNX and StableHLO for servers."""

from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from export.assemble import Exported, export_bundle
    from export.options import ExportOptions
    from export.parity import Parity
    from export.triton import write_repository

__all__ = ["ExportOptions", "Exported", "Parity", "export_bundle", "write_repository"]

__getattr__ = exports(
    __name__,
    {
        "assemble": ("Exported", "export_bundle"),
        "options": ("ExportOptions",),
        "parity": ("Parity",),
        "triton": ("write_repository",),
    },
)
