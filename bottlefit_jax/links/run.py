"""What one method made of the images of a trace, as it was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bottlefit_jax.links.trace import Trace
from bottlefit_jax.links.world import Outcome


@dataclass(frozen=True)
class Answer:
    """What became of an image.

    Attributes:
        taken: seconds since the trace began.
        seconds: until there was an answer or an error.
        path: that answered; None: an error.
    """

    taken: float
    seconds: float
    path: str | None


@dataclass(frozen=True)
class Run:
    """One method on one trace.

    Attributes:
        method: "auto", "local" or the id of a rate.
        trace: that was replayed.
        delay_ms: in each direction.
        images: that were taken, those included that the device had no time for.
        answers: to the others, in order.
        sent: bytes of the device, all of TCP's payload.
        error: why it ended early; None if it did not.
    """

    method: str
    trace: Trace
    delay_ms: float
    images: int = 0
    answers: Sequence[Answer] = ()
    sent: int = 0
    error: str | None = None

    def outcome(self, deadline: float, top1: Mapping[str, float]) -> Outcome:
        """Return what a simulation would say: which answers were in time, and how good they are.

        Args:
            deadline: seconds.
            top1: of each path, percent.
        """
        outcome = Outcome(images=self.images, sent=self.sent)
        for answer in self.answers:
            if answer.path is not None and answer.seconds <= deadline:
                outcome.top1 += top1[answer.path]
                outcome.times.append(answer.seconds)
                outcome.paths[answer.path] = outcome.paths.get(answer.path, 0) + 1
        return outcome
