"""Checks that TensorRT parses the operators of an ONNX model, by the tables in `tensorrt_operators.json`.

8.2 is the last TensorRT for the Jetson Nano, 10 is the current one. The tables are from the documentation of TensorRT's
parser; the file has the repository, tag, commit and path of each. They were not tried on a Jetson.
"""

import functools
import json
from pathlib import Path
from typing import Any

import onnx

from bottlefit_jax.errors import UserError


@functools.cache
def read_tables() -> dict[str, dict[str, Any]]:
    """Read the table of each TensorRT version.

    Returns:
        Version -> `source`, `newest_opset`, and `operators`: name -> `types` and, for some, `restrictions`.
    """
    return json.loads(Path(__file__).with_name("tensorrt_operators.json").read_text())


def check_operators(model: onnx.ModelProto) -> None:
    """Refuse a model that one of the two TensorRT versions would not parse.

    Raises:
        UserError: the model has operators outside the tables, or an operator set that is too new or not ONNX's own.
    """
    kinds = sorted({node.op_type if not node.domain else f"{node.domain}.{node.op_type}" for node in model.graph.node})
    missing = []
    for kind in kinds:
        versions = [version for version, table in read_tables().items() if kind not in table["operators"]]
        if versions:
            missing.append(f"{kind} (TensorRT {' and '.join(versions)})")
    if missing:
        raise UserError(f"the ONNX graph has operators that TensorRT does not parse: {', '.join(missing)}")
    newest = min(table["newest_opset"] for table in read_tables().values())
    for imported in model.opset_import:
        if imported.domain not in ("", "ai.onnx") or imported.version > newest:
            operator_set = f"{imported.domain or 'ai.onnx'} {imported.version}"
            raise UserError(
                f"the ONNX graph uses the operator set {operator_set}; TensorRT 8.2 reads ai.onnx up to {newest}"
            )
