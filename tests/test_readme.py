"""What README and docs promise: their files are there, their commands and flags exist, their code runs."""

import contextlib
import functools
import importlib
import io
import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from bottlefit_jax.__main__ import COMMANDS as PROGRAM
from bottlefit_jax.compare.methods import METHODS
from bottlefit_jax.edge import check, classify
from bottlefit_jax.recipe import base_config
from export import tensorrt
from tests.edge.conftest import bundle, deadlines, image, server, tail  # noqa: F401  fixtures
from tests.serve import example

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
NUMBERS = {"three": 3, "four": 4, "six": 6, "sixteen": 16}


def folder(page):
    """The folder that a page's relative links start from."""
    return ROOT if page == "README.md" else ROOT / "docs"


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(text, *languages):
    """The fenced blocks of a page in one of the languages; results.md indents its commands instead."""
    fenced = re.findall(rf"^ *```(?:{'|'.join(languages)})\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return fenced or re.findall(r"((?:^    python .*\n)(?:^    .*\n)*)", text, re.MULTILINE)


def commands():
    """(page, module, its arguments) of every `python -m` and `bottlefit NAME` in a block of shell commands."""
    for page, text in DOCS.items():
        for block in blocks(text, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if "-m" in words and Path(words[words.index("-m") - 1]).name == "python":
                    at = words.index("-m") + 1
                    yield page, words[at], words[at + 1 :]
                for at, (word, name) in enumerate(itertools.pairwise(words)):
                    if Path(word).name == "bottlefit" and name in PROGRAM:
                        yield page, PROGRAM[name].module.removesuffix(".__main__"), words[at + 2 :]


COMMANDS = sorted({(page, module, tuple(arguments)) for page, module, arguments in commands()})


@functools.cache
def help_of(module):
    """What `python -m MODULE --help` prints."""
    name = f"{module}.__main__" if (ROOT / module.replace(".", "/")).is_dir() else module
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        importlib.import_module(name).main(["--help"])
    return printed.getvalue()


def test_every_link_leads_to_a_file():
    missing = {
        (page, path)
        for page, text in DOCS.items()
        for path in re.findall(r"\]\(([^)#:]+)[)#]", text)
        if not (folder(page) / path).exists()
    }
    assert not missing


def test_every_link_to_a_section_leads_to_its_heading():
    links = [
        (page, (folder(page) / path).resolve() if path else folder(page) / page, anchor)
        for page, text in DOCS.items()
        for path, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text)
    ]
    assert len(links) > 10
    missing = [(page, path.name, anchor) for page, path, anchor in links if anchor not in anchors(path.read_text())]
    assert not missing


def test_the_readme_is_short_and_names_every_page():
    assert len(README.splitlines()) < 150
    assert {page for page in DOCS if page != "README.md" and f"](docs/{page})" not in README} == set()


def test_every_config_and_target_it_names_is_there():
    for page, text in DOCS.items():
        for config in re.findall(r"--config=(\S+?\.py)", text):
            assert (ROOT / config).exists(), (page, config)
        for target in re.findall(r"^ *make ([\w-]+)", text, re.MULTILINE):
            assert f"\n{target}: " in (ROOT / "Makefile").read_text(), (page, target)


def test_every_section_that_a_page_links_to_is_there():
    for page, text in DOCS.items():
        for path, section in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
            folder = ROOT if page == "README.md" else ROOT / "docs"
            linked = text if not path else (folder / path).read_text()
            titles = re.findall(r"^#+ (.*)$", linked, re.MULTILINE)
            assert section in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, (
                page,
                section,
            )


def test_commands_of_every_kind_are_found():
    modules = {module for _, module, _ in COMMANDS}
    assert {"export.bundle", "bottlefit_jax.main", "bottlefit_jax.serve", "benchmarks.head"} < modules
    assert len(COMMANDS) > 30


@pytest.mark.parametrize(("page", "module", "arguments"), COMMANDS, ids=lambda value: str(value)[:60])
def test_every_command_has_the_flags_that_it_is_given(page, module, arguments):
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), page
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("--config."):
            value = base_config()
            for key in flag.removeprefix("--config.").split("."):
                value = value[key]
        elif flag.startswith("--") and module.partition(".")[0] != "benchmarks":
            assert re.search(rf"{flag}\b", help_of(module)), (page, flag)


def test_every_command_of_the_boards_guides_is_one_that_its_parser_takes():
    parsers = {
        "bottlefit_jax.edge": lambda arguments: classify.parse(arguments, None),
        "bottlefit_jax.edge.check": check.parse,
        "export.tensorrt": tensorrt.parse,
    }
    boards = [row for row in COMMANDS if row[0] in ("raspberry-pi.md", "jetson.md")]
    parsed = [parsers[module](arguments) for _, module, arguments in boards if module in parsers]
    assert len(parsed) == len([row for row in boards if row[2]]) > 10  # a name alone is no command line


