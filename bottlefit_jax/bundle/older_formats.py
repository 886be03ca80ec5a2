"""Manifests of formats 1 and 2, which devices and servers in the field still have.

Both have one head with two files, and no rates. Format 1 also lists the names of the calibration images.
"""

from typing import Any

from bottlefit_jax.bundle.manifest import RAW, identity

FORMATS = (1, 2)
SINCE_3 = ("heads", "rates", "default_rate", "extensions")


def schema_of(of_format: int, rules: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an older format.

    Args:
        of_format: 1 or 2.
        rules: the schema of the newest one, which has the parts of older ones in its `$defs`.
    """
    properties = {key: rule for key, rule in rules["properties"].items() if key not in SINCE_3}
    properties["head"] = {"$ref": "#/$defs/head_of_format_2"}
    if of_format == 1:
        properties["calibration"] = {"$ref": "#/$defs/calibration_of_format_1"}
    required = [key for key in rules["required"] if key not in SINCE_3]
    return {**rules, "properties": properties, "required": required}


def upgrade(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a valid manifest of format 1 or 2 as the newest format has them, but for `format`."""
    image, head, calibration = values["image"], values["head"], values["calibration"]
    pixels, latent = [1, image["height"], image["width"], 3], [1, *values["latent"]["shape"]]
    quantised = "uint8" if head["precision"] == "int8" else "float32"
    heads = [
        _head("litert", head["litert"], head["precision"], ("uint8", pixels), (quantised, latent)),
        _head("onnx", head["onnx"], "float32", ("float32", pixels), ("float32", latent)),
    ]
    if "pictures" in calibration:
        names = calibration["pictures"]
        calibration = {"split": calibration["split"], "count": len(names), "sha256": identity(*names)}
    newer = {"head": {"id": head["id"]}, "heads": heads, "rates": [], "default_rate": RAW, "calibration": calibration}
    return {**values, **newer}


def _head(runtime: str, file: str, precision: str, taken: tuple[str, list], given: tuple[str, list]) -> dict[str, Any]:
    tensors = {key: {"dtype": dtype, "shape": shape} for key, (dtype, shape) in (("input", taken), ("output", given))}
    return {"runtime": runtime, "file": file, "precision": precision, **tensors}
