"""How many bytes a device may send: so many a second, and what it has not used for a while."""

from bottlefit_jax.errors import UserError

SAVED = 10.0  # seconds for which bytes are saved up that were not sent


class Budget:
    """Bytes that may be sent. Times are seconds, passed in."""

    def __init__(self, per_second: float):
        """Begin with what is saved up at most.

        Args:
            per_second: bytes.

        Raises:
            UserError: that is no number above 0.
        """
        if not 0 < per_second < float("inf"):  # false for NaN
            raise UserError(f"bytes_per_second is {per_second}: give more than 0")
        self._per_second, self._left, self._since = per_second, SAVED * per_second, float("-inf")

    def left(self, now: float) -> float:
        """Return how many bytes may be sent now; below 0 after a request that was larger than expected."""
        return min(self._left + self._per_second * max(now - self._since, 0.0), SAVED * self._per_second)

    def spend(self, size: float, now: float) -> None:
        """Take in that so many bytes were sent."""
        self._left, self._since = self.left(now) - size, max(now, self._since)
