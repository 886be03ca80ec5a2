"""Manifests of formats 1 to 3, which devices and servers in the field still have.

None has golden images, or the accuracy of the local network. Formats 1 and 2 have one head with two files, and no
rates. Format 1 also lists the names of the calibration images.
"""

from typing import Any

from bottlefit_jax.bundle.manifest import RAW, identity

FORMATS = (1, 2, 3)
SINCE_3 = ("heads", "rates", "default_rate", "extensions")
SINCE_4 = ("golden",)


def schema_of(of_format: int, rules: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an older format.

    Args:
        of_format: one of FORMATS.
        rules: the schema of the newest one, which has the parts of older ones in its `$defs`.
    """
    newer = SINCE_4 if of_format == 3 else (*SINCE_3, *SINCE_4)
    properties = {key: rule for key, rule in rules["properties"].items() if key not in newer}
    properties["local"] = {"$ref": "#/$defs/local_of_format_3"}
    if of_format < 3:
        properties["head"] = {"$ref": "#/$defs/head_of_format_2"}
    if of_format == 1:
        properties["calibration"] = {"$ref": "#/$defs/calibration_of_format_1"}
    required = [key for key in rules["required"] if key not in newer]
    return {**rules, "properties": properties, "required": required}


def upgrade(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a valid manifest of an older format as the newest one has them, but for `format`.

    - `local.top1` and `golden` are null.
    - Formats 1 and 2 have no rates, and `raw` as `default_rate`. Their LiteRT head takes uint8, and gives uint8 if its
      precision is int8, else float32. Their ONNX head takes and gives float32, and computes in float32.
    - Format 1 has the number and the sha256 of the names in `calibration.pictures`.

    Args:
        values: what json.loads returned.
    """
    local = None if values["local"] is None else {**values["local"], "top1": None}
    values = {**values, "local": local, "golden": None}
    return values if "heads" in values else {**values, **_since_3(values)}


def _since_3(values: dict[str, Any]) -> dict[str, Any]:
    """Return what format 3 has in another way than formats 1 and 2."""
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
    return {"head": {"id": head["id"]}, "heads": heads, "rates": [], "default_rate": RAW, "calibration": calibration}


def _head(runtime: str, file: str, precision: str, taken: tuple[str, list], given: tuple[str, list]) -> dict[str, Any]:
    tensors = {key: {"dtype": dtype, "shape": shape} for key, (dtype, shape) in (("input", taken), ("output", given))}
    return {"runtime": runtime, "file": file, "precision": precision, **tensors}
