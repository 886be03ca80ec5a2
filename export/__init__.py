"""A finished run as a bundle: LiteRT and ONNX for devices, ONNX and StableHLO for servers."""

from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from export.assemble import Exported, export_bundle
    from export.engine import EngineOptions, NotBuiltError, build_engine
    from export.options import ExportOptions
    from export.parity import Parity
    from export.triton import write_repository

__all__ = [
    "EngineOptions",
    "ExportOptions",
    "Exported",
    "NotBuiltError",
    "Parity",
    "build_engine",
    "export_bundle",
    "write_repository",
]

__getattr__ = exports(
    __name__,
    {
        "assemble": ("Exported", "export_bundle"),
        "engine": ("EngineOptions", "NotBuiltError", "build_engine"),
        "options": ("ExportOptions",),
        "parity": ("Parity",),
        "triton": ("write_repository",),
    },
)
