"""A second decoder of payloads, which follows docs/reference/payload.md and imports nothing of this package.

Names and the order of the steps are the page's. It is slow and plain.
"""

import hashlib
import json
import re
import zlib

DIGITS = "0123456789abc"
CODED, ESCAPED, STORED, MANY = range(4)


class Invalid(Exception):
    """A payload that a decoder must refuse."""


def read_tables(text):
    """Return the values of a tables' file, with `key`."""
    tables = json.loads(text)
    tables["key"] = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return tables


def decode(payload, tables, trace=None):
    """Return the values of the latent, row by row, and note every code that is read in `trace`."""
    h, w, c = tables["shape"]
    rate, mode, body = read_header(payload, tables)
    order = [channel for group in rate["groups"] for channel in group["channels"]]
    if mode == STORED:
        if len(body) != h * w * c:
            raise Invalid("another number of symbols than the latent has")
        symbols = [list(body[pixel * c : pixel * c + c]) for pixel in range(h * w)]
    else:
        symbols = read_symbols(body, mode, rate, (h, w, c), trace)
    latent = bytearray(h * w * c)
    for pixel in range(h * w):
        for place, channel in enumerate(order):
            latent[pixel * c + channel] = value_of(symbols[pixel][place], rate["steps"][channel], tables["zero_point"])
    return bytes(latent)


def read_header(payload, tables):
    """Return the rate, the mode and the body."""
    h, w, c = tables["shape"]
    if not 4 <= len(payload) <= 4 + h * w * c:
        raise Invalid("no payload has this length")
    version, mode, number = payload[0] >> 6, payload[0] >> 4 & 3, payload[0] & 15
    if version != 1 or number >= len(tables["rates"]) or mode > (STORED if tables["format"] == 1 else MANY):
        raise Invalid("another version, rate or mode")
    check = zlib.crc32(payload[:1] + payload[4:], tables["key"]) & 0xFFFFFF
    if check != int.from_bytes(payload[1:4], "big"):
        raise Invalid("the check is wrong")
    return tables["rates"][number], mode, payload[4:]


