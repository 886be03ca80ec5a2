"""Messages of the Open Inference Protocol, made and checked, for the device and the server.

| message | made in | checked in |
|---|---|---|
| ModelInferRequest | `request.py`, on the device | `request_checks.py`, on the server |
| ModelInferResponse | `response.py`, on the server | `response_checks.py`, on the device |
| ModelConfig | `model_config.py`, on the server | `model_config.py`, on the device |

No sockets, no JAX.
"""

from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from bottlefit_jax.protocol.model_config import check_config, make_config
    from bottlefit_jax.protocol.request import RequestMaker
    from bottlefit_jax.protocol.request_checks import Refused, deadline_of, head_of, latent_of, version_of
    from bottlefit_jax.protocol.response import ResponseMaker
    from bottlefit_jax.protocol.response_checks import identity_problem, largest_response, logits_of, microseconds

__all__ = [
    "Refused",
    "RequestMaker",
    "ResponseMaker",
    "check_config",
    "deadline_of",
    "head_of",
    "identity_problem",
    "largest_response",
    "latent_of",
    "logits_of",
    "make_config",
    "microseconds",
    "version_of",
]

__getattr__ = exports(
    __name__,
    {
        "model_config": ("check_config", "make_config"),
        "request": ("RequestMaker",),
        "request_checks": ("Refused", "deadline_of", "head_of", "latent_of", "version_of"),
        "response": ("ResponseMaker",),
        "response_checks": ("identity_problem", "largest_response", "logits_of", "microseconds"),
    },
)
