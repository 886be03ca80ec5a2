"""ModelInfer requests, made on the device. Messages only, no sockets."""

from collections.abc import Sequence
from typing import Any

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.protocol.byte_tensors import pack
from bottlefit_jax.protocol.classification import Output
from bottlefit_jax.protocol.names import CLASSIFICATION, HEAD, ID_DIGITS, INPUT, PAYLOAD, TIMEOUT
from bottlefit_jax.protocol.stubs import pb


class RequestMaker:
    """Makes the ModelInferRequests of one head; what they have in common is made once. For any number of threads."""

    def __init__(
        self,
        manifest: Manifest,
        *,
        model: str | None = None,
        payload: bool = False,
        outputs: Sequence[Output] = (),
    ):
        """Make what the requests have in common.

        Args:
            manifest: of the head.
            model: the name to ask for; None is the manifest's.
            payload: whether an image is sent as a payload, and not as its raw latent.
            outputs: to ask for; none leaves it to the server, which gives the logits.
        """
        self._request = pb.ModelInferRequest(model_name=model or manifest.name, raw_input_contents=[b""])
        self._payload = payload
        if payload:
            self._request.inputs.add(name=PAYLOAD, datatype="BYTES", shape=[1, 1])
        else:
            self._request.inputs.add(name=INPUT, datatype="UINT8", shape=[1, *manifest.latent.shape])
        for name, classes in outputs:
            output = self._request.outputs.add(name=name)
            if classes:
                output.parameters[CLASSIFICATION].int64_param = classes
        self._request.parameters[HEAD].string_param = manifest.head.id[:ID_DIGITS]

    def request(self, content: bytes, version: str, seconds: float | None) -> Any:
        """Return the request for one image.

        Args:
            content: the payload, or the values of [h, w, c] uint8.
            version: of the model; empty for the newest.
            seconds: that the server may take, as the parameter TIMEOUT; None leaves it to gRPC's deadline, which Triton
                does not know.
        """
        request = pb.ModelInferRequest()
        request.CopyFrom(self._request)
        request.raw_input_contents[0] = pack([content]) if self._payload else content
        request.model_version = version
        if seconds is not None:
            request.parameters[TIMEOUT].int64_param = max(int(1e6 * seconds), 1)
        return request
