"""When a request is sent again that was refused or lost: after pauses that grow, the last time near its deadline."""

# Seconds between attempts: they double each time; of each, a random part from a half to all of it is waited.
FIRST_DELAY, LONGEST_DELAY = 0.05, 1.0
SHORTEST_PART = 0.5
LAST_SHARE = 1 / 20  # of the deadline: kept for the last attempt


def pause(delay: float, left: float, deadline: float, last: float = 0.0) -> float:
    """Return the seconds to wait before the next attempt; 0 or less where there is no time for one.

    Args:
        delay: seconds that shall be waited.
        left: of the deadline.
        deadline: of all attempts, when the first began.
        last: seconds of the last answer; 0 where there was none.
    """
    return min(delay, left - max(LAST_SHARE * deadline, 1.5 * last))
