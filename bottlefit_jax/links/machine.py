"""The machine that measures."""

import os
import platform


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine() -> str:
    """Return processor and system of this machine, in words."""
    return f"{platform.machine()} with {cores()} cores, {platform.system()} {platform.release()}"
