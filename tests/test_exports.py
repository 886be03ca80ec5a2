"""The names that the rooms of training export, and that importing such a room imports nothing heavy."""

import importlib
import subprocess
import sys

import pytest

EXPORTS = {
    "evaluation": "calibrate correct_counts count_params create_eval_step decode_images device_cost encode_images "
    "evaluate jpeg_bytes macs percentages saving_percent send_and_classify versions wilson_interval write_report",
    "experiment": "Networks create_networks create_stages latent_payload run_experiment stage_settings",
    "training": "LOSSES STAGES Loss Plan Result Role RunLog Stage StageCheckpoints StageSettings StopRequest "
    "StopSignal Stopped TrainState create_mesh create_optimizer create_schedule create_stage create_train_step "
    "initial_state load_meta load_variables put_batch put_replicated run_stage save_variables to_host",
}


@pytest.mark.parametrize("room", EXPORTS)
def test_a_room_exports_these_names(room):
    module = importlib.import_module(f"bottlefit_jax.{room}")
    assert module.__all__ == EXPORTS[room].split()
    for name in module.__all__:
        exported = getattr(module, name)
        if callable(exported):
            assert exported.__module__.startswith(f"bottlefit_jax.{room}.")
            assert exported.__name__ == name
    with pytest.raises(AttributeError, match=f"'bottlefit_jax.{room}' has no attribute 'nothing'"):
        _ = module.nothing


def test_importing_these_rooms_imports_no_package():
    rooms = ", ".join(f"bottlefit_jax.{room}" for room in EXPORTS)
    code = f"import sys, {rooms}; print([name for name in ('jax', 'numpy', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
