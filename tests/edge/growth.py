"""A device that classifies frames without end, and what it and its server hold meanwhile.

python -m tests.edge.growth BUNDLE HOST:PORT SERVER_PID FRAMES...      prints a JSON object after so many frames
"""

import json
import os
import sys
import threading
from pathlib import Path

import numpy as np

from bottlefit_jax.edge import EdgeClient


def held(process):
    """Resident MiB and open files of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    files = len(os.listdir(f"/proc/{process}/fd"))
    return {"mebibytes": pages * os.sysconf("SC_PAGE_SIZE") / 2**20, "files": files}


def main(bundle, server, process, *counts):
    with EdgeClient(bundle, server, deadline_ms=600_000) as client:
        size = client.manifest.image
        images = np.random.default_rng(0).integers(0, 256, (16, size.height, size.width, 3), np.uint8)
        frames = (images[number % len(images)] for number in range(int(counts[-1]) + 100))  # not the end of a stream
        for result in client.stream(frames):
            if result.error is not None:
                raise result.error
            if str(result.number) in counts:
                device = {**held("self"), "threads": threading.active_count()}
                print(json.dumps({"device": device, "server": held(process)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
