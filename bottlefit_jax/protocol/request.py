"""ModelInfer requests as a device makes them. Nothing here opens a socket."""

from typing import Any

import numpy as np

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.protocol.names import ID_DIGITS, INPUT
from bottlefit_jax.protocol.stubs import pb


def infer_request(manifest: Manifest, latent: np.ndarray) -> Any:
    """A ModelInferRequest for one image's latent, uint8 [h, w, c], as raw bytes, with the head that made it."""
    request = pb.ModelInferRequest(model_name=manifest.name, raw_input_contents=[latent.tobytes()])
    request.inputs.add(name=INPUT, datatype="UINT8", shape=[1, *latent.shape])
    request.parameters["head"].string_param = manifest.head.id[:ID_DIGITS]
    return request


def addressed(request: Any, version: str, seconds: float) -> Any:
    """A copy of a request for a version of the model (empty: any) that has `seconds` left."""
    copy = pb.ModelInferRequest()
    copy.CopyFrom(request)
    copy.model_version = version
    copy.parameters["timeout"].int64_param = max(int(1e6 * seconds), 1)
    return copy
