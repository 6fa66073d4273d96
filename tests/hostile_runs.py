"""Damage to the files of run folders: random bytes, crafted arrays, crafted JSON."""

import io
import json
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np

from dualnet.training.json_files import sealed

# --- any file ------------------------------------------------------------------------------------


def random_damage(content, rng):
    """Flip a bit, change some bytes, or cut the end off."""
    content = bytearray(content)
    at = int(rng.integers(len(content)))
    kind = rng.integers(4)
    if kind == 0:
        return bytes(content[:at])
    if kind == 1:
        content[at : at + 8] = rng.bytes(8)
    else:
        content[at] ^= 1 << int(rng.integers(8))
    return bytes(content)


# --- checkpoints ---------------------------------------------------------------------------------


def arrays_in(file):
    with np.load(file) as archive:
        return {name: archive[name] for name in archive.files}


def crafted_arrays(arrays):
    """Yield `(what, arrays)`: what no run writes, each as a whole archive of intact arrays."""

    def other(name, array):
        return {**arrays, name: array}

    for name, array in arrays.items():
        tree = name.partition(":")[0]
        yield f"{name} left out", {n: a for n, a in arrays.items() if n != name}
        yield f"{name} renamed", {n + "x" * (n == name): a for n, a in arrays.items()}
        yield f"{name} longer", other(name, np.concatenate([array.reshape(-1), np.zeros(1)]))
        yield f"{name} as text", other(name, np.full(array.shape, "a"))
        yield f"{name} as objects", other(name, np.full(array.shape, Bomb(), object))
        yield f"{name} of other bytes", other(name, array.astype(array.dtype.newbyteorder()))
        yield f"{name} complex", other(name, array.astype(complex))
        if array.ndim > 1 and array.size and array.shape != array.T.shape:
            yield f"{name} turned", other(name, array.T)
        if array.size and array.dtype.kind == "f" and tree != "comparisons":
            for value in (np.nan, np.inf, -np.inf):
                yield f"{name} with {value}", other(name, _with(array, -1, value))
    yield "one more", {**arrays, "more:x": np.zeros(3)}
    yield "a name that steers a terminal", {**arrays, "params:\x1b[2J\n": np.zeros(3)}


def crafted_states(arrays):
    """Yield `(what, arrays)`: states of a run that cannot be, in arrays of the right shapes."""

    def other(name, array):
        return {**arrays, name: np.asarray(array, arrays[name].dtype)}

    position, sums, history = (arrays[f"{name}:"] for name in ("position", "sums", "history"))
    largest = 2**63 - 1
    for epoch in (-1, 0, 1, 3, 10**6, 10**18, largest, -largest):
        yield f"epoch {epoch}", other("position:", (epoch, position[1]))
    for batch in (-1, 4, 10**6, 10**18, largest, -largest):
        yield f"batch {batch}", other("position:", (position[0], batch))
    for i, values in enumerate(((), (-1, 1e9), (-1, 7.5, 1e9), (-1,))):
        for value in values:
            yield f"sums[{i}] {value}", other("sums:", _with(sums, i, value))
    for column, values in {
        0: (0, 2, 1.5, -1, 1e9),
        2: (-0.1, 1.1, 1e9),
        4: (-0.1, 1.1, 1e9),
        5: (-1,),
        6: (-1,),
    }.items():
        for value in values:
            changed = history.copy()
            changed[0, column] = value
            yield f"history[0, {column}] {value}", other("history:", changed)
    yield "epochs in another order", other("history:", history[::-1])
    if "skipped:" in arrays:
        for value in (-1, 8, largest):
            yield f"skipped {value}", other("skipped:", value)
    if "comparisons:" in arrays:
        compared = arrays["comparisons:"]
        for i, values in enumerate(((-1.1, 2, np.inf), (-1, 181, np.inf), (-1,))):
            for value in values:
                yield f"comparisons {i} {value}", other("comparisons:", _with(compared, i, value))
        yield "fewer comparisons", {**arrays, "comparisons:": compared[:-1]}
        yield "more comparisons", {**arrays, "comparisons:": np.concatenate([compared, compared])}


def crafted_best(arrays):
    """Yield `(what, arrays)`: a best network of an epoch that cannot be."""
    for epoch in (-1, 0, 10**6, 2**63 - 1, -(2**63)):
        yield f"best epoch {epoch}", {**arrays, "epoch:": np.array(epoch)}


