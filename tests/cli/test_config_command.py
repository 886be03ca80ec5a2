"""The command line of the commands with a config: what is read, and what each mistake says."""

from pathlib import Path

import pytest

from bottlefit_jax.cli.config_command import make_parser, parse
from bottlefit_jax.errors import UserError

PARSER = make_parser("bottlefit_jax.main", usage="Trains.", own={})
DIGITS = "--config=configs/digits.py"
BEGINNING = "from bottlefit_jax.recipe import base_config\ndef get_config():\n    config = base_config()\n"


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])


def read(*arguments, workdir="--workdir=runs/x"):
    return parse([*arguments, workdir], parser=PARSER, own={})


def error_of(*arguments):
    """Return what parse says of the arguments, which must be one line."""
    with pytest.raises(UserError) as caught:
        read(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("arguments", [[DIGITS], ["--config", "configs/digits.py"], ["-config=configs/digits.py"]])
def test_a_config_is_read_with_an_equals_sign_or_without(arguments):
    config, workdir, _ = read(*arguments, "--config.stages.stage1.epochs", "3", "--noconfig.dataset.flip")
    assert (config.teacher.name, config.stages.stage1.epochs, config.dataset.flip) == ("resnet18", 3, False)
    assert str(workdir) == "runs/x"
    assert config.is_locked


def test_our_configs_have_names_in_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    config, _, _ = read("--config=digits", "--config.stages.stage1.epochs=3")
    assert (config.dataset.name, config.stages.stage1.epochs) == ("digits", 3)
    config, _, _ = read("--config", "distil:48ch,dct,crops")
    assert (config.student.bottleneck.channels, config.dataset.image_size) == (48, 128)
    assert "no config file 'configs/digits.py'; give a path, or" in error_of("--config=configs/digits.py")
    (tmp_path / "own.py").write_text(BEGINNING + "    config.seed = 7\n    return config\n")
    config, _, _ = read("--config=own.py")
    assert config.seed == 7


def test_the_help_lists_our_configs_by_their_names(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"], parser=PARSER, own={})
    _, _, out = capsys.readouterr().out.partition("knows by name")
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines() if line.startswith("  ")}
    files = {path.stem: path for path in Path("configs").glob("*.py")}
    assert listed.keys() == files.keys()
    assert all(files[name].read_text().lstrip('r"').startswith(summary) for name, summary in listed.items())
    assert max(map(len, out.splitlines())) <= 120


def test_paths_in_the_config_and_the_workdir_may_begin_with_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    keys = ("dataset.root", "teacher.weights", "teacher.labels", "student.weights")
    config, workdir, _ = read(DIGITS, *(f"--config.{key}=~/{key}" for key in keys), workdir="--workdir=~/run")
    assert str(workdir) == "/home/ann/run"
    paths = (config.dataset.root, config.teacher.weights, config.teacher.labels, config.student.weights)
    assert paths == tuple(f"/home/ann/{key}" for key in keys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is missing; an example: --config=digits "),
        (["--config"], "--config has no value"),
        (["--config="], "--config has no value"),
        (["--config", "none.py"], "no config file 'none.py'; give a path, or the name of one of ours: digits, dist"),
        (["--config=diggits"], "no config file 'diggits'; give a path, or the name of one of ours: digits, distil, "),
        (["--config=digits:6ch"], "digits takes no argument, and '6ch' was given"),
        (["--config=configs"], "'configs' is a folder, not a config file"),
        (["--config=gs://b/x.py"], "'gs://b/x.py' is not on this machine"),
        (["--config=configs/digits.py:6ch"], "configs/digits.py takes no argument, and '6ch' was given"),
        (["--config=README.md"], "README.md is not a Python file"),
        ([DIGITS, "--config.datset.name=x"], "unknown config key: config.datset.name; config has checkpoint, "),
        (
            [DIGITS, "--config.dataset.nam=x"],
            "config.dataset.nam; config.dataset has crop_scale, eval_name, eval_root",
        ),
        ([DIGITS, "--config.seed.x=1"], "config.seed.x: config.seed is 0, without keys of its own"),
        ([DIGITS, "--config.seed=abc"], "--config.seed=abc: it must be a whole number"),
        ([DIGITS, "--config.stages.stage1.epochs=1.5"], "stage1.epochs=1.5: it must be a whole number"),
        ([DIGITS, "--config.stages.stage1.learning_rate=fast"], "learning_rate=fast: it must be a number"),
        ([DIGITS, "--config.dataset.flip=maybe"], "--config.dataset.flip=maybe: it must be true or false"),
        ([DIGITS, "--config.dataset=5"], "--config.dataset=5: it must be a dictionary"),
        ([DIGITS, "--config.dataset.root=s3://b"], "config.dataset.root: 's3://b' is not on this machine"),
        ([DIGITS, "--workdir=gs://bucket/run"], "--workdir: 'gs://bucket/run' is not on this machine"),
        ([DIGITS, "--workdir="], "--workdir: the path is empty"),
    ],
)
def test_an_error_quotes_the_value_and_says_what_would_be_valid(arguments, message):
    with pytest.raises(UserError) as caught:
        parse(["--workdir=runs/x", *arguments], parser=PARSER, own={})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            BEGINNING + "    import math\n    math.foo()\n",
            "own.py, line 5: AttributeError: module 'math' has no attribute 'foo'",
        ),
        (
            BEGINNING + "    config.datset.name = 'x'\n",
            "own.py, line 4: AttributeError: the config has no key 'datset'. "
            'Did you mean "dataset" instead of "datset"?',
        ),
        (
            BEGINNING + "    config.nowhere.name = 'x'\n",
            "own.py, line 4: AttributeError: the config has no key 'nowhere'.",
        ),
        (BEGINNING + "    {}['x']\n", "own.py, line 4: KeyError: x"),
        (BEGINNING + "    config.seed = 'a'\n", "own.py, line 4: TypeError: Could not override field 'seed'"),
        (
            BEGINNING + "    config.lock()\n    config.datset = 1\n",
            'own.py, line 5: AttributeError: Key "datset" does not exist and cannot be added since the config is '
            'locked. Did you mean "dataset" instead of "datset"?',
        ),
        ("def get_config(:\n", "own.py, line 1: invalid syntax"),
        ("import nowhere_to_be_found\n", "own.py, line 1: ModuleNotFoundError: No module named 'nowhere_to"),
        ("open('/nowhere/x')\n", "own.py, line 1: No such file or directory: /nowhere/x"),
        ("x\0y", "own.py: source code string cannot contain null bytes"),
        ("x = 1\n", "own.py has no function get_config()"),
        ("def get_config(word):\n    return word\n", "own.py needs an argument: --config="),
        ("def get_config():\n    return 3\n", "own.py: get_config() returned 3; it must return the config of"),
        (
            BEGINNING + "    config.stages.stage1.epoch = 3\n    return config\n",
            "unknown config key config.stages.stage1",
        ),
        (BEGINNING + "    del config['seed']\n    return config\n", "own.py: the config has no config.seed"),
        (BEGINNING + "    config.dataset = 3\n    return config\n", "TypeError|config.dataset is 3"),
    ],
)
def test_an_error_in_a_config_file_is_its_own_message_and_line(tmp_path, text, message):
    (tmp_path / "own.py").write_text(text)
    answer = error_of(f"--config={tmp_path / 'own.py'}")
    assert any(part in answer for part in message.split("|")), answer


@pytest.mark.parametrize("name", ["own.py", "./own.py", "../here/own.py"])
def test_an_error_in_a_config_file_with_a_relative_path_has_a_line(tmp_path, monkeypatch, name):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "own.py").write_text(BEGINNING + "    config.dataset.image_size.x = 1\n")
    monkeypatch.chdir(tmp_path / "here")
    expected = f"{name.removeprefix('./')}, line 4: AttributeError: 'int' object has no attribute 'x'"
    assert error_of(f"--config={name}").startswith(expected)


def test_an_error_in_a_file_that_the_config_imports_has_the_configs_line(tmp_path, monkeypatch):
    (tmp_path / "helper_of_own.py").write_text("def choose():\n\n    return 1 / 0\n")
    (tmp_path / "own.py").write_text("import helper_of_own\ndef get_config():\n    return helper_of_own.choose()\n")
    monkeypatch.syspath_prepend(tmp_path)
    answer = error_of(f"--config={tmp_path / 'own.py'}")
    assert answer == f"{tmp_path / 'own.py'}, line 3: ZeroDivisionError: division by zero"
