"""How an image is sent to a server, and which outputs are requested: by preference, as far as the server can."""

from dataclasses import dataclass, field

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.codec.rates import Rates
from bottlefit_jax.protocol.classification import Output
from bottlefit_jax.protocol.model_config import Capabilities
from bottlefit_jax.protocol.names import IDENTITY, OUTPUT, PROBABILITIES
from bottlefit_jax.protocol.request import RequestMaker


@dataclass(frozen=True)
class Preferences:
    """What a device asks for where the server can do it.

    Attributes:
        rates: that its payloads are made with; None where it sends raw latents.
        classes: how many of the likeliest classes it wants; 0 is the probabilities of all.
    """

    rates: Rates | None = None
    classes: int = 0


@dataclass(frozen=True)
class Encoded:
    """An image as it can be sent.

    Attributes:
        latent: the values of [h, w, c] uint8.
        payload: of the latent; None where the device sends raw latents.
    """

    latent: bytes
    payload: bytes | None = None


@dataclass(frozen=True)
class CallPlan:
    """How a channel calls the model on its server.

    Attributes:
        version: of the model; empty for the newest.
        payload: whether it sends payloads, and not raw latents.
        output: the one that has the scores.
        model: the name to ask for.
        triton: whether the server needs to be told the deadline in the request, as it does not know gRPC's.
        requests: makes the messages.
    """

    version: str
    payload: bool
    output: Output
    model: str
    triton: bool
    requests: RequestMaker = field(compare=False, repr=False)

    @property
    def plain(self) -> bool:
        """Whether a server that takes raw latents alone and gives logits alone understands it."""
        return not self.payload and self.output == Output(OUTPUT)

    def content(self, image: Encoded) -> bytes:
        """Return what is sent of an image."""
        return image.payload if self.payload and image.payload is not None else image.latent


def make_plan(
    manifest: Manifest,
    version: str,
    capabilities: Capabilities,
    preferences: Preferences,
    *,
    payload_to: str | None = None,
) -> CallPlan:
    """Return how to call a model.

    Args:
        manifest: of the head.
        version: of the model; empty for the newest.
        capabilities: of the model.
        preferences: of the device. Without the output PROBABILITIES, the logits of all classes are asked for.
        payload_to: the name of the model that payloads are sent to; None sends raw latents to the manifest's model.
    """
    model, payload = payload_to or manifest.name, payload_to is not None
    output = Output(PROBABILITIES, preferences.classes) if capabilities.probabilities else Output(OUTPUT)
    named: tuple[Output, ...] = ()  # an older server does not know them
    if capabilities.probabilities:
        named = (output, Output(IDENTITY)) if capabilities.identity else (output,)
    requests = RequestMaker(manifest, model=model, payload=payload, outputs=named)
    return CallPlan(version, payload, output, model, capabilities.identity, requests)
