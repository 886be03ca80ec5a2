"""The decode model of a Triton repository: payloads to latents, many requests at once.

Triton loads one file, which `triton_source` makes of this one and of what it needs of codec. So this one takes the
names of tensors from its config.pbtxt, and imports nothing else of ours.
"""

import json
from pathlib import Path

import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports]

from bottlefit_jax.codec.rates import parse_rates
from bottlefit_jax.codec.wire import decode_batch

TABLES = "rates.json"  # beside this file


class TritonPythonModel:
    """What Triton's Python backend creates once for each instance."""

    def initialize(self, args):
        """Read the code tables, and the names of the tensors, and make what the first request would wait for."""
        config = json.loads(args["model_config"])
        self._input, self._output = config["input"][0]["name"], config["output"][0]["name"]
        self._rates = parse_rates(Path(__file__).with_name(TABLES).read_text(encoding="utf-8"), TABLES)
        self._decoding = [rate.tables.decoding for rate in self._rates.rates]

    def execute(self, requests):
        """Return a response for each request: its latents, or an error if one of its payloads is invalid."""
        batches = [
            pb_utils.get_input_tensor_by_name(request, self._input).as_numpy().ravel().tolist() for request in requests
        ]
        latents, problems = decode_batch([payload for batch in batches for payload in batch], self._rates)
        responses, begin = [], 0
        for request, batch in zip(requests, batches, strict=True):
            end = begin + len(batch)
            problem = self._problem(request) or next(filter(None, problems[begin:end]), None)
            responses.append(self._response(latents[begin:end], problem))
            begin = end
        return responses

    def _problem(self, request):
        """Return why a request is not for this model; None if it is, or does not name its head."""
        head, own = json.loads(request.parameters() or "{}").get("head"), self._rates.head
        if head is None or (head and own.startswith(str(head))):
            return None
        return f"the request is from head {str(head)[:12]!r}, and this model decodes the latents of {own[:12]!r}"

    def _response(self, latents, problem):
        if problem is None:
            return pb_utils.InferenceResponse([pb_utils.Tensor(self._output, latents)])
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(problem, pb_utils.TritonError.INVALID_ARG))
