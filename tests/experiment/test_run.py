"""A run as a library call: off the main thread, without signal handlers, and its random streams."""

import dataclasses
import signal
import sys
import threading

import jax
import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.experiment import inputs, run
from bottlefit_jax.recipe import base_config
from bottlefit_jax.training import loop, stages
from bottlefit_jax.training.checkpoint import digest
from bottlefit_jax.training.losses import LOSSES, Loss, cross_entropy
from tests.data.images import make_folder


@pytest.fixture(autouse=True)
def _standard_promotion():
    """Optax's arithmetic mixes integer steps with floats, which strict promotion refuses."""
    jax.config.update("jax_numpy_dtype_promotion", "standard")  # of every thread
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def config(tmp_path):
    """A teacher of width 4 for two steps, on twelve images of two classes."""
    config = base_config()
    root = str(make_folder(tmp_path / "set"))
    config.dataset.update(name="folder", root=root, image_size=32, resize=32, workers=0)
    config.teacher.update(name="resnet18", options={"width": 4})
    config.student.bottleneck.channels = 3
    for name in ("teacher", "stage1", "stage2"):
        config.stages[name].update(epochs=0, batch_size=6)
    config.stages.teacher.epochs = 1
    config.eval_batch_size = 12
    return config


class Recorded(loop.StopRequest):
    """A request that notes the handlers of signals at every step."""

    def __init__(self):
        super().__init__()
        self.handlers = []

    def reached(self, step):
        self.handlers.append([signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)])
        return super().reached(step)


def hooks():
    signals = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    return [*signals, sys.excepthook, sys.unraisablehook, threading.excepthook]


def test_a_run_is_stopped_and_resumed_off_the_main_thread_and_changes_no_handler(config, tmp_path, capsys):
    before, outcome = hooks(), {}
    stopping = loop.StopRequest()
    stopping.request()

    def work():
        try:
            run.run_experiment(config.lock(), tmp_path / "run", stop=stopping)
        except loop.Stopped as stopped:
            outcome["stopped"] = stopped.signum
        outcome["report"] = run.run_experiment(config, tmp_path / "run")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcome["stopped"] == signal.SIGTERM
    assert outcome["report"]["stages"][0]["epochs"] == 1
    assert "teacher: resuming from step 1 of 2" in capsys.readouterr().out
    assert hooks() == before


def test_on_the_main_thread_a_run_leaves_signal_handlers_alone(config, tmp_path):
    stop = Recorded()
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    run.run_experiment(config.lock(), tmp_path / "run", stop=stop)
    assert stop.handlers == [before] * 2


def beginnings(config, workdir, monkeypatch):
    """Return, by stage, the digest of its first weights, its first batch and its random key."""
    recorded = {}

    def run_stage(stage, plan, state, *, key, **others):
        batch = next(plan.batches(0))
        recorded[stage.name] = digest([state.variables, batch, jax.random.key_data(key)])
        return loop.Result(state.variables, {"name": stage.name, "epochs": 1, "seconds": 0.0, "images_per_second": 0.0})

    monkeypatch.setattr(loop, "run_stage", run_stage)
    run.run_experiment(config.lock(), workdir)
    return recorded


@pytest.mark.slow
def test_another_stage_in_the_table_leaves_the_streams_of_the_others_as_they_are(config, tmp_path, monkeypatch):
    for name in ("stage1", "stage2"):
        config.stages[name].epochs = 1
    alone = beginnings(config, tmp_path / "alone", monkeypatch)
    assert list(alone) == ["teacher", "stage1", "stage2"]
    assert len(set(alone.values())) == 3
    with config.unlocked():
        config.stages.warmup = config.stages.stage1.copy_and_resolve_references()
    added = stages.Declaration(stages.Role.STUDENT, ("decoder",), ("feature_matching",))
    table = {"teacher": stages.STAGES["teacher"], "warmup": added, "stage2": stages.STAGES["stage2"]}
    table["stage1"] = stages.STAGES["stage1"]
    monkeypatch.setattr(stages, "STAGES", table)
    monkeypatch.setattr(inputs, "STAGES", table)
    longer = beginnings(config, tmp_path / "longer", monkeypatch)
    assert list(longer) == ["teacher", "warmup", "stage2", "stage1"]
    assert {name: longer[name] for name in alone} == alone
    assert longer["warmup"] not in alone.values()


def test_a_new_loss_and_a_new_stage_are_a_row_each(config, monkeypatch):
    row = Loss(
        lambda *outputs, scale: {"scaled": scale * cross_entropy(*outputs)["cross_entropy"]},
        options=lambda settings, network, trained: {"scale": settings["scale"]},
        terms=lambda options: ("scaled",),
    )
    monkeypatch.setitem(LOSSES, "scaled", row)
    monkeypatch.setitem(stages.STAGES, "stage3", stages.Declaration(stages.Role.STUDENT, ("decoder",), ("scaled",)))
    config.stages.stage3 = config.stages.stage2.copy_and_resolve_references()
    config.stages.stage3.update(epochs=1, scale=2.0, loss=None)
    networks = inputs.create_networks(config, ["ant", "bee"])
    stage = inputs.create_stages(config, networks)["stage3"]
    assert (stage.trained, stage.terms, stage.needs_teacher) == (("decoder",), ("scaled",), False)
    assert inputs.stages_to_run(config) == ("teacher", "stage3")


def test_frozen_parts_update_their_statistics_where_the_config_says_so(config):
    config.stages.stage1.epochs = 1
    networks = inputs.create_networks(config, ["ant", "bee"])
    parts = {}
    for choice in ("fixed", "update"):
        config.frozen_statistics = choice
        parts[choice] = inputs.create_stages(config, networks)["stage1"].statistics_only
    frozen = tuple(part for part in networks.student.parts if part not in ("encoder", "decoder"))
    assert parts == {"fixed": (), "update": frozen}


def test_a_stage_that_needs_a_teacher_is_refused_without_one(config):
    config.stages.stage2.epochs = 1
    networks = dataclasses.replace(inputs.create_networks(config, ["ant", "bee"]), teacher=None)
    config.stages.teacher.epochs = 0
    with pytest.raises(UserError, match="there is no teacher"):
        inputs.create_stages(config, networks)
    config.stages.stage2.loss = "cross_entropy"
    assert not inputs.create_stages(config, networks)["stage2"].needs_teacher
