"""docs/reference/payload.md and its vectors: our codec and a decoder that follows the page agree with its numbers."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest

from bottlefit_jax.codec import wire
from bottlefit_jax.codec.lattice import MEANS
from bottlefit_jax.codec.rate import MAX_SYMBOLS, symbols_of, values_of
from bottlefit_jax.codec.rates import MAX_CONTEXTS, MAX_RATES, parse_rates, rates_text
from bottlefit_jax.errors import ProtocolError
from tests.codec import payload_reader

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
PAGE = (FOLDER / "payload.md").read_text(encoding="utf-8")
CASES = json.loads((FOLDER / "vectors" / "payloads.json").read_text(encoding="utf-8"))
WITH_TABLES = [case for case in CASES if case["tables"]]
VALID = [case for case in WITH_TABLES if case["latent"]]
INVALID = [case for case in WITH_TABLES if case["latent"] is None]
TABLES = sorted((FOLDER / "vectors").glob("tables-*.json"))
EXAMPLE = "tables-example.json"


def names(cases):
    return [case["name"] for case in cases]


def tables_of(case):
    return (FOLDER / "vectors" / case["tables"]).read_text(encoding="utf-8")


def rows(heading, page=PAGE):
    """Return the cells of the table that begins with these columns, without the marks of code."""
    lines = page.partition(f"| {heading} |\n")[2].splitlines()[1:]
    return [[cell.strip(" `") for cell in line[1:-1].split("|")] for line in lines[: lines.index("")]]


@pytest.mark.parametrize("case", VALID, ids=names(VALID))
def test_our_codec_makes_and_reads_a_vector(case):
    rates = parse_rates(tables_of(case), case["tables"])
    payload, sent = bytes.fromhex(case["payload"]), np.frombuffer(bytes.fromhex(case["sent"]), np.uint8)
    rate = wire.rate_of(payload, rates)
    assert wire.encode(sent.reshape(rates.shape), rate) == payload
    assert wire.decode(payload, rates).tobytes().hex() == case["latent"]


@pytest.mark.parametrize("case", VALID, ids=names(VALID))
def test_a_decoder_that_follows_the_page_reads_a_vector(case):
    tables = payload_reader.read_tables(tables_of(case))
    assert payload_reader.decode(bytes.fromhex(case["payload"]), tables).hex() == case["latent"]


@pytest.mark.parametrize("case", INVALID, ids=names(INVALID))
def test_both_refuse_an_invalid_vector(case):
    payload = bytes.fromhex(case["payload"])
    with pytest.raises(ProtocolError):
        wire.decode(payload, parse_rates(tables_of(case), case["tables"]))
    with pytest.raises(payload_reader.Invalid):
        payload_reader.decode(payload, payload_reader.read_tables(tables_of(case)))


def test_both_say_the_same_of_payloads_with_changed_bytes():
    """With the right check, so that what is behind it is read."""
    case = next(case for case in VALID if case["tables"] == EXAMPLE)
    rates, tables = parse_rates(tables_of(case), EXAMPLE), payload_reader.read_tables(tables_of(case))
    good, random = bytes.fromhex(case["payload"]), np.random.default_rng(0)
    valid = 0
    for _ in range(300):
        body = bytearray(good[4:])
        body[random.integers(len(body))] = random.integers(256)
        payload = good[:1] + wire._check(good[:1], bytes(body), rates.key) + bytes(body)
        latents, problems = wire.decode_batch([payload], rates)
        try:
            assert payload_reader.decode(payload, tables) == latents[0].tobytes()
            assert problems == [None]
            valid += 1
        except payload_reader.Invalid:
            assert problems[0] is not None
    assert 0 < valid < 300


def test_the_vectors_have_every_format_and_every_mode():
    kinds = {(json.loads(tables_of(case))["format"], int(case["payload"][:2], 16) >> 4 & 3) for case in VALID}
    assert kinds == {(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (2, 3)}
    groups = [group for path in TABLES for rate in json.loads(path.read_text())["rates"] for group in rate["groups"]]
    assert {len(group["channels"]) for group in groups} == {1, 3}
    assert {group["shared"] for group in groups} == {True, False}
    lanes = {rate["lanes"] for path in TABLES for rate in json.loads(path.read_text())["rates"]}
    assert lanes == {2, 4, 6}
    (raw,) = [case for case in CASES if case["tables"] is None]
    assert raw["payload"] == raw["latent"] == raw["sent"]


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_the_key_is_of_the_file_as_it_is_written(path):
    text = path.read_text(encoding="utf-8")
    rates = parse_rates(text, path.name)
    assert rates_text(rates) == text
    assert payload_reader.read_tables(text)["key"] == rates.key


def test_the_decoder_of_the_page_imports_nothing_of_ours():
    tree = ast.parse(Path(payload_reader.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"hashlib", "json", "re", "zlib"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))


@pytest.fixture(scope="module")
def example():
    """The example's case, its tables, and every code that is read."""
    (case,) = [case for case in VALID if case["tables"] == EXAMPLE]
    tables, trace = payload_reader.read_tables(tables_of(case)), []
    payload_reader.decode(bytes.fromhex(case["payload"]), tables, trace)
    return case, tables, trace


