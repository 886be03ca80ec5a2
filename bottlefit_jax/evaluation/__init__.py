"""The evaluation of a teacher and its student: accuracy, bytes, cost on the device, the report and its plots."""

from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from bottlefit_jax.evaluation.accuracy import correct_counts, percentages, wilson_interval
    from bottlefit_jax.evaluation.alternatives import Alternative
    from bottlefit_jax.evaluation.cost import count_params, device_cost, macs
    from bottlefit_jax.evaluation.image_bytes import decode_images, encode_images, jpeg_bytes, saving_percent
    from bottlefit_jax.evaluation.networks import calibrate, create_eval_step, evaluate, send_and_classify
    from bottlefit_jax.evaluation.report import NetworkResult, Report, StageSummary, StudentResult, versions
    from bottlefit_jax.evaluation.report_files import write_report

__all__ = [
    "Alternative",
    "NetworkResult",
    "Report",
    "StageSummary",
    "StudentResult",
    "calibrate",
    "correct_counts",
    "count_params",
    "create_eval_step",
    "decode_images",
    "device_cost",
    "encode_images",
    "evaluate",
    "jpeg_bytes",
    "macs",
    "percentages",
    "saving_percent",
    "send_and_classify",
    "versions",
    "wilson_interval",
    "write_report",
]

__getattr__ = exports(
    __name__,
    {
        "accuracy": ("correct_counts", "percentages", "wilson_interval"),
        "alternatives": ("Alternative",),
        "cost": ("count_params", "device_cost", "macs"),
        "image_bytes": ("decode_images", "encode_images", "jpeg_bytes", "saving_percent"),
        "networks": ("calibrate", "create_eval_step", "evaluate", "send_and_classify"),
        "report": ("NetworkResult", "Report", "StageSummary", "StudentResult", "versions"),
        "report_files": ("write_report",),
    },
)
