"""An image that is being classified by the server: what is sent, and how long each step took."""

from dataclasses import dataclass

from bottlefit_jax.edge.call_plan import Encoded
from bottlefit_jax.edge.channel import Answer, Deadline
from bottlefit_jax.edge.prediction import Route, Timings, server_times


@dataclass(frozen=True)
class Sending:
    """An image that is ready to be sent. The times are those of `time.perf_counter`.

    Attributes:
        image: what is sent.
        deadline: of the answer.
        route: that the prediction has.
        started: when the image was there.
        preprocessed: when it had the head's size.
        ran: when the head had run.
        quantized: when the latent was quantised; `ran` where the head does it.
        encoded: when the payload was there; `quantized` where there is none.
    """

    image: Encoded
    deadline: Deadline
    route: Route
    started: float
    preprocessed: float
    ran: float
    quantized: float
    encoded: float

    def timings(self, answer: Answer, answered: float) -> Timings:
        """Return how long each step took.

        Args:
            answer: to this image.
            answered: when it was there.
        """
        queue, decode, tail = server_times(answer)
        return Timings(
            preprocess=1000 * (self.preprocessed - self.started),
            head=1000 * (self.ran - self.preprocessed),
            quantizer=1000 * (self.quantized - self.ran),
            encode=1000 * (self.encoded - self.quantized),
            network=1000 * (answered - self.encoded) - (queue or 0) - (decode or 0) - (tail or 0),
            queue=queue,
            decode=decode,
            tail=tail,
            total=1000 * (answered - self.started),
        )
