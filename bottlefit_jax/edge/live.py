"""The command's run over a camera or a video file: JSON lines, or on a terminal one line that says how it goes."""

import collections
import itertools
import json
import os
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from bottlefit_jax import interrupt
from bottlefit_jax.cli.command import print_error
from bottlefit_jax.files import write_text

if TYPE_CHECKING:
    from bottlefit_jax.edge.client import EdgeClient
    from bottlefit_jax.edge.options import ClassifyOptions
    from bottlefit_jax.edge.stream import Result

WINDOW_SECONDS = 10.0  # that the status line speaks of
REFRESH_SECONDS = 0.5  # between two versions of it
WIDTH = 110  # columns of it
HEALTH_SECONDS = 1.0  # between two versions of the health file, at least


def run(client: "EdgeClient", options: "ClassifyOptions") -> int:
    """Classify what a camera sees, until it ends, so many frames are classified, or a signal comes.

    Args:
        client: ready.
        options: with a camera.

    Returns:
        The exit code: 1 where a frame failed, 130 after SIGINT, else 0.

    Raises:
        UserError: there is no such camera, no other frame would succeed, or the health file cannot be written.
        Unavailable: the camera gives no first frame.
    """
    # OpenCV reports every attempt to open a camera; our error says it in one line
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    from bottlefit_jax.edge import camera

    assert options.camera is not None
    name, is_file = camera.name_of(options.camera), os.path.isfile(options.camera)
    if is_file:
        frames = camera.frames_of_file(options.camera)
    else:
        frames = camera.lasting(options.camera, camera.Mode(options.camera_size, options.camera_rate), print_error)
    terminal = sys.stdout.isatty() and not options.json
    output = StatusLine(name, sys.stdout) if terminal else JsonLines(name, options.device_id, sys.stdout)
    health = None if options.health is None else Health(options.health)
    signals: list[int] = []
    images = itertools.takewhile(lambda _: not signals, frames)  # what has begun is still answered
    failed = False
    results = client.stream(images, in_flight=options.in_flight, drop=not is_file)
    with interrupt.asked(signals.append):
        for result in itertools.islice(results, options.frames):
            failed = failed or result.error is not None
            output.add(result)
            if health is not None:
                health.add(result)
    output.end()
    return 128 + signal.SIGINT if signal.SIGINT in signals else int(failed)


class JsonLines:
    """Prints a JSON object for each frame, and errors on standard error."""

    def __init__(self, name: str, device: str, file: TextIO):
        """Print nothing yet.

        Args:
            name: of the camera.
            device: that the objects name.
            file: to print to.
        """
        self._name, self._device, self._file = name, device, file

    def add(self, result: "Result") -> None:
        """Print what became of a frame."""
        name = f"{self._name} frame {result.number}"
        if result.prediction is None:
            print_error(f"{name}: {result.error}")
            return
        frame = {"frame": result.number, "taken": result.taken, "dropped": result.dropped, "device": self._device}
        print(json.dumps({"file": name, **frame, **result.prediction.to_json()}), file=self._file, flush=True)

    def end(self) -> None:
        """Print nothing more."""


class StatusLine:
    """Prints one line on a terminal, again and again: the newest class, and how the last seconds went."""

    def __init__(self, name: str, file: TextIO):
        """Print nothing yet.

        Args:
            name: of the camera.
            file: the terminal.
        """
        self._name, self._file = name, file
        self._recent: collections.deque[tuple[float, Result]] = collections.deque()
        self._printed = float("-inf")

    def add(self, result: "Result") -> None:
        """Take in a result, and print the line where it is time to."""
        now = time.monotonic()
        self._recent.append((now, result))
        while now - self._recent[0][0] > WINDOW_SECONDS:
            self._recent.popleft()
        if now - self._printed >= REFRESH_SECONDS:
            self._print(now)

    def end(self) -> None:
        """Print the last line, and leave it."""
        if self._recent:
            self._print(time.monotonic())
            print(file=self._file, flush=True)

    def text(self, now: float) -> str:
        """Return the line."""
        results = [result for _, result in self._recent]
        predictions = [result.prediction for result in results if result.prediction is not None]
        seconds = max(now - self._recent[0][0], 1e-9)
        parts = [f"{self._name}: {predictions[-1].label if predictions else 'no answer'}"]
        if len(results) > 1:
            parts.append(f"{(len(results) - 1) / seconds:.1f} frames/s")
        parts.append(f"dropped {results[-1].dropped}")
        if len(predictions) < len(results):
            parts.append(f"failed {len(results) - len(predictions)}")
        paths = collections.Counter(prediction.route.path for prediction in predictions)
        parts += [f"{path} {100 * count / len(results):.0f} %" for path, count in paths.most_common()]
        times = sorted(prediction.timings.total for prediction in predictions)
        if times:
            high = times[min(len(times) - 1, int(0.95 * len(times)))]
            parts.append(f"p50 {statistics.median_low(times):.0f} ms, p95 {high:.0f} ms")
        return "  ".join(parts)

    def _print(self, now: float) -> None:
        self._printed = now
        print(f"\r{self.text(now)[:WIDTH]:<{WIDTH}}", end="", file=self._file, flush=True)


class Health:
    """Keeps a small file, for a watchdog: its age says when the last result came, its content how the run goes."""

    def __init__(self, path: Path):
        """Write the file, without results.

        Raises:
            UserError: it cannot be written.
        """
        self._path = path
        self._values = {"frames": 0, "failed": 0, "dropped": 0, "answered": None}
        self._write()

    def add(self, result: "Result") -> None:
        """Take in a result, and write the file where it is time to."""
        now = time.time()
        self._values["frames"] += 1
        self._values["dropped"] = result.dropped
        if result.error is None:
            self._values["answered"] = now
        else:
            self._values["failed"] += 1
        if time.monotonic() - self._written >= HEALTH_SECONDS:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        write_text(self._path, json.dumps({"written": time.time(), **self._values}) + "\n")