def crafted_archives(arrays):
    """Yield `(what, make)`: archives that are no such as are written; `make()` returns one."""
    first = next(iter(arrays))
    members = [(name, _member(array)) for name, array in arrays.items()]
    good = _packed(arrays, np.savez)
    yield "compressed", lambda: _packed(arrays, np.savez_compressed)
    yield "pickled", lambda: pickle.dumps(Bomb())
    yield "one array", lambda: members[0][1]
    yield "a name twice", lambda: _zipped([*members, members[0]])
    yield "a bomb", lambda: _bomb(members)
    yield "very many", lambda: _zipped([(f"params:{i}", b"") for i in range(20_000)])
    for shape in ("(10000000000,)", "(99999999999999999999,)", "(-1,)", "(4, (5,))", "()" * 3000):
        yield f"shape {shape[:12]}", lambda shape=shape: _lying(members, first, "'<f4'", shape)
    for descr in ("'|O'", "'<f9'", "[('a', '<f4')]", "__import__('os').system('touch ran')"):
        yield f"type {descr[:12]}", lambda descr=descr: _lying(members, first, descr, "(2,)")
    whole = members[0][1]
    for what, held in (("more behind", whole + bytes(9000)), ("cut short", whole[:1128])):
        yield what, lambda held=held: _zipped([(first, held), *members[1:]])
    yield "a locked member", lambda: _flagged(good)
    yield "nothing", lambda: b""
    yield "its list alone", lambda: good[good.index(b"PK\x01\x02") :]


class Bomb:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)

    def __eq__(self, other):
        return False


def _with(array, at, value):
    changed = array.copy()
    changed.reshape(-1)[at] = value
    return changed


def _packed(arrays, save):
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def write_arrays(file, arrays):
    file.write_bytes(_packed(arrays, np.savez))


def _member(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _zipped(members, **how):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **how) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in members:
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def _bomb(members):
    """An archive with a member of 64 MiB of zeros in some 64 KiB, which says so in its header."""
    (first, _), *others = members
    bomb = _member(np.zeros(1 << 24, np.float32))
    return _zipped([(first, bomb), *others], compression=zipfile.ZIP_DEFLATED)


def _lying(members, name, descr, shape):
    """An archive in which the header of a member says something else than what follows."""
    said = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    said += b" " * (-(len(said) + 11) % 64) + b"\n"
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(said)) + said
    return _zipped([(n, head if n == name else content) for n, content in members])


def _flagged(content):
    """An archive whose list says that the first member is encrypted."""
    content = bytearray(content)
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


# --- JSON ----------------------------------------------------------------------------------------

NASTY = (
    *(None, True, False, -1, 0, 10**12, 2**63, 10**30, -(10**30), 0.5, -0.0, 1e308, 5e-324),
    *("", "\x1b[2J", "a\nb", "\ud800", "x" * 5000, "../../etc/passwd", "None", "\u202eabc"),
    *([], [[]], {}, {"a": 1}, [None], ["a"] * 1000, {"": {"": []}}),
)
"""Values that are of no use almost anywhere."""


def nested(depth):
    """JSON of so many lists inside one another."""
    return "[" * depth + "]" * depth


def damaged_text(text, rng):
    """Return bytes in the place of JSON or of a table that are no such, or another one."""
    content = text.encode()
    at = int(rng.integers(len(text)))
    digits = "9" * 5000
    return [
        lambda: random_damage(content, rng),
        lambda: random_damage(random_damage(content, rng) or b"{", rng),
        lambda: b"\xef\xbb\xbf" + content,
        lambda: text.encode("utf-16"),
        lambda: text.encode("utf-32-le"),
        lambda: content[:at] + b"\x00" + content[at:],
        lambda: content[:at] + b"\xff\xfe" + content[at:],
        lambda: content + content,
        lambda: nested(int(rng.integers(1, 100_000))).encode(),
        lambda: f'{{"a": {nested(int(rng.integers(200, 3000)))}}}'.encode(),
        lambda: text.replace(": ", f": {digits}", 1).encode(),
        lambda: text.replace(":", f": 1e{digits[:9]}, \x22a\x22:", 1).encode(),
        lambda: text.replace("{", '{"settings": NaN, "where": Infinity,', 1).encode(),
        lambda: text.replace("\n", '\n"settings": {},', 1).encode(),
        lambda: b"",
        lambda: b"[]",
        lambda: b"{}",
        lambda: b"null",
        lambda: b'"\\ud800"',
        lambda: content.replace(b"0", b"1", 1),
        lambda: content.replace(b"1", b"nan", 1),
        lambda: content.replace(b",", b", ,", 1),
        lambda: content.replace(b"\n", b"\r", 3),
    ][int(rng.integers(23))]()


def damaged_value(data, rng, seal):
    """Return JSON in which one value is another, is left out, or has a neighbor.

    Args:
        data: an object.
        rng: chooses.
        seal: whether the digest is made anew, as somebody does who means harm.
    """
    data = json.loads(json.dumps(data))
    places = list(_places(data))
    inside, key = places[int(rng.integers(len(places)))]
    kind = int(rng.integers(6))
    value = NASTY[int(rng.integers(len(NASTY)))]
    if kind == 0:
        del inside[key]
    elif kind == 1 and isinstance(inside, dict):
        inside["more" if rng.integers(2) else "\x1b]0;x\x07"] = value
    else:
        inside[key] = value
    if seal and "sha256" in data:
        del data["sha256"]
        data = sealed(data)
    return json.dumps(data).encode()


def _places(data):
    """Yield `(container, key)` for every value in JSON."""
    keys = list(data) if isinstance(data, dict) else range(len(data))
    for key in keys:
        yield data, key
        if isinstance(data[key], (dict, list)):
            yield from _places(data[key])
