"""ModelInfer requests, made on the device. Messages only, no sockets."""

from typing import Any

import numpy as np

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.protocol.names import HEAD, ID_DIGITS, INPUT, TIMEOUT
from bottlefit_jax.protocol.stubs import pb


class RequestMaker:
    """Makes the ModelInferRequests of one head; what they have in common is made once. For one thread at a time."""

    def __init__(self, manifest: Manifest):
        self._request = pb.ModelInferRequest(model_name=manifest.name, raw_input_contents=[b""])
        self._request.inputs.add(name=INPUT, datatype="UINT8", shape=[1, *manifest.latent.shape])
        self._request.parameters[HEAD].string_param = manifest.head.id[:ID_DIGITS]

    def request(self, latent: bytes, version: str, seconds: float) -> Any:
        """Return the request for the latent of one image. The next call changes the same message.

        Args:
            latent: the values of [h, w, c] uint8.
            version: of the model; empty for the newest.
            seconds: that the server may take.
        """
        request = self._request
        request.raw_input_contents[0] = latent
        request.model_version = version
        request.parameters[TIMEOUT].int64_param = max(int(1e6 * seconds), 1)
        return request


def infer_request(manifest: Manifest, latent: np.ndarray) -> Any:
    """Make a ModelInferRequest for the latent of one image, with the id of the head that made it.

    Args:
        manifest: of the head.
        latent: [h, w, c] uint8; sent as raw bytes.
    """
    request = pb.ModelInferRequest(model_name=manifest.name, raw_input_contents=[latent.tobytes()])
    request.inputs.add(name=INPUT, datatype="UINT8", shape=[1, *latent.shape])
    request.parameters[HEAD].string_param = manifest.head.id[:ID_DIGITS]
    return request


def addressed(request: Any, version: str, seconds: float) -> Any:
    """Return a copy of a ModelInferRequest for one version of the model.

    Args:
        request: stays as it is, so that another attempt can send it again.
        version: empty for the newest.
        seconds: that the server may take.
    """
    copy = pb.ModelInferRequest()
    copy.CopyFrom(request)
    copy.model_version = version
    copy.parameters[TIMEOUT].int64_param = max(int(1e6 * seconds), 1)
    return copy
