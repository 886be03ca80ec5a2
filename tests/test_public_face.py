"""The names that each room exports: other people's programs import them, so a change here is a change for them."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import bottlefit_jax

ROOT = Path(__file__).parents[1]
# room -> its __all__, without bottlefit_jax. in front of the room
EXPORTS = {
    "bundle": (
        "Bundle Calibration FORMAT File Head HeadFile Image Latent Local Manifest Model RAW RateEntry Tail Tensor "
        "identity read_bundle write_manifest"
    ),
    "cli": "Parser called_as print_error program read_config run run_command",
    "codec": (
        "Affine RANGE_BYTES Rate Rates decode decode_batch dequantize dynamic_range encode fit_rate levels_of "
        "make_rates parse_rates quantize rates_text static_range"
    ),
    "compare": "METHODS Method Options run_comparison",
    "convert": "from_keras from_torch to_torch",
    "data": (
        "Source Unlabelled check_images class_columns default_resize describe_order eval_batches match_labels "
        "open_images open_source read_labels spread steps_per_epoch train_batches"
    ),
    "edge": "BytesSent EdgeClient ImageError Interpreter Prediction ProtocolError Result Timings Unavailable",
    "errors": (
        "BottleFitError ParityError ProtocolError Unavailable UserError first_line is_disk_full quote write_error"
    ),
    "evaluation": (
        "Alternative NetworkResult Report StageSummary StudentResult calibrate correct_counts count_params "
        "create_eval_step decode_images device_cost encode_images evaluate jpeg_bytes macs percentages "
        "saving_percent send_and_classify versions wilson_interval write_report"
    ),
    "experiment": "Networks create_networks create_stages run_experiment stage_settings",
    "export": "EngineOptions ExportOptions Exported NotBuiltError Parity build_engine export_bundle write_repository",
    "files": "atomic_directory atomic_file sha256_of write_text",
    "images": "MAX_PIXELS REDUCE_ABOVE SUFFIXES check_image decode_image is_hidden orientation_of to_rgb upright",
    "interrupt": "SIGNALS asked not_inherited raised undone watch",
    "lazy": "exports",
    "links": (
        "BenchOptions Crossing DirectLink Link Row Sample ShapedLink Watts crossings find_meter measure_all open_link"
    ),
    "lock": "InUseError beside hold",
    "models": (
        "Bottleneck MODELS Network Spec create find_spec folded_norms normalise with_body_of with_measured_norms "
        "with_stem_of with_tail_of"
    ),
    "onnx_session": "PROVIDERS check_providers open_session providers_of",
    "paths": "PathError cache_folder local_path printable",
    "protocol": (
        "Capabilities Output Refused RequestMaker ResponseMaker capabilities_of check_config classes_of deadline_of "
        "head_of identity_problem input_of largest_response make_config microseconds outputs_of payload_problem "
        "vector_of version_of"
    ),
    "serve": "JsonFormatter Server ServerOptions serve_in_thread",
    "tensorrt_engine": "Job build_with_package check_version error_collector reason_of version_of",
    "training": (
        "LOSSES Loss Plan Result Role RunLog STAGES Stage StageCheckpoints StageSettings StopRequest StopSignal "
        "Stopped TrainState create_mesh create_optimizer create_schedule create_stage create_train_step "
        "initial_state load_meta load_variables put_batch put_replicated run_stage save_variables to_host"
    ),
}
COMMANDS = {"__main__", "main", "prepare"}  # rooms of one file that are a command and nothing else
WITHOUT = {"config_check", "drawing", "recipe"}  # rooms without __all__


def module_of(room):
    return room if room == "export" else f"bottlefit_jax.{room}"


def import_room(room):
    return importlib.import_module(module_of(room))


def test_no_room_is_missing():
    rooms = {module.name for module in pkgutil.iter_modules(bottlefit_jax.__path__)} | {"export"}
    assert rooms == EXPORTS.keys() | COMMANDS | WITHOUT
    assert [room for room in sorted(WITHOUT) if hasattr(import_room(room), "__all__")] == []


@pytest.mark.parametrize("room", EXPORTS)
def test_a_room_exports_these_names(room):
    assert sorted(import_room(room).__all__) == sorted(EXPORTS[room].split())


@pytest.mark.parametrize("room", EXPORTS)
def test_every_exported_name_can_be_imported_and_is_documented(room):
    module = import_room(room)
    assert module.__doc__
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            doc = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
            assert doc, f"{room}.{name} has no docstring"
            assert not doc.startswith(f"{name}("), f"{room}.{name} has only the docstring that a dataclass makes"


@pytest.mark.parametrize("room", EXPORTS)
def test_another_name_is_an_attribute_error(room):
    with pytest.raises(AttributeError, match=r"has no attribute 'no_such_name'"):
        _ = import_room(room).no_such_name


def test_importing_a_room_by_name_needs_no_package_that_is_not_used():
    """`from bottlefit_jax.ROOM import NAME` imports what the name needs; a plain import imports nothing."""
    need_numpy_or_jax = {"images", "models"}
    rooms = [module_of(room) for room in EXPORTS if room not in need_numpy_or_jax]
    code = f"import importlib\nfor room in {rooms}: importlib.import_module(room)"
    subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, check=True)


def test_the_package_declares_its_types():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"]["bottlefit_jax"] == ["py.typed"]
    assert (ROOT / "bottlefit_jax" / "py.typed").read_bytes() == b""
    assert bottlefit_jax.__all__ == ["__version__"]
