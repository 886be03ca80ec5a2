"""The end of `benchmarks/gpu.sh`: prints the results, unfinished ones included, and writes reports.json.

    python -m benchmarks.gpu_summary OUTPUT RUNS DEVICE

Exit codes: 0 everything finished; 1 something was cut off or failed; 2 an argument is invalid.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from bottlefit_jax.cli.command import Parser, print_error
from bottlefit_jax.errors import UserError

STAGES = ("teacher", "stage1", "stage2")
MODELS = ("resnet50", "densenet169")


def main(argv: list[str]) -> int:
    """Print the summary of OUTPUT, RUNS, DEVICE, and return the exit code."""
    try:
        return summarise(*parse(argv))
    except UserError as error:
        return print_error(error)


def parse(argv: list[str]) -> tuple[Path, Path, str]:
    """Read the command line.

    Raises:
        UserError: an argument is missing or unknown, or no such folder.
    """
    parser = Parser("benchmarks.gpu_summary", __doc__)
    add = parser.group("what to summarise")
    add("output", type=Path, metavar="OUTPUT", help="folder with train_step.json; gets reports.json")
    add("runs", type=Path, metavar="RUNS", help="folder with a workdir for each training")
    add("device", metavar="DEVICE", help="name of the GPU, for the title")
    args = parser.parse_args(argv)
    for name in ("output", "runs"):
        if not getattr(args, name).is_dir():
            raise UserError(f"{name.upper()} is {getattr(args, name)}; it must be a folder that gpu.sh wrote")
    return args.output, args.runs, args.device


def summarise(folder: Path, runs: Path, device: str) -> int:
    """Print the summary; 0 where everything came to its end, or else 1."""
    ends = {name: ended(runs, name) for name in ("train_step", *MODELS)}
    reports = {model: read_report(runs / model) for model in MODELS}
    lines = [f"# {device}", ""]
    lines += [f"Stage 1 against PyTorch: {ends['train_step']}", ""]
    if (folder / "train_step.json").is_file():
        lines += [*speed_rows(_read_json(folder / "train_step.json")), ""]
    for model in MODELS:
        lines += [f"{model}: {ends[model]}", "", *training_rows(runs / model, reports[model]), ""]
    (folder / "reports.json").write_text(json.dumps(reports, indent=2) + "\n")
    print("\n".join(lines).rstrip())
    return 0 if all(end.startswith("done") for end in ends.values()) else 1


def ended(runs: Path, name: str) -> str:
    """How a part ended, in gpu.sh's words: done, cut, failed or not begun."""
    path = runs / f"{name}.end"
    return path.read_text().strip() if path.is_file() else "not begun"


def speed_rows(result: dict[str, Any]) -> list[str]:
    """Return the table of `train_step.json`."""
    options, speed = result["options"], result["speed"]
    rows = [
        f"{options['model']}, {options['size']} px, batch {options['batch']}, {options['dtype']}; losses agree to "
        f"{speed['losses_differ']:.1e}; {speed['flops_per_image']['step'] / 1e9:.2f} GFLOP an image",
        "",
        "| | images/s, median | range | share of the product's rate |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, label in (("torch", f"PyTorch {options['torch']}"), ("ours", "ours")):
        share = 100 * statistics.median(speed["shares_of_peak"][name])
        rows.append(f"| {label} | {_cells(speed['rates'][name], '.1f')} | {share:.1f} % |")
    rows.append(f"| ratio | {_cells(speed['ratios'], '.2f')} | |")
    peaks = [peak / 1e12 for peak in speed["peak_flops_per_second"]]
    return [*rows, f"| matrix product {speed['product']}, TFLOP/s | {_cells(peaks, '.1f')} | |"]


def read_report(workdir: Path) -> dict[str, Any] | None:
    """Return the report of a finished training."""
    path = workdir / "report.json"
    return _read_json(path) if path.is_file() else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None


def training_rows(workdir: Path, report: dict[str, Any] | None) -> list[str]:
    """Return the figures of a training's report, or how far each stage had come."""
    rows = [
        f"- {record['stage']}: epoch {record['epoch']}, top-1 {record['top1']:.2f} %, "
        f"{record['images_per_second']:.0f} images/s"
        for record in last_epochs(workdir / "metrics.jsonl")
    ]
    if report is None:
        return [*rows, "- no report: the training did not come to its end"]
    traffic = report["bytes_per_image"]
    return [
        *rows,
        f"- teacher {report['teacher']['top1']:.2f} %, student {report['student']['top1']:.2f} % top-1, "
        f"{traffic['latent_payload']:,.0f} bytes an image instead of {traffic['jpeg']:,.0f} as JPEG "
        f"({traffic['saving_percent']:.1f} % less)",
    ]


def last_epochs(path: Path) -> list[dict[str, Any]]:
    """Return the last record of each stage that has one; a half-written line of a killed process is ignored."""
    last: dict[str, dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        last[record["stage"]] = record
    return [last[stage] for stage in STAGES if stage in last]


def _cells(values: list[float], style: str) -> str:
    return f"{statistics.median(values):{style}} | {min(values):{style}}..{max(values):{style}}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
