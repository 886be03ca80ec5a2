import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.serve.repository import NoSuchModel, Repository
from tests.bundle import example as bundle_example
from tests.serve import example


class Started:
    """In place of a Batcher."""

    def __init__(self, bundle):
        self.bundle, self.closed = bundle, False

    def close(self):
        self.closed = True


def repository(*folders, parents=(), max_batch=4):
    found = Repository(folders, parents, start=Started, max_batch=max_batch)
    found.load_all()
    return found


def flip(path, position=100):
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


def test_several_versions_of_several_names(tmp_path):
    one = example.write(tmp_path / "one", version=3)
    two = example.write(tmp_path / "all" / "two" / "10", version=10)
    other = example.write(tmp_path / "all" / "other", name="other")
    found = repository(one, parents=[tmp_path / "all"])
    assert found.get("digits", 3).bundle.folder == one
    assert found.get("digits").bundle.folder == found.get("digits", 10).bundle.folder == two
    assert found.get("other").bundle.folder == other
    with pytest.raises(NoSuchModel, match="no version 4 of model 'digits' is loaded; loaded: 3, 10"):
        found.get("digits", 4)
    with pytest.raises(NoSuchModel, match="no model 'nope' is loaded; loaded: digits, other"):
        found.get("nope")


def test_two_bundles_of_one_version_are_an_error(tmp_path):
    with pytest.raises(UserError, match="are both version 3 of 'digits'"):
        repository(example.write(tmp_path / "a"), example.write(tmp_path / "b"))


def test_a_folder_without_a_bundle_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no bundle in"):
        repository(parents=[tmp_path])


def test_loading_takes_new_versions_keeps_unchanged_ones_and_drops_what_is_gone(tmp_path):
    first = example.write(tmp_path / "1", version=1)
    found = repository(parents=[tmp_path])
    before = found.get("digits")
    example.write(tmp_path / "2", version=2, seed=2)
    found.load("digits")
    assert found.get("digits", 1) is before
    assert not before.batcher.closed
    assert found.get("digits").manifest.version == 2
    (first / "manifest.json").unlink()
    found.load("digits")
    assert before.batcher.closed
    with pytest.raises(NoSuchModel):
        found.get("digits", 1)


def test_a_changed_bundle_replaces_its_version(tmp_path):
    folder = example.write(tmp_path / "a")
    found = repository(folder)
    before = found.get("digits")
    example.write(folder, seed=5)
    found.load("digits")
    assert found.get("digits") is not before
    assert before.batcher.closed


@pytest.mark.parametrize("name", ["tail.onnx", "head.tflite", "manifest.json"])
def test_one_flipped_bit_is_refused_and_the_old_version_stays(tmp_path, name):
    example.write(tmp_path / "1", version=1)
    found = repository(parents=[tmp_path])
    before = found.get("digits")
    flip(example.write(tmp_path / "1", version=1, seed=9) / name, position=0)
    with pytest.raises(UserError, match=r"was changed or damaged: its sha256 is|manifest.json is not a manifest"):
        found.load("digits")
    assert found.get("digits") is before
    assert not before.batcher.closed


def test_after_an_error_nothing_that_was_started_is_left(tmp_path):
    example.write(tmp_path / "1", version=1)
    found = repository(parents=[tmp_path])
    started = []
    found._start = lambda bundle: started.append(Started(bundle)) or started[-1]
    example.write(tmp_path / "2", version=2)
    flip(example.write(tmp_path / "3", version=3) / "tail.onnx")
    with pytest.raises(UserError, match="3 is not a valid bundle"):
        found.load("digits")
    assert [one.closed for one in started] == [True]
    assert [model.manifest.version for model in found.models()] == [1]


def test_a_bundle_that_needs_larger_messages_is_refused(tmp_path):
    example.write(tmp_path / "1")
    found = repository(parents=[tmp_path], max_batch=8)
    example.write(tmp_path / "2", name="large", latent={**bundle_example.manifest()["latent"], "shape": [90, 90, 3]})
    with pytest.raises(UserError, match="needs messages of 454,336 bytes; this server was started for 66,976"):
        found.load("large")