def test_the_user_of_the_jetsons_service_is_the_one_that_the_guide_makes():
    conf = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / "docs" / "service" / "jetson.conf").read_text(), re.MULTILINE))
    assert (
        f"useradd --system --groups {conf['SupplementaryGroups'].replace(' ', ',')} {conf['User']}\n"
        in DOCS["jetson.md"]
    )


def test_the_image_of_the_demo_says_how_many_channels_it_shows():
    (shown,) = re.findall(
        r"!\[[^]]*beside each the (\w+) channels that arrive[^]]*\]\(images/digits_latents.png\)", DOCS["training.md"]
    )
    (channels,) = re.findall(r"channels=(\d+)", (ROOT / "configs" / "digits.py").read_text())
    assert NUMBERS[shown] == int(channels)


def test_the_headline_is_what_results_measured():
    measured = [int(number) for number in re.findall(r"\*\*within-0\.3\*\* \| \*\*(\d+)\*\*", DOCS["results.md"])]
    assert len(measured) == 2
    for text in (README, (ROOT / "configs" / "digits.py").read_text()):
        (headline,) = re.findall(r"sends (\d+) to (\d+)\s+bytes", text)
        assert [int(number) for number in headline] == sorted(measured)


def test_the_share_of_the_failing_link_is_what_results_measured():
    (share,) = re.findall(r"in time: ([\d.]+) % of the \d,\d+ images", README)
    (measured,) = re.findall(r"^\| \*\*auto\*\*, the plot \| ([\d.]+) \|", DOCS["results.md"], re.MULTILINE)
    assert share == measured


def test_the_methods_that_it_counts_and_names_are_there():
    (count,) = re.findall(r"measures (\w+) methods", README)
    assert NUMBERS[count] == len(METHODS)
    (named,) = re.findall(r"--methods=(\S+)", DOCS["method.md"])
    assert set(named.split(",")) <= set(METHODS)


@pytest.mark.parametrize("page", ["method.md", "training.md"])
def test_files_and_benchmarks_in_its_text_are_there(page):
    files = set(re.findall(r"`([\w/-]+\.(?:py|sh|md))`", DOCS[page]))
    assert files
    for path in files - {"report.md", "compare.md"}:  # what a run writes
        assert any((start / path).exists() for start in (ROOT, ROOT / "bottlefit_jax")), path
    for name in re.findall(r"`benchmarks\.(\w+)`", DOCS[page]):
        assert (ROOT / "benchmarks" / f"{name}.py").exists(), name


def test_the_client_example_classifies(bundle, server, image, tmp_path, monkeypatch, capsys):  # noqa: F811
    (code,) = blocks(README, "py")
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "digits").symlink_to(bundle)
    Image.fromarray(image).save(tmp_path / "image.jpg")
    monkeypatch.chdir(tmp_path)
    assert "localhost:8001" in code
    exec(code.replace("localhost:8001", server).replace("deadline_ms=500", "deadline_ms=20_000"), {})
    assert re.match(r"class \d 0\.\d+ Timings\(.*\) BytesSent\(.*\)\n", capsys.readouterr().out)


def test_the_server_example_serves(tmp_path, monkeypatch, capsys):
    (code,) = blocks(DOCS["deployment.md"], "python")
    example.write(tmp_path / "bundles" / "digits")
    monkeypatch.chdir(tmp_path)
    assert "port=8001" in code
    exec(code.replace("port=8001", "port=0"), {})
    assert re.fullmatch(r"127\.0\.0\.1:\d+\n", capsys.readouterr().out)


@pytest.mark.slow
def test_the_model_example_prints_what_it_says():
    (code,) = blocks(DOCS["training.md"], "python")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == re.search(r"print\(.*\)  # (\(.*?\)):", code).group(1)


def test_every_python_block_has_a_test():
    found = {page: len(blocks(text, "python", "py")) for page, text in DOCS.items() if "```py" in text}
    assert found == {"README.md": 1, "deployment.md": 1, "training.md": 1, "tutorial.md": 2}


@pytest.mark.slow
def test_the_demo_reaches_its_figures(demo):
    trained = demo(whole=True)
    assert (trained.code, trained.err) == (0, ""), trained.err
    report = json.loads((trained.workdir / "report.json").read_text())
    assert report["teacher"]["top1"] >= 98.5
    assert report["student"]["top1_drop_points"] <= 0.6
    assert report["student"]["bits"] == 8
    assert report["bytes_per_image"]["latent_payload"] <= 60
    rows = {(row["method"], row["setting"]): row for row in report["alternatives"]}
    student = rows["student", "3 channels"]
    assert student["bytes"] < min(row["bytes"] for row in rows.values() if row["method"] in ("jpeg", "webp"))
    assert student["device_macs"] < rows["local", ""]["device_macs"] / 7
