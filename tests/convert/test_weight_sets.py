"""Checkpoints with several sets of weights, and names with prefixes of wrappers, as training scripts write them."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from bottlefit_jax.convert import files, from_torch
from bottlefit_jax.convert.network import to_state_dict
from bottlefit_jax.convert.weight_sets import averaged_steps, choose, find, without_wrappers
from bottlefit_jax.errors import UserError
from bottlefit_jax.training.checkpoint import load_variables
from tests.convert.state_dicts import WIDTH, equal, import_, save_npz, state_dict

ADAM = {"state": {0: {"exp_avg": np.ones((3, 3))}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


@pytest.fixture(scope="module")
def averaged():
    return state_dict(seed=9)


def names_of(content):
    return [item.name for item in find(content)]


def chosen(content, name=None):
    return choose(Path("x.pth"), find(content), name)


@pytest.mark.parametrize(
    "keys",
    [
        ("model", "model_ema"),
        ("state_dict", "state_dict_ema"),
        ("params", "params_ema"),
        ("net", "swa_state_dict"),
        ("model_state_dict", "averaged"),
    ],
)
def test_several_sets_are_named_and_one_is_chosen(teacher, averaged, keys):
    saved = {keys[0]: teacher, "epoch": 3, keys[1]: averaged, "optimizer": ADAM}
    assert names_of(saved) == list(keys)
    with pytest.raises(UserError, match=rf"x.pth holds 2 sets of weights: {keys[0]}, {keys[1]}; choose .* --weights N"):
        chosen(saved)
    for key, expected in zip(keys, (teacher, averaged), strict=True):
        found = chosen(saved, key)
        assert found.values is expected
        assert found.beside == {"epoch": 3, "optimizer": ADAM}
    with pytest.raises(UserError, match=rf"--weights best: x.pth has {keys[0]}, {keys[1]}"):
        chosen(saved, "best")


@pytest.mark.parametrize("path", ["model", "net", "params", "model_state_dict", "checkpoint.model", "a.b.state_dict"])
def test_one_set_is_found_at_any_depth(teacher, path):
    saved = teacher
    for key in reversed(path.split(".")):
        saved = {key: saved, "epoch": 3, "optimizer": ADAM, "rng": np.ones(5000, np.uint8)}
    found = chosen(saved)
    assert (found.name, found.values) == (path, teacher)
    assert found.beside["epoch"] == 3


def test_several_networks_in_one_dictionary_are_separated(tmp_path, capsys, refused, teacher, averaged):
    saved = {f"module.online_model.{key}": value for key, value in teacher.items()}
    saved |= {f"module.ema_model.module.{key}": value for key, value in averaged.items()}
    saved |= {"module.initted": np.array(True), "module.ema_model.n_averaged": np.array(5)}
    source = save_npz(tmp_path / "x.npz", saved)
    args = ("--model", "resnet18", "--input", source, "--output", tmp_path / "x", *WIDTH)
    refused(tmp_path / "x", "x.npz holds 2 sets of weights: online_model, ema_model; choose one with --weights", *args)
    assert import_(source, tmp_path / "x", "--weights", "ema_model") == 0
    out = capsys.readouterr().out
    assert "weights: ema_model, chosen from online_model, ema_model\n" in out
    assert "averaged over 5 steps\n" in out
    equal(to_state_dict(*load_variables(tmp_path / "x"))[0], averaged)


def test_similar_parts_of_one_network_are_not_separated():
    given = state_dict("inception_v3", aux_logits=False)  # four of its blocks have the same names and shapes
    assert names_of(given) == ["."]
    assert chosen(given).values is given


def test_averages_without_names_are_listed_and_not_read(teacher):
    values = [value for value in teacher.values() if value.ndim]
    saved = {"model": teacher, "ema": {"decay": 0.999, "shadow_params": values}}
    with pytest.raises(UserError, match=r"2 sets of weights: model, ema\.shadow_params; choose one"):
        chosen(saved)
    assert chosen(saved, "model").values is teacher
    with pytest.raises(UserError, match=r"list of arrays without names, .* copy the averaged weights into the network"):
        chosen(saved, "ema.shadow_params")


@pytest.mark.parametrize("wrappers", [*itertools.permutations(("_orig_mod.", "module.", "model."), 2), ("net.",)])
def test_prefixes_of_wrappers_are_removed_in_any_order(teacher, wrappers):
    wrapped = {"".join(wrappers) + key: value for key, value in teacher.items()}
    assert without_wrappers(wrapped).keys() == teacher.keys()
    expected, found = (from_torch("resnet18", given, width=8) for given in (teacher, wrapped))
    for key in ("kernel",):
        np.testing.assert_array_equal(found["params"]["conv1"][key], expected["params"]["conv1"][key])
    inside = {key.replace("layer1.", "layer1._orig_mod."): value for key, value in wrapped.items()}
    assert without_wrappers(inside).keys() == teacher.keys()


def test_the_counter_of_pytorchs_average_is_no_weight(teacher):
    wrapped = {"n_averaged": np.array(12)} | {f"module.{key}": value for key, value in teacher.items()}
    assert without_wrappers(wrapped).keys() == teacher.keys()
    assert (averaged_steps(wrapped), averaged_steps(teacher)) == (12, None)


def test_a_loss_beside_the_network_is_the_one_problem(teacher):
    wrapped = {f"model.{key}": value for key, value in teacher.items()}
    with pytest.raises(UserError, match=r"1 problem: unknown criterion\.weight$"):
        from_torch("resnet18", without_wrappers(wrapped) | {"criterion.weight": np.ones(7)}, width=8)


@pytest.mark.torch
def test_a_torch_checkpoint_with_an_average_needs_a_choice(tmp_path, teacher, averaged):
    torch = pytest.importorskip("torch")
    tensors = [{f"module.{k}": torch.from_numpy(np.array(v)) for k, v in part.items()} for part in (teacher, averaged)]
    torch.save({"state": {"model": tensors[0], "model_ema": tensors[1]}, "epoch": 2}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"2 sets of weights: state\.model, state\.model_ema; choose"):
        files.read(tmp_path / "x.pth")
    file = files.read(tmp_path / "x.pth", "state.model_ema")
    equal(without_wrappers(file.arrays), averaged)
    assert (file.weights, file.sets, file.beside) == (
        "state.model_ema",
        ("state.model", "state.model_ema"),
        {"epoch": 2},
    )