def test_unloading(tmp_path):
    found = repository(example.write(tmp_path / "a"))
    model = found.get("digits")
    found.unload("digits")
    assert model.batcher.closed
    assert [(line.name, line.ready) for line in found.index()] == [("digits", False)]
    with pytest.raises(NoSuchModel):
        found.unload("digits")
    found.load("digits")
    assert found.get("digits").manifest == model.manifest


def test_only_bundles_on_the_list_can_be_loaded(tmp_path):
    found = repository(example.write(tmp_path / "a"))
    example.write(tmp_path / "b", name="secret")
    for name in ("secret", "../b", str(tmp_path / "b"), ""):
        with pytest.raises(NoSuchModel, match="no bundle has the name"):
            found.load(name)


def test_the_index_tells_what_is_broken(tmp_path):
    example.write(tmp_path / "a")
    found = repository(parents=[tmp_path])
    example.write(tmp_path / "b", name="new")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "manifest.json").write_text("{")
    lines = found.index()
    assert [(line.name, line.version, line.ready) for line in lines] == [
        ("digits", 3, True),
        ("new", 3, False),
        ("c", None, False),
    ]
    assert "is not a manifest" in lines[-1].reason


def names(found):
    return [(model.manifest.name, model.manifest.version) for model in found.models()]


def left_out(found, parent):
    return {str(folder.relative_to(parent)): str(error) for folder, error in found.left_out.items()}


def test_what_is_damaged_or_hidden_is_left_out_and_the_rest_is_served(tmp_path):
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
    found = repository(parents=[tmp_path])
    assert names(found) == [("digits", 4), ("good", 3)]
    problems = left_out(found, tmp_path)
    assert problems.keys() == {"digits/3", "cut", "no-json", ".digits.part", "digits/.6", "copied"}
    assert "tail.onnx was changed or damaged" in problems["digits/3"]
    assert "head.onnx is missing" in problems["cut"]
    assert "is hidden: rename it" in problems[".digits.part"]
    assert "has no manifest.json" in problems["copied"]
    reasons = [line.reason for line in found.index() if line.reason]
    assert sorted(reasons) == sorted(problems.values())


def test_a_link_into_a_hidden_folder_is_served_and_its_target_is_no_problem(tmp_path):
    example.write(tmp_path / "..2024" / "digits")
    (tmp_path / "digits").symlink_to(tmp_path / "..2024" / "digits")
    found = repository(parents=[tmp_path])
    assert names(found) == [("digits", 3)]
    assert not found.left_out


def test_two_that_differ_under_one_version_are_both_left_out(tmp_path):
    example.write(tmp_path / "digits")
    example.write(tmp_path / "digits copy", seed=2)
    example.write(tmp_path / "other", name="other")
    found = repository(parents=[tmp_path])
    assert names(found) == [("other", 3)]
    assert all("are both version 3 of 'digits'" in error for error in left_out(found, tmp_path).values())


def test_nothing_that_can_be_used_is_an_error(tmp_path):
    flip(example.write(tmp_path / "a") / "tail.onnx")
    example.write(tmp_path / ".b")
    with pytest.raises(UserError, match=r"no bundle in .* can be used: .*tail.onnx was changed.*b is hidden"):
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


def test_what_was_left_out_does_not_prevent_a_load_and_is_loaded_when_it_is_repaired(tmp_path):
    flip(example.write(tmp_path / "1", version=1) / "tail.onnx")
    example.write(tmp_path / "2", version=2)
    found = repository(parents=[tmp_path])
    example.write(tmp_path / "3", version=3)
    found.load("digits")
    assert names(found) == [("digits", 2), ("digits", 3)]
    assert left_out(found, tmp_path).keys() == {"1"}
    example.write(tmp_path / "1", version=1)
    found.load("digits")
    assert names(found) == [("digits", 1), ("digits", 2), ("digits", 3)]
    assert not found.left_out
