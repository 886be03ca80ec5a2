"""The log of a run: a progress bar, a line per epoch, and the same numbers as JSON lines and TensorBoard events."""

import json
import sys
from pathlib import Path
from typing import Any

import tensorboardX
from tqdm import tqdm

from bottlefit_jax.files import write_text

METRICS = "metrics.jsonl"  # in a workdir; a line for each epoch of each stage


class RunLog:
    """Writes `metrics.jsonl` and `tensorboard/` in a workdir. On hosts other than the first it does nothing.

    Attributes:
        records: one for each epoch of each stage: {"stage", "epoch", "step", "train_loss", "terms", "learning_rate",
            "images_per_second"}, and {"top1", "top5"} in percent where the epoch was evaluated.
    """

    def __init__(self, workdir: Path, *, primary: bool = True, measure: str = "top-1"):
        """Open the log of a run, and read what an earlier process of the same run wrote.

        Args:
            workdir: of the run.
            primary: whether this process is the first of several hosts'.
            measure: what lines call "top1".
        """
        self._path = workdir / METRICS
        self._primary, self._measure = primary, measure
        self._events = tensorboardX.SummaryWriter(str(workdir / "tensorboard")) if primary else None
        self.records: list[dict[str, Any]] = []
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                try:
                    self.records.append(json.loads(line))
                except json.JSONDecodeError:  # the process was killed while it wrote this line
                    break

    def rewind(self, stage: str, step: int) -> None:
        """Drop the records of `stage` after `step`: that part is about to run again."""
        self.records = [record for record in self.records if record["stage"] != stage or record["step"] <= step]
        if self._primary:
            write_text(self._path, "".join(json.dumps(record) + "\n" for record in self.records))

    def epoch(self, record: dict[str, Any], *, epochs: int) -> None:
        """Record one epoch and print its line.

        Args:
            record: as in `records`.
            epochs: of the stage.
        """
        self.records.append(record)
        if not self._primary or self._events is None:
            return
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        for name in ("train_loss", "learning_rate", "images_per_second", "top1", "top5"):
            if name in record:
                self._events.add_scalar(f"{record['stage']}/{name}", record[name], record["step"])
        for term, value in record["terms"].items():
            self._events.add_scalar(f"{record['stage']}/loss/{term}", value, record["step"])
        top1 = f"{self._measure} {record['top1']:.2f} %  " if "top1" in record else ""
        self.say(
            f"{record['stage']}  epoch {record['epoch']}/{epochs}  loss {record['train_loss']:.4g}  "
            f"{top1}{record['images_per_second']:.0f} images/s"
        )

    def say(self, line: str) -> None:
        """Print a line without breaking the bar; characters that the terminal cannot show are escaped."""
        if self._primary:
            encoding = sys.stdout.encoding or "utf-8"
            tqdm.write(line.encode(encoding, "backslashreplace").decode(encoding), file=sys.stdout)
            sys.stdout.flush()

    def bar(self, stage: str, *, total: int, initial: int, batch_size: int) -> tqdm:
        """Return a progress bar over the images of a stage; it is hidden where standard error is no terminal.

        Args:
            stage: its name.
            total: steps of the stage.
            initial: steps that are done.
            batch_size: images in a step.
        """
        return tqdm(
            desc=stage,
            total=total * batch_size,
            initial=initial * batch_size,
            unit=" images",
            unit_scale=True,
            disable=not self._primary or not sys.stderr.isatty(),
            dynamic_ncols=True,
            leave=False,
        )

    def close(self) -> None:
        """Write what is buffered, and close the files."""
        if self._events is not None:
            self._events.close()
