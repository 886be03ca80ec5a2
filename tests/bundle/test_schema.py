import copy
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bottlefit_jax.bundle import schema
from bottlefit_jax.bundle.validation import manifest_schema, validate
from bottlefit_jax.errors import UserError
from tests.bundle import example

ODD = [None, True, False, 0, 1, 1.0, 2.5, -1, 256, 10**400, 1e300, "", "a", "../a", "A b", "a" * 64, "a" * 65, [], {}]
ODD += ["a" * 64 + "\n", "digits\n", "line\nbreak", [1], ["a", "b"], {"sha256": "0"}, {"litert": "x.tflite"}, 0.0]


MANIFEST = example.manifest_with_rates()


def places(value, path=()):
    """Every path into a JSON value, itself included."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def mutated(rng, base=MANIFEST):
    """A valid manifest with one to three values changed, removed or added."""
    root: Any = {"root": copy.deepcopy(base)}
    for _ in range(rng.choice((1, 1, 2, 3))):
        *above, last = rng.choice([path for path in places(root) if path])
        parent = root
        for key in above:
            parent = parent[key]
        match rng.choice(("change", "change", "remove", "add")):
            case "remove" if above:
                del parent[last]
            case "add" if isinstance(parent[last], dict):
                parent[last][rng.choice(("extra", "../out", "b/c.onnx", ".x", "manifest.json"))] = copy.deepcopy(
                    rng.choice(ODD)
                )
            case "add" if isinstance(parent[last], list):
                parent[last].append(copy.deepcopy(rng.choice(ODD)))
            case _:
                parent[last] = copy.deepcopy(rng.choice(ODD))
    return root["root"]


def test_the_schema_is_a_json_schema():
    jsonschema.Draft202012Validator.check_schema(manifest_schema())


def test_a_thousand_changed_manifests_get_the_verdict_of_jsonschema():
    rng = random.Random(0)
    theirs = jsonschema.Draft202012Validator(manifest_schema())
    verdicts = []
    for _ in range(1000):
        value = mutated(rng)
        verdicts.append(theirs.is_valid(value))
        problems = list(schema.problems(value, manifest_schema()))
        assert (not problems) == verdicts[-1], (value, problems)
    assert 50 < sum(verdicts) < 950


@pytest.mark.parametrize("of_format", [2, 3, 4])
def test_changed_manifests_are_read_or_refused_in_one_line(of_format):
    rng, path = random.Random(1), Path("manifest.json")
    base = {2: example.manifest_of_format_2(), 3: example.manifest_of_format_3(), 4: MANIFEST}[of_format]
    messages = []
    for _ in range(400):
        try:
            validate(mutated(rng, base), path)
        except UserError as error:
            messages.append(str(error))
    assert 100 < len(messages) < 400
    assert not [message for message in messages if "\n" in message or len(message) > 2000]


def test_every_problem_is_reported_as_often_as_jsonschema_reports_it():
    value = example.manifest(name=1, version=0)
    value["latent"].update(bits=9, scale="x", extra=1)
    del value["tail"]["id"]
    problems = list(schema.problems(value, manifest_schema()))
    assert problems == [
        "name is 1; it must be a string",
        "version is 0; it must be at least 1",
        "latent.bits is 9; it must be at most 8",
        "latent.scale is 'x'; it must be a number",
        "latent.extra is not known",
        "tail.id is missing",
    ]
    assert len(problems) == len(list(jsonschema.Draft202012Validator(manifest_schema()).iter_errors(value)))


@pytest.mark.parametrize(
    ("value", "rule", "valid"),
    [
        (1.0, {"type": "integer"}, True),
        (True, {"type": "integer"}, False),
        (True, {"type": "number"}, False),
        (True, {"const": 1}, False),
        (1.0, {"enum": [1]}, True),
        (float("inf"), {"type": "integer"}, False),
        ("b", {"minimum": 3}, True),  # a limit applies to values of its own type
        (None, {"type": ["object", "null"], "required": ["a"]}, True),
        ({"a": 1}, {"additionalProperties": {"type": "string"}}, False),
        ({"a": 1}, False, False),
        ({"a": 1}, {"propertyNames": {"pattern": "b"}}, False),
    ],
)
def test_edge_cases_follow_json_schema(value, rule, valid):
    schema.check(rule)
    assert (not list(schema.problems(value, rule))) is valid
    assert jsonschema.Draft202012Validator(rule).is_valid(value) is valid


@pytest.mark.parametrize(
    "rule",
    [
        {"oneOf": []},
        {"type": "text"},
        {"properties": {"a": {"format": "date"}}},
        {"items": {"multipleOf": 2}},
        {"$ref": "other.json"},
        {"$defs": {"a": {"not": {}}}},
        {"const": []},
        {"items": [{}]},
    ],
    ids=json.dumps,
)
def test_a_schema_with_features_that_the_validator_lacks_is_a_schema_error(rule):
    with pytest.raises(schema.SchemaError):
        schema.check(rule)


def test_the_bundle_is_read_with_the_standard_library_alone(tmp_path):
    example.write(tmp_path / "digits")
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('jax', 'flax', 'numpy', 'jsonschema', 'absl', 'onnx')))\n"
        "from bottlefit_jax.bundle import read_bundle\n"
        f"print(read_bundle({str(tmp_path / 'digits')!r}).manifest.name)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "digits\n"
