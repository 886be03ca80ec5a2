"""Which bundles are loaded, and what happens to invalid ones."""

from pathlib import Path

import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.serve.repository import NoSuchModel, Repository
from tests.bundle import example as bundle_example
from tests.serve import example


class FakeBatcher:
    """Stands for a Batcher, and knows whether it was closed."""

    def __init__(self, bundle, rates):
        self.bundle, self.closed = bundle, False

    def close(self):
        self.closed = True


def repository(*folders, parents=(), max_batch=4):
    loaded = Repository(folders, parents, start=FakeBatcher, max_batch=max_batch)
    loaded.load_all()
    return loaded


def flip(path, position=100):
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


def test_several_versions_of_several_names(tmp_path):
    one = example.write(tmp_path / "one", version=3)
    two = example.write(tmp_path / "all" / "two" / "10", version=10)
    other = example.write(tmp_path / "all" / "other", name="other")
    models = repository(one, parents=[tmp_path / "all"])
    assert models.get("digits", 3).bundle.folder == one
    assert models.get("digits").bundle.folder == models.get("digits", 10).bundle.folder == two
    assert models.get("other").bundle.folder == other
    with pytest.raises(NoSuchModel, match="no version 4 of model 'digits' is loaded; loaded: 3, 10"):
        models.get("digits", 4)
    with pytest.raises(NoSuchModel, match="no model 'nope' is loaded; loaded: digits, other"):
        models.get("nope")


def test_two_bundles_of_one_version_are_an_error(tmp_path):
    with pytest.raises(UserError, match="are both version 3 of 'digits'"):
        repository(example.write(tmp_path / "a"), example.write(tmp_path / "b"))


def test_a_folder_without_a_bundle_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no bundle in"):
        repository(parents=[tmp_path])


def test_loading_adds_new_versions_keeps_unchanged_ones_and_drops_deleted_ones(tmp_path):
    first = example.write(tmp_path / "1", version=1)
    models = repository(parents=[tmp_path])
    before = models.get("digits")
    example.write(tmp_path / "2", version=2, seed=2)
    models.load("digits")
    assert models.get("digits", 1) is before
    assert not before.batcher.closed
    assert models.get("digits").manifest.version == 2
    (first / "manifest.json").unlink()
    models.load("digits")
    assert before.batcher.closed
    with pytest.raises(NoSuchModel):
        models.get("digits", 1)


def test_a_changed_bundle_replaces_its_version(tmp_path):
    folder = example.write(tmp_path / "a")
    models = repository(folder)
    before = models.get("digits")
    example.write(folder, seed=5)
    models.load("digits")
    assert models.get("digits") is not before
    assert before.batcher.closed


@pytest.mark.parametrize("name", ["tail.onnx", "head.tflite", "manifest.json"])
def test_one_flipped_bit_is_refused_and_the_old_version_stays(tmp_path, name):
    example.write(tmp_path / "1", version=1)
    models = repository(parents=[tmp_path])
    before = models.get("digits")
    flip(example.write(tmp_path / "1", version=1, seed=9) / name, position=0)
    with pytest.raises(UserError, match=r"was changed or damaged: its sha256 is|manifest.json is not a manifest"):
        models.load("digits")
    assert models.get("digits") is before
    assert not before.batcher.closed


def test_after_an_error_what_was_started_is_closed(tmp_path):
    example.write(tmp_path / "1", version=1)
    models = repository(parents=[tmp_path])
    started = []
    models._start = lambda bundle, rates: started.append(FakeBatcher(bundle, rates)) or started[-1]
    example.write(tmp_path / "2", version=2)
    flip(example.write(tmp_path / "3", version=3) / "tail.onnx")
    with pytest.raises(UserError, match="3 is not a valid bundle"):
        models.load("digits")
    assert [one.closed for one in started] == [True]
    assert [model.manifest.version for model in models.models()] == [1]


def test_a_bundle_that_needs_larger_messages_is_refused(tmp_path):
    example.write(tmp_path / "1")
    models = repository(parents=[tmp_path], max_batch=8)
    example.write(tmp_path / "2", name="large", latent={**bundle_example.manifest()["latent"], "shape": [90, 90, 3]})
    with pytest.raises(UserError, match="needs messages of 454,336 bytes; this server was started for 66,976"):
        models.load("large")


def test_unloading(tmp_path):
    models = repository(example.write(tmp_path / "a"))
    model = models.get("digits")
    models.unload("digits")
    assert model.batcher.closed
    assert [(line.name, line.ready) for line in models.index()] == [("digits", False)]
    with pytest.raises(NoSuchModel):
        models.unload("digits")
    models.load("digits")
    assert models.get("digits").manifest == model.manifest


