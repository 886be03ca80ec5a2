"""ModelInfer responses, made on the server. Messages only, no sockets."""

from typing import Any

import numpy as np

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.protocol.names import HEAD, ID_DIGITS, OUTPUT, TAIL
from bottlefit_jax.protocol.stubs import pb


class ResponseMaker:
    """Makes the responses of one tail; what they have in common is made once."""

    def __init__(self, manifest: Manifest):
        self._common = pb.ModelInferResponse(model_name=manifest.name, model_version=str(manifest.version))
        self._common.outputs.add(name=OUTPUT, datatype="FP32")
        for key, whole_id in ((HEAD, manifest.head.id), (TAIL, manifest.tail.id)):
            self._common.parameters[key].string_param = whole_id[:ID_DIGITS]

    def response(self, request_id: str, logits: np.ndarray, numbers: dict[str, int]) -> Any:
        """Make a ModelInferResponse.

        Args:
            request_id: as the request has it.
            logits: [b, classes] float32; sent as raw bytes.
            numbers: parameters of the response: QUEUE_US, TAIL_US, BATCH.
        """
        response = pb.ModelInferResponse()
        response.CopyFrom(self._common)
        response.id = request_id
        response.outputs[0].shape.extend(logits.shape)
        response.raw_output_contents.append(logits.tobytes())
        for key, value in numbers.items():
            response.parameters[key].int64_param = value
        return response
