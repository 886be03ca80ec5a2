"""ModelInfer responses, made on the server. Messages only, no sockets."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.protocol import classification
from bottlefit_jax.protocol.classification import Output
from bottlefit_jax.protocol.names import HEAD, ID_DIGITS, IDENTITY, PROBABILITIES, TAIL
from bottlefit_jax.protocol.stubs import pb


class ResponseMaker:
    """Makes the responses of one tail; what they have in common is made once."""

    def __init__(self, manifest: Manifest):
        self._labels = manifest.labels
        self._common = pb.ModelInferResponse(model_name=manifest.name, model_version=str(manifest.version))
        for key, whole_id in ((HEAD, manifest.head.id), (TAIL, manifest.tail.id)):
            self._common.parameters[key].string_param = whole_id[:ID_DIGITS]
        self._identity = bytes.fromhex(manifest.head.id[:ID_DIGITS] + manifest.tail.id[:ID_DIGITS])

    def response(
        self,
        request_id: str,
        logits: np.ndarray,
        numbers: dict[str, int],
        outputs: Sequence[Output] = classification.DEFAULT,
    ) -> Any:
        """Make a ModelInferResponse.

        Args:
            request_id: as the request has it.
            logits: [b, classes] float32.
            numbers: parameters of the response: QUEUE_US, DECODE_US, TAIL_US, BATCH.
            outputs: that the request asks for.
        """
        response = pb.ModelInferResponse()
        response.CopyFrom(self._common)
        response.id = request_id
        for output in outputs:
            datatype, width, raw = self._content(output, logits)
            response.outputs.add(name=output.name, datatype=datatype, shape=[len(logits), width])
            response.raw_output_contents.append(raw)
        for key, value in numbers.items():
            response.parameters[key].int64_param = value
        return response

    def _content(self, output: Output, logits: np.ndarray) -> tuple[str, int, bytes]:
        """Return the datatype of an output, its second dimension and its raw contents."""
        if output.name == IDENTITY:
            return "UINT8", len(self._identity), len(logits) * self._identity
        values = softmax(logits) if output.name == PROBABILITIES else logits
        if output.classes:
            return "BYTES", output.classes, classification.write(values, output.classes, self._labels)
        return "FP32", values.shape[1], values.tobytes()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of [..., classes] float32 logits."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
