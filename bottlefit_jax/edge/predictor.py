"""Makes predictions of what the server answered, or of what the local network says."""

import numpy as np

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.edge.adaptive import Outcome
from bottlefit_jax.edge.channel import Answer
from bottlefit_jax.edge.path import LOCAL
from bottlefit_jax.edge.prediction import BytesSent, Prediction, Route, Timings, bytes_sent, server_times
from bottlefit_jax.edge.sending import Sending
from bottlefit_jax.protocol.classification import likeliest
from bottlefit_jax.protocol.names import OUTPUT
from bottlefit_jax.protocol.response import softmax
from bottlefit_jax.protocol.response_checks import classes_of, vector_of

NOTHING = BytesSent(0, 0, 0, 0, 0)


class Predictor:
    """Makes the predictions of one bundle."""

    def __init__(self, manifest: Manifest, top: int):
        """Predict the `top` likeliest classes, at most all."""
        self._manifest, self.top = manifest, min(top, manifest.model.num_classes)

    def of_answer(self, sending: Sending, answer: Answer, answered: float) -> Prediction:
        """Return the prediction of an image that was sent.

        Args:
            sending: the image.
            answer: to it.
            answered: when that was there, as of `time.perf_counter`.

        Raises:
            ProtocolError: the answer is invalid.
        """
        top, probabilities = self._scores(answer)
        timings = sending.timings(answer, answered)
        return self._prediction(top, timings, bytes_sent(answer), probabilities, sending.route)

    def of_outcome(self, outcome: Outcome, preprocess: float, total: float) -> Prediction:
        """Return the prediction of what the policy chose.

        Args:
            outcome: of the image.
            preprocess: seconds that the image took until it had the head's size.
            total: seconds in all.

        Raises:
            ProtocolError: the server's answer is invalid.
        """
        if outcome.answer is None:
            assert outcome.probabilities is not None
            top, probabilities = self._likeliest(outcome.probabilities), outcome.probabilities
            sent, queue, decode, tail = NOTHING, 0.0, 0.0, 0.0
        else:
            top, probabilities = self._scores(outcome.answer)
            sent, (queue, decode, tail) = bytes_sent(outcome.answer), server_times(outcome.answer)
        head, encode = outcome.head + outcome.local, outcome.encode
        rest = total - preprocess - head - encode
        timings = Timings(
            preprocess=1000 * preprocess,
            head=1000 * head,
            quantizer=0.0,
            encode=1000 * encode,
            network=1000 * rest - (queue or 0) - (decode or 0) - (tail or 0),
            queue=queue,
            decode=decode,
            tail=tail,
            total=1000 * total,
        )
        choice = outcome.choice
        route = Route(outcome.path.name, choice.reason, 1000 * choice.expected, choice.probability)
        return self._prediction(top, timings, sent, probabilities, route)

    def of_local(self, probabilities: np.ndarray, preprocess: float, network: float) -> Prediction:
        """Return the prediction of an image that never had a choice.

        Args:
            probabilities: [classes] float32.
            preprocess: seconds until the image had the network's size.
            network: seconds in the network.
        """
        none = dict.fromkeys(("quantizer", "encode", "network", "queue", "decode", "tail"), 0.0)
        timings = Timings(1000 * preprocess, 1000 * network, **none, total=1000 * (preprocess + network))
        route = Route(LOCAL, "every image runs here")
        return self._prediction(self._likeliest(probabilities), timings, NOTHING, probabilities, route)

    def _scores(self, answer: Answer) -> tuple[list[tuple[int, float]], np.ndarray | None]:
        """Return the likeliest classes of an answer, and the probabilities of all if the answer has them."""
        name, classes = answer.output
        if classes:
            return classes_of(answer.response, self._manifest, classes), None
        values = vector_of(answer.response, self._manifest, name)
        probabilities = softmax(values) if name == OUTPUT else values
        return self._likeliest(probabilities), probabilities

    def _likeliest(self, probabilities: np.ndarray) -> list[tuple[int, float]]:
        """Return the likeliest classes as pairs of index and probability."""
        return [(index, float(probabilities[index])) for index in likeliest(probabilities, self.top).tolist()]

    def _prediction(
        self,
        best: list[tuple[int, float]],
        timings: Timings,
        bytes_sent: BytesSent,
        probabilities: np.ndarray | None,
        route: Route,
    ) -> Prediction:
        labels = self._manifest.labels
        top = tuple((labels[index] if labels else str(index), index, probability) for index, probability in best)
        return Prediction(*top[0], timings, bytes_sent, top, probabilities, route)