def test_the_example_has_the_bytes_of_its_payload(example):
    case, tables, _ = example
    parts = [part for part, _ in rows("bytes | content", PAGE.partition("## An example")[2])]
    assert "".join(parts) == case["payload"]
    assert f"The payload has {len(case['payload']) // 2} bytes" in PAGE
    assert f"for the key `{tables['key']:08x}`" in PAGE
    lengths, stream, without_code = payload_reader.split_body(bytes.fromhex(case["payload"])[4:], 1, 2)
    first, second = lengths
    total = 8 * len(stream)
    assert f"1 − 4 + {total} // 2 = {first} bits, the second {total} − {first} = {second} |" in PAGE
    assert f"The escape takes the symbol {without_code[0]} from the end." in PAGE


def test_the_example_has_the_tables_of_the_file(example):
    _, tables, _ = example
    cells = {row[0]: row[1:] for row in rows("| group 0 | group 1")}
    (rate,) = tables["rates"]
    for place, group in enumerate(rate["groups"]):
        assert cells["channels"][place] == str(*group["channels"])
        assert cells["step"][place] == str(rate["steps"][place])
        assert cells["symbols of all values, 0 to"][place] == str(symbols_of(rate["steps"][place], 128)[255])
        assert cells["low, count"][place] == f"{group['low'][0]}, {group['count'][0]}"
        assert [cells[f"code {number}"][place] for number in range(len(group["codes"]))] == group["codes"]
    (threshold,) = rate["groups"][0]["contexts"][1]["thresholds"][0]
    assert cells["contexts of the third pass"] == [f"2: the mean is below {threshold}, or not", "1"]
    assert (tables["shape"], rate["lanes"], tables["zero_point"]) == ([3, 3, 2], 4, 128)


def test_the_example_has_the_lanes_of_its_stream(example):
    case, _, trace = example
    lengths, stream, _ = payload_reader.split_body(bytes.fromhex(case["payload"])[4:], 1, 2)
    bits, lanes = "".join(f"{byte:08b}" for byte in stream), [[], [], [], []]
    for _, _, lane, *_, read, _ in trace:
        lanes[lane].append(read)
    expected = [
        [str(pair), bits[sum(lengths[:pair]) :][:length], " ".join(lanes[2 * pair]), " ".join(lanes[2 * pair + 1])]
        for pair, length in enumerate(lengths)
    ]
    assert rows("pair | its bits | the left lane reads | the right lane reads") == expected
    gap = lengths[1] - sum(map(len, lanes[2] + lanes[3]))
    assert f"Between the last two lanes {gap} bits are left." in PAGE


def test_the_example_has_every_code_and_every_value(example):
    case, tables, trace = example
    (rate,) = tables["rates"]
    escapes = [group["count"][0] for group in rate["groups"]]
    latent, sent = (np.frombuffer(bytes.fromhex(case[key]), np.uint8).reshape(9, 2) for key in ("latent", "sent"))
    restored = [values_of(step, 128).tolist() for step in rate["steps"]]
    symbols = [[restored[channel].index(pixel[channel]) for channel in (0, 1)] for pixel in latent]
    expected = []
    for number, step, lane, group, (y, x), means, code, read, joint in trace:
        shown = f"{joint} (escape)" if joint == escapes[group] else str(joint)
        symbol = symbols[3 * y + x][group]
        cells = (number, step, lane, group, f"{y},{x}", *(means or [""]), code, read, shown, symbol)
        expected.append([str(cell) for cell in cells])
        assert joint == escapes[group] or symbol == joint + rate["groups"][group]["low"][0]
    assert rows("pass | step | lane | group | pixel | mean | code | bits | joint symbol | symbol") == expected
    joined = [", ".join(map(str, each)) for each in symbols]
    values = [
        [f"{pixel // 3},{pixel % 3}", joined[pixel], *(", ".join(map(str, each[pixel])) for each in (latent, sent))]
        for pixel in range(9)
    ]
    assert rows("pixel | symbols | values | the values that were sent") == values


def test_the_code_that_the_page_writes_out():
    code = payload_reader.prefix_code(payload_reader.unpack("2d344"))
    lines = {row[0]: row[1:] for row in rows("joint symbol | 0 | 1 | 2 | 3 | 4 | 5 (escape)")}
    assert lines["code"] == [bits for bits in code if bits != "escape"]
    assert lines["bits"] == [str(length) for length in payload_reader.unpack("2d344")]


def test_the_limits_that_the_page_states():
    assert f"1 to {MAX_RATES} objects" in PAGE
    assert f"their product P is at most {MAX_SYMBOLS} " in PAGE
    assert f"ascending numbers, 1 to {MEANS - 1} " in PAGE
    assert f"it\nis at most {MAX_CONTEXTS}." in PAGE
    assert f"0 to {MAX_CONTEXTS - 1} |" in PAGE
    assert f"a byte: the width W, 0 to {wire.MAX_WIDTH};" in PAGE
