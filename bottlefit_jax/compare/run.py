"""A comparison, item by item: results are kept, failures become rows, the report is written after each seed."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax import lock
from bottlefit_jax.codec.rates import parse_rates
from bottlefit_jax.compare import latency_plot, plots, timing
from bottlefit_jax.compare.curves import measured_curves
from bottlefit_jax.compare.exits import NEVER, THRESHOLDS, evaluate_exits
from bottlefit_jax.compare.items import Item, Options, to_measure
from bottlefit_jax.compare.methods import rate_term, student_epochs
from bottlefit_jax.compare.report import LATENCY, RATE_ACCURACY, write_comparison
from bottlefit_jax.compare.rows import same_network, table
from bottlefit_jax.compare.same_bytes import same_bytes
from bottlefit_jax.compare.setting import Setting, open_setting
from bottlefit_jax.compare.teacher import TeacherEvaluation, jpeg_mean, last_fifth
from bottlefit_jax.config_check import check_config
from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation.cost import count_params, device_cost, macs
from bottlefit_jax.evaluation.report import versions
from bottlefit_jax.experiment.inputs import Variables, claim_workdir, create_networks
from bottlefit_jax.experiment.results import RATES, resolved
from bottlefit_jax.experiment.run import run_experiment
from bottlefit_jax.files import write_text
from bottlefit_jax.recipe import Config, bottleneck_options
from bottlefit_jax.training.loop import Stopped, StopSignal
from bottlefit_jax.training.progress import METRICS

RATES_NOTE = (
    "Every student sends payloads of the same codec, at rates that were chosen as for a report: a step for each "
    "channel, tables from training images. The steps differ from seed to seed; a row takes from each seed the cheapest "
    "rate that loses at most so many points of the teacher, or of the seed's own best rate where that is lower."
)


def run_comparison(config: Config, workdir: Path, options: Options, *, command: str | None = None) -> dict[str, Any]:
    """Measure what the options ask for, continuing what `workdir` already holds, and write the report.

    Args:
        config: from a file in `configs/`, locked.
        workdir: created where it is missing; all but the report is in `workdir/compare`.
        options: which methods, seeds and channels.
        command: what the user typed, for the report.

    Returns:
        The comparison, as in `workdir/compare.json`.

    Raises:
        UserError: a mistake in config, data or workdir that concerns every method.
        Stopped: a signal came; everything is saved.
    """
    check_config(config)
    folder = workdir / "compare"
    with lock.hold(folder / ".claim.lock", workdir, wait=True):
        claim_workdir(workdir, config)
    items = to_measure(options, options.channels or (bottleneck_options(config)["channels"],))
    stop = StopSignal()
    with contextlib.ExitStack() as stack:  # two processes may share a workdir, but no training
        for item in items:
            if item.seed is not None and not (folder / "results" / f"{item.name}.json").exists():
                hint = ", or choose other --methods, --seeds or --channels"
                stack.enter_context(lock.hold(folder / f".{item.name}.lock", f"{item.name} in {workdir}", hint=hint))
        return _Comparison(open_setting(config, workdir, stop), workdir, options, items, command, stop).run()


@dataclasses.dataclass
class _Comparison:
    """A comparison that is running; the fields with defaults fill up as it goes."""

    setting: Setting
    workdir: Path
    options: Options
    items: Sequence[Item]
    command: str | None
    stop: StopSignal
    results: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)  # by an item's name
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    teacher: TeacherEvaluation | None = None

    @property
    def folder(self) -> Path:
        """The folder of everything but the report."""
        return self.workdir / "compare"

    def run(self) -> dict[str, Any]:
        """Measure every item, and write the report after each seed."""
        (self.folder / "results").mkdir(parents=True, exist_ok=True)
        items = self.items
        jpeg95 = jpeg_mean(self.setting)
        for number, item in enumerate(items):
            self._finish(item)
            if not self.results.get("local"):
                raise UserError(f"the teacher cannot be evaluated: {self.failures['local']}")
            if number + 1 < len(items) and items[number + 1].seed != item.seed:
                self._show(items, {}, jpeg95)
        return self._show(items, self._times(items), jpeg95)

    def _finish(self, item: Item) -> None:
        """Measure an item, or read what an earlier process measured."""
        path = self.folder / "results" / f"{item.name}.json"
        if path.exists():
            self.results[item.name] = json.loads(path.read_text())
            return
        print(f"{item.name}:", flush=True)
        try:
            result = self._measure(item)
        except Stopped:
            raise
        except Exception as error:  # whatever it is, the other methods still have their rows
            reason = " ".join(str(error).split())[:300] or "no reason given"
            self.failures[item.name] = reason if isinstance(error, UserError) else f"{type(error).__name__}: {reason}"
            print(f"  failed: {self.failures[item.name]}", flush=True)
            return
        write_text(path, json.dumps(result, indent=2) + "\n")  # every process measures JPEG and may write it
        self.results[item.name] = result
        print(f"  top-1 {result['top1']:.2f} %, {result['bytes']['mean']:,.0f} bytes", flush=True)

    def _measure(self, item: Item) -> dict[str, Any]:
        if item.method.change:
            return self._train(item)
        self.teacher = self.teacher or TeacherEvaluation(self.setting)
        if item.quality is not None:
            return {**self.teacher.on_files(item.method.image_format, item.quality), "params": 0, "macs": 0}
        networks, size = self.setting.networks, self.setting.image_size
        teacher, variables = networks.teacher, networks.teacher_variables
        assert variables is not None
        cost = macs(lambda image: teacher.apply(variables, image)[0], np.zeros((1, size, size, 3), np.float32))
        return {**self.teacher.on_device(), "params": count_params(variables["params"]), "macs": cost}

    def _train(self, item: Item) -> dict[str, Any]:
        """Train a student in a run of its own, and measure it; its checkpoints are deleted, its weights kept."""
        folder = self.folder / "runs" / item.name
        report = run_experiment(self._config(item), folder, stop=self.stop)
        student, variables, bottleneck = self._student(item)
        rates, rate = report["rates"], report["default_rate"]
        payload = report["bytes_per_image"]["latent_payload"]
        p95 = next((each["bytes_p95"] for each in rates if each["id"] == rate), payload)
        result = {
            **{key: report["student"][key] for key in ("top1", "top5", "float_top1")},
            "bytes": {"mean": payload, "p95": p95},
            "latent": report["student"]["latent_shape"],
            "rates": rates,
            "default_rate": rate,
            **device_cost(student, variables, self.setting.image_size),
        }
        if student.design.early_exit is not None:
            tables = parse_rates((folder / RATES).read_text(), str(folder / RATES))
            chosen = {"rates": tables, "rate": rate}
            thresholds = (*THRESHOLDS, NEVER)
            result["exits"] = evaluate_exits(self.setting, student, variables, bottleneck, thresholds, **chosen)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return result

    def _config(self, item: Item) -> Config:
        assert item.seed is not None
        return self.setting.student_config(item.method, seed=item.seed, channels=item.channels)

    def _student(self, item: Item) -> tuple[Any, Variables, dict[str, Any]]:
        """Return the network, the weights and the bottleneck of a finished training."""
        config = self._config(item)
        config.student.weights = str(self.folder / "runs" / item.name / "student")
        networks = create_networks(config, self.setting.source.class_names)
        assert networks.student_variables is not None
        return networks.student, networks.student_variables, networks.bottleneck

    def _times(self, items: Sequence[Item]) -> dict[str, dict[str, float]]:
        """Return milliseconds by item, measured once for each network; {} where they cannot be measured."""
        print("measuring milliseconds on one core, all methods in turn", flush=True)
        done = [item for item in items if item.name in self.results]
        representative = {same_network(self.results[item.name]): item for item in done if item.seed is not None}
        images = {item.name: (item.method.image_format, item.quality) for item in done if item.quality is not None}
        try:
            students = {item.name: self._student(item)[:2] for item in representative.values()}
            times = timing.measure(self.setting, images, students)
        except UserError as error:
            self.notes.append(f"No milliseconds were measured: {error}.")
            return {}
        others = {
            item.name: representative[same_network(self.results[item.name])] for item in done if item.seed is not None
        }
        return {**times, **{name: times[item.name] for name, item in others.items()}}

    def _epochs(self) -> str:
        """Return the note on how long teacher and students were trained, and what the teacher's last epochs gained."""
        config, folder = self.setting.config, Path(self.setting.config.teacher.weights)
        trained_here = folder.is_relative_to(self.workdir)
        theirs = f"had {config.stages.teacher.epochs}" if trained_here else "came with its weights"
        gained, ours = last_fifth(folder.parent / METRICS if trained_here else None), student_epochs(config)
        return (
            f"Every student was trained for {ours} epochs, in one stage or two; the teacher {theirs}. "
            f"What the teacher's last fifth of its epochs added to its top-1: {gained}."
        )

    def _rate_term(self) -> list[str]:
        """Return the note on the rate term, where a method has it."""
        if not any(item.method.rate for item in self.items):
            return []
        term, ours = rate_term(self.setting.config), not self.setting.config.student.rate.weight
        steps = ", ".join(f"{step:g}" for step in term["steps"])
        whose = "the comparison's defaults, as the config sets no weight" if ours else "as the config sets them"
        scope = "where a method has none of its own"
        return [f"The rate term has weight {term['weight']:g} and, {scope}, steps {steps}: {whose}."]

    def _show(self, items: Sequence[Item], times: dict[str, dict[str, float]], jpeg95: float) -> dict[str, Any]:
        """Draw and write what has been measured so far."""
        dataset, teacher = self.setting.config.dataset, self.results["local"]
        curves = measured_curves(items, self.results)
        comparison = {
            "dataset": Path(dataset.root).name if dataset.name == "folder" else dataset.name,
            "images": len(self.setting.source),
            "image_size": self.setting.image_size,
            "teacher": {"name": self.setting.networks.name, "top1": teacher["top1"], "top5": teacher["top5"]},
            "jpeg95_bytes": jpeg95,
            "device_slower": self.options.device_slower,
            "seeds": list(self.options.seeds),
            "rows": table(items, self.results, self.failures, times),
            "curves": curves,
            "same_bytes": same_bytes(curves),
            "notes": [
                *self.notes,
                self._epochs(),
                RATES_NOTE,
                *self._rate_term(),
                *(f"{m.title}: {m.note}." for m in dict.fromkeys(item.method for item in items)),
            ],
            "versions": versions(),
            "config": resolved(self.setting.config, self.setting.networks),
        }
        with lock.hold(self.folder / ".report.lock", self.workdir / "compare.md", wait=True):
            plots.rate_accuracy(self.workdir / RATE_ACCURACY, comparison)
            if not latency_plot.latency(self.workdir / LATENCY, comparison):
                (self.workdir / LATENCY).unlink(missing_ok=True)
            write_comparison(self.workdir, comparison, command=self.command)
        return comparison