def value_of(symbol, step, zero_point):
    first, last = ((value - zero_point + step // 2) // step for value in (0, 255))
    if symbol > last - first:
        return 255
    return min(max(zero_point + step * (first + symbol), 0), 255)


def split_body(body, mode, pairs):
    """Return the bits of each pair of lanes, the stream, and the symbols without a code."""
    size = {CODED: 0, ESCAPED: 1, MANY: 2}[mode]
    escapes, at = int.from_bytes(body[:size], "big"), size
    width = 0
    if pairs > 1:
        if len(body) <= at:
            raise Invalid("no width")
        width, at = body[at], at + 1
    lengths_at, at = at, at + ((pairs - 1) * width + 7) // 8
    if len(body) < size or width > 24 or at + escapes > len(body):
        raise Invalid("it ends too early")
    stream = body[at : len(body) - escapes]
    packed = "".join(f"{byte:08b}" for byte in body[lengths_at:at])
    total = 8 * len(stream)
    lengths = []
    for pair in range(pairs - 1):
        number = int(packed[pair * width : (pair + 1) * width] or "0", 2)
        lengths.append(number - (1 << width >> 1) + total // pairs)
    lengths.append(total - sum(lengths))
    if min(lengths) < 0:
        raise Invalid("a lane begins outside")
    return lengths, stream, body[len(body) - escapes :]


def read_symbols(body, mode, rate, shape, trace):
    h, w, _ = shape
    groups, lanes = rate["groups"], rate["lanes"]
    lengths, stream, without_code = split_body(body, mode, lanes // 2)
    bits = "".join(f"{byte:08b}" for byte in stream)
    texts = []  # of each lane, in the direction in which it is read
    for pair, length in enumerate(lengths):
        begin = sum(lengths[:pair])
        texts += [bits[begin : begin + length], bits[begin : begin + length][::-1]]
    used = [0] * lanes
    codes = [[prefix_code(unpack(text)) for text in group["codes"]] for group in groups]
    symbols = {}  # pixel -> the symbols of its channels, in the order of the groups
    without_code = list(without_code)
    for number, pixels in enumerate(passes(h, w)):
        joint = {}
        for place, (group, pixel) in enumerate((group, pixel) for group in range(len(groups)) for pixel in pixels):
            lane = place % lanes
            code, means = code_of(groups, group, pixel, number, symbols, (h, w))
            symbol, length = read_code(texts[lane], used[lane], codes[group][code])
            used[lane] += length
            joint[group, pixel] = symbol
            if trace is not None:
                read = texts[lane][used[lane] - length : used[lane]]
                trace.append((number + 1, place // lanes, lane, group, divmod(pixel, w), means, code, read, symbol))
        for pixel in pixels:
            symbols[pixel] = []
            for number_of_group, group in enumerate(groups):
                symbols[pixel] += split(joint[number_of_group, pixel], group, without_code)
    gaps = [length - used[2 * pair] - used[2 * pair + 1] for pair, length in enumerate(lengths)]
    if any(gaps[:-1]) or not 0 <= gaps[-1] < 8 or without_code:
        raise Invalid("the codes do not fill it")
    return symbols


def passes(h, w):
    """Return the pixels of the three passes, each as row * w + column, ascending."""
    pixels = [divmod(pixel, w) for pixel in range(h * w)]
    first = [y * w + x for y, x in pixels if y % 2 == 0 and x % 2 == 0]
    second = [y * w + x for y, x in pixels if y % 2 == 1 and x % 2 == 1]
    third = [y * w + x for y, x in pixels if y % 2 != x % 2]
    return first, second, third


def code_of(groups, number, pixel, turn, symbols, size):
    """Return the place in a group's `codes` of the code of a pixel, and the means of its channels."""
    group = groups[number]
    if turn == 0:
        return 0, []
    near = neighbours(pixel, turn, size)
    before = sum(len(each["channels"]) for each in groups[:number])
    places = range(before, before + len(group["channels"]))
    means = [12 // len(near) * sum(symbols[each][place] for each in near) for place in places]
    second, third = (1 + sum(max(numbers) for numbers in contexts["numbers"]) for contexts in group["contexts"])
    if (second, third)[turn - 1] == 1:
        return 0, means
    contexts, context = group["contexts"][turn - 1], 0
    for mean, thresholds, numbers in zip(means, contexts["thresholds"], contexts["numbers"], strict=True):
        context += numbers[sum(limit <= mean for limit in thresholds)]
    skipped = second if turn == 2 and second > 1 and not group["shared"] else 0
    return 1 + skipped + context, means


def neighbours(pixel, turn, size):
    (h, w), (y, x) = size, divmod(pixel, size[1])
    offsets = ((-1, -1), (-1, 1), (1, -1), (1, 1)) if turn == 1 else ((-1, 0), (0, -1), (0, 1), (1, 0))
    return [(y + dy) * w + x + dx for dy, dx in offsets if 0 <= y + dy < h and 0 <= x + dx < w]


def unpack(text):
    """Return the lengths of a code."""
    lengths = []
    for digit, repeat in re.findall("([0-9a-c])([d-z]?)", text):
        lengths += [DIGITS.index(digit)] * (1 + (ord(repeat) - ord("d") + 2 if repeat else 0))
    return lengths


def prefix_code(lengths):
    """Return {bits: symbol} of a canonical code; the last symbol is the escape."""
    code, result, at = 0, {}, 0
    for length in range(1, 13):
        code <<= length - at
        at = length
        for symbol in [symbol for symbol, each in enumerate(lengths) if each == length]:
            result[f"{code:0{length}b}"] = symbol
            code += 1
    return {"escape": len(lengths) - 1, **result}


def read_code(text, at, code):
    for length in range(1, 13):
        bits = text[at : at + length].ljust(length, "0")
        if bits in code:
            return code[bits], length
    raise AssertionError("a code is complete")


def split(joint, group, without_code):
    """Return the symbols of a group's channels at a pixel."""
    total = 1
    for count in group["count"]:
        total *= count
    if joint == total:
        if len(without_code) < len(group["channels"]):
            raise Invalid("too few symbols at the end")
        return [without_code.pop(0) for _ in group["channels"]]
    result = []
    for low, count in zip(group["low"][::-1], group["count"][::-1], strict=True):
        result.insert(0, low + joint % count)
        joint //= count
    return result