def test_only_bundles_on_the_list_can_be_loaded(tmp_path):
    models = repository(example.write(tmp_path / "a"))
    example.write(tmp_path / "b", name="secret")
    for name in ("secret", "../b", str(tmp_path / "b"), ""):
        with pytest.raises(NoSuchModel, match="no bundle has the name"):
            models.load(name)


def test_the_index_shows_new_and_damaged_bundles(tmp_path):
    example.write(tmp_path / "a")
    models = repository(parents=[tmp_path])
    example.write(tmp_path / "b", name="new")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "manifest.json").write_text("{")
    lines = models.index()
    assert [(line.name, line.version, line.ready) for line in lines] == [
        ("digits", 3, True),
        ("new", 3, False),
        ("c", None, False),
    ]
    assert "is not a manifest" in lines[-1].reason


def names(models):
    return [(model.manifest.name, model.manifest.version) for model in models.models()]


def left_out(models, parent):
    return {str(folder.relative_to(parent)): str(error) for folder, error in models.left_out.items()}


def test_damaged_and_hidden_bundles_are_left_out_and_the_rest_is_served(tmp_path):
    example.write(tmp_path / "good", name="good")
    flip(example.write(tmp_path / "digits" / "3") / "tail.onnx")
    example.write(tmp_path / "digits" / "4", version=4)
    (example.write(tmp_path / "cut", name="cut") / "head.onnx").unlink()
    (example.write(tmp_path / "no-json", name="no-json") / "manifest.json").write_text("{")
    example.write(tmp_path / ".digits.part", name="digits", version=5)
    example.write(tmp_path / "digits" / ".6", version=6)
    (tmp_path / "copied" / "half").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / "note.txt").write_text("")
    models = repository(parents=[tmp_path])
    assert names(models) == [("digits", 4), ("good", 3)]
    problems = left_out(models, tmp_path)
    assert problems.keys() == {"digits/3", "cut", "no-json", ".digits.part", "digits/.6", "copied"}
    assert "tail.onnx was changed or damaged" in problems["digits/3"]
    assert "head.onnx is missing" in problems["cut"]
    assert "is hidden: rename it" in problems[".digits.part"]
    assert "has no manifest.json" in problems["copied"]
    reasons = [line.reason for line in models.index() if line.reason]
    assert sorted(reasons) == sorted(problems.values())


def test_a_link_into_a_hidden_folder_is_served_and_its_target_is_not_reported(tmp_path):
    example.write(tmp_path / "..2024" / "digits")
    (tmp_path / "digits").symlink_to(tmp_path / "..2024" / "digits")
    models = repository(parents=[tmp_path])
    assert names(models) == [("digits", 3)]
    assert not models.left_out


def test_two_that_differ_under_one_version_are_both_left_out(tmp_path):
    example.write(tmp_path / "digits")
    example.write(tmp_path / "digits copy", seed=2)
    example.write(tmp_path / "other", name="other")
    models = repository(parents=[tmp_path])
    assert names(models) == [("other", 3)]
    assert all("are both version 3 of 'digits'" in error for error in left_out(models, tmp_path).values())


def test_no_valid_bundle_is_an_error(tmp_path):
    flip(example.write(tmp_path / "a") / "tail.onnx")
    example.write(tmp_path / ".b")
    with pytest.raises(UserError, match=r"no valid bundle in .*: .*tail.onnx was changed.*b is hidden"):
        repository(parents=[tmp_path])
    for number in range(9):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(UserError, match=r"; and 6 more$"):
        repository(parents=[tmp_path])


def test_a_bundle_that_was_named_is_never_left_out(tmp_path):
    example.write(tmp_path / "all" / "good", name="good")
    damaged = example.write(tmp_path / "a")
    flip(damaged / "tail.onnx")
    with pytest.raises(UserError, match=r"tail\.onnx was changed or damaged"):
        repository(damaged, parents=[tmp_path / "all"])
    (damaged / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        repository(damaged, parents=[tmp_path / "all"])


def test_a_relative_path_names_a_bundle_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    example.write(tmp_path / "digits")
    assert names(repository(Path("digits"))) == [("digits", 3)]
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        repository(Path("digits"), Path("empty"))


def test_a_damaged_bundle_does_not_prevent_a_load_and_is_loaded_once_it_is_repaired(tmp_path):
    flip(example.write(tmp_path / "1", version=1) / "tail.onnx")
    example.write(tmp_path / "2", version=2)
    models = repository(parents=[tmp_path])
    example.write(tmp_path / "3", version=3)
    models.load("digits")
    assert names(models) == [("digits", 2), ("digits", 3)]
    assert left_out(models, tmp_path).keys() == {"1"}
    example.write(tmp_path / "1", version=1)
    models.load("digits")
    assert names(models) == [("digits", 1), ("digits", 2), ("digits", 3)]
    assert not models.left_out
