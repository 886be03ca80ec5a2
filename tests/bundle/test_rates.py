import contextlib
import dataclasses
import functools
import json
import operator
import os
import random

import pytest

from bottlefit_jax.bundle import folder as bundle_folder
from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.codec.rates import rates_text
from bottlefit_jax.errors import UserError
from tests.bundle import example
from tests.bundle.test_schema import places


def bundle_of(folder, text, **changes):
    """A bundle whose file of tables has this text; its sha256 is right."""
    arguments = example.with_rates(**changes)
    data = text if isinstance(text, bytes) else text.encode()
    return read_bundle(example.write(folder, **{**arguments, "files": {**arguments["files"], example.TABLES: data}}))


def refusal(bundle):
    """The message of read_rates, which must be one short line."""
    with pytest.raises(UserError) as caught:
        bundle.read_rates()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def test_a_bundle_gives_its_rates(tmp_path):
    bundle = read_bundle(example.write(tmp_path, **example.with_rates()))
    rates = bundle.read_rates()
    assert rates is not None
    assert rates.key == example.rates().key
    assert [rate.id for rate in rates.rates] == [entry.id for entry in bundle.manifest.rates] == ["lossless", "coarse"]
    assert bundle.manifest.default_rate == "coarse"
    assert read_bundle(example.write(tmp_path / "raw")).read_rates() is None


def test_tables_that_were_changed_or_are_missing_or_huge_are_refused(tmp_path):
    bundle = read_bundle(example.write(tmp_path, **example.with_rates()))
    path = tmp_path / example.TABLES
    text = path.read_text()
    path.write_text(text.replace("lossless", "lossy"))
    assert "rates.json was changed or damaged" in refusal(bundle)
    with pytest.raises(UserError, match=r"rates\.json has [0-9,]+ bytes instead of"):
        read_bundle(tmp_path, verify=lambda manifest: manifest.device_files())
    os.truncate(path, bundle_folder.MAX_TABLES_BYTES + 1)
    assert "tables have at most 4,194,304" in refusal(bundle)
    path.unlink()
    assert refusal(bundle) == f"cannot read {path}: No such file or directory"


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (example.rates(head="c" * 64), "its tables are those of head cccccccccccc…, not of aaaaaaaaaaaa…"),
        (example.rates((6, 5, 3)), "its tables are for latents [6, 5, 3], not [5, 6, 3]"),
        (example.rates(zero_point=127), "its tables are for zero point 127, not 128"),
        (example.rates(steps={"lossless": 1}), "it has the rates lossless; manifest.json has lossless, coarse"),
        (example.rates(steps={"coarse": 8, "lossless": 1}), "it has the rates coarse, lossless; manifest.json has"),
        (
            example.rates(steps={"lossless": 1, "coarse": 9}),
            "rate coarse has the steps [9, 9, 9]; manifest.json has [8, 8, 8]",
        ),
    ],
)
def test_tables_of_another_bundle_are_refused(tmp_path, tables, message):
    assert message in refusal(bundle_of(tmp_path, rates_text(tables)))


def changed(path, value):
    values = json.loads(rates_text(example.rates()))
    parent = values
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value(parent[path[-1]]) if callable(value) else value
    return json.dumps(values)


CODE = ("rates", 1, "groups", 0, "codes", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(CODE, lambda text: text[:-1]), "a code of a group of rate coarse"),
        (changed(CODE, lambda text: "1" + text[1:]), "a code of a group of rate coarse"),
        (changed(CODE, lambda text: text[:-1] + "0"), "a code of a group of rate coarse"),
        (changed(("rates", 1, "groups", 0, "codes"), []), "a group of rate coarse has 0 codes"),
        (changed(("rates", 0, "groups"), []), "the groups of rate lossless have the channels []"),
        (changed(("format",), 3), "its format is 3; this package reads 1 and 2"),
        ("", "rates.json is not a valid file of rates: Expecting value"),
        ("[]", "rates.json is not a valid file of rates"),
        (b"\xff", "rates.json is not a valid file of rates: 'utf-8' codec"),
        ("[" * 100_000, "rates.json is not a valid file of rates"),
    ],
)
def test_invalid_tables_are_refused_in_one_line(tmp_path, text, message):
    assert message in refusal(bundle_of(tmp_path, text))


def test_changed_tables_are_read_or_refused_and_nothing_else(tmp_path):
    """A value anywhere in the file becomes another, and no exception but UserError comes out."""
    rng = random.Random(0)
    odd = [None, True, -1, 0, 1, 255, 10**30, 1e300, "", "x", "0" * 5000, [], [[]], {}, [1, 2, 3]]
    bundle = read_bundle(example.write(tmp_path, **example.with_rates()))
    accepted = 0
    for _ in range(300):
        values = {"root": json.loads(rates_text(example.rates(steps={"coarse": 8})))}
        *above, last = rng.choice([path for path in places(values) if len(path) > 1])
        functools.reduce(operator.getitem, above, values)[last] = rng.choice(odd)
        (tmp_path / example.TABLES).write_text(json.dumps(values["root"]))
        files = {**bundle.manifest.files, example.TABLES: bundle_folder._describe(tmp_path / example.TABLES)}
        changed_bundle = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, files=files))
        with contextlib.suppress(UserError):
            changed_bundle.read_rates()
            accepted += 1
    assert accepted < 50
