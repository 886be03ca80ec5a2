"""Messages of the Open Inference Protocol, made and checked, for the device and the server.

| message | made in | checked in |
|---|---|---|
| ModelInferRequest | `request.py`, on the device | `request_checks.py` and `input_checks.py`, on the server |
| ModelInferResponse | `response.py`, on the server | `response_checks.py`, on the device |
| ModelConfig | `model_config.py`, on the server | `model_config.py`, on the device |

Texts of `classification.py` and tensors of `byte_tensors.py` are made and checked there.

No sockets, no JAX.
"""

from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from bottlefit_jax.protocol.classification import Output
    from bottlefit_jax.protocol.input_checks import input_of
    from bottlefit_jax.protocol.model_config import (
        Capabilities,
        capabilities_of,
        check_config,
        make_config,
        payload_problem,
    )
    from bottlefit_jax.protocol.request import RequestMaker
    from bottlefit_jax.protocol.request_checks import Refused, deadline_of, head_of, outputs_of, version_of
    from bottlefit_jax.protocol.response import ResponseMaker
    from bottlefit_jax.protocol.response_checks import (
        classes_of,
        identity_problem,
        largest_response,
        microseconds,
        vector_of,
    )

__all__ = [
    "Capabilities",
    "Output",
    "Refused",
    "RequestMaker",
    "ResponseMaker",
    "capabilities_of",
    "check_config",
    "classes_of",
    "deadline_of",
    "head_of",
    "identity_problem",
    "input_of",
    "largest_response",
    "make_config",
    "microseconds",
    "outputs_of",
    "payload_problem",
    "vector_of",
    "version_of",
]

__getattr__ = exports(
    __name__,
    {
        "classification": ("Output",),
        "input_checks": ("input_of",),
        "model_config": ("Capabilities", "capabilities_of", "check_config", "make_config", "payload_problem"),
        "request": ("RequestMaker",),
        "request_checks": ("Refused", "deadline_of", "head_of", "outputs_of", "version_of"),
        "response": ("ResponseMaker",),
        "response_checks": ("classes_of", "identity_problem", "largest_response", "microseconds", "vector_of"),
    },
)
