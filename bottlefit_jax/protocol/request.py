"""ModelInfer requests, made on the device. Messages only, no sockets."""

from typing import Any

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
