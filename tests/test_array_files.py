"""Files of arrays that lie, are damaged or promise too much are refused before they take memory."""

import io
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from dualnet.data import room
from dualnet.data.array_files import read_arrays
from dualnet.errors import DataError, UsageError

MEGABYTE = 1 << 20


def npy(array=None, shape=None, dtype="<f8", content=b"", version=1, text=None):
    """A file .npy with any header."""
    if array is not None:
        out = io.BytesIO()
        np.save(out, array, allow_pickle=True)
        return out.getvalue()
    if text is None:
        text = repr({"descr": dtype, "fortran_order": False, "shape": shape})
    head = text.encode() + b"\n"
    length = len(head).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes((version, 0)) + length + head + content


def npz(members, packed=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packed) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def claiming(content, size):
    """An archive of one member whose entries say that it has another size when it is unpacked."""
    content = bytearray(content)
    for entry, field in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = content.find(entry) + field
        content[at : at + 4] = size.to_bytes(4, "little")
    return bytes(content)


def refused(tmp_path, content, match):
    path = tmp_path / "arrays"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=match) as error:
            read_arrays(path)
        assert tracemalloc.get_traced_memory()[1] < 64 * MEGABYTE
    finally:
        tracemalloc.stop()
    text = str(error.value)
    assert text.startswith(f"{path}: expected an intact file of plain arrays: ")
    assert "\n" not in text


ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.zeros((0, 4), np.float32),
    np.array(3),
    np.array(["cat", "Käfer \U0001f41e"]),
    np.array([True, False]),
    np.arange(5, dtype=">i2"),
    np.arange(1 << 16, dtype=np.uint8),
]


@pytest.mark.parametrize("n", range(len(ARRAYS)))
def test_arrays_are_read_as_they_were_written(tmp_path, n):
    array, path = ARRAYS[n], tmp_path / "arrays"
    for save in (np.save, np.savez, np.savez_compressed):
        with open(path, "wb") as stream:
            save(stream, array) if save is np.save else save(stream, x=array, y=array)
        for found in read_arrays(path).values():
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found, array)
            found[...] = found  # may be written to
    path.write_bytes(npy(shape=(2,), content=bytes(16), version=2))
    np.testing.assert_array_equal(read_arrays(path)["x"], [0.0, 0.0])


HUGE = 1 << 40
MORE = r"its header promises [\d]+ bytes of values, and \d+ follow"
BAD = {
    "empty": (b"", "neither .npy nor .npz"),
    "text": (b"<!DOCTYPE html>", "neither .npy nor .npz"),
    "a pickle": (b"\x80\x04N.", "neither .npy nor .npz"),
    "objects": (npy(np.array([{}])), "it holds Python objects, which are never read"),
    "fields of objects": (npy(dtype=[("a", "|O")], shape=(1,)), "it holds Python objects"),
    "promises terabytes": (npy(shape=(HUGE,), content=bytes(8)), MORE),
    "promises one more": (npy(shape=(2,), content=bytes(8)), MORE),
    "holds more": (npy(shape=(1,), content=bytes(16)), MORE),
    "product beyond 64 bits": (npy(shape=(HUGE, HUGE, HUGE), content=bytes(8)), MORE),
    "negative": (npy(shape=(-1, -8), content=bytes(64)), "which is no array of values"),
    "no values": (npy(dtype="<U0", shape=(4,)), "which is no array of values"),
    "no shape": (npy(shape=None, content=bytes(8)), "(?i)shape"),
    "no such dtype": (npy(dtype="<q9", shape=(1,), content=bytes(8)), "(?i)valid|understood"),
    "brackets": (npy(text="(" * 5000), "expected"),
    "long header": (npy(text="{" + " " * 15_000 + "}"), "expected"),
    "longer header": (
        npy(version=2)[:8] + b"\xff\xff\xff\x7f" + b"0" * 99,
        "expected",
    ),
    "a header that warns": (npy(text="{'descr': '\\d'}"), "(?i)keys"),
    "other version": (npy(shape=(1,), content=bytes(8), version=9), "version"),
    "truth": (npy(dtype="|b1", shape=(2,), content=b"\1\7"), "neither true nor false"),
    "characters": (npy(dtype="<U1", shape=(1,), content=b"\xff" * 4), "characters that there are"),
    "an archive of nothing": (b"PK\5\6" + bytes(17), "zip"),
    "half an archive": (npz({"x.npy": npy(np.arange(9))})[:60], "zip"),
    "no array": (npz({"x.npy": b"text"}), "magic"),
    "objects in an archive": (npz({"x.npy": npy(np.array([{}]))}), "it holds Python objects"),
    "one name twice": (npz({"x.npy": npy(np.arange(2)), "x": b""}), "two of one name"),
    "many": (npz({f"{n}.npy": b"" for n in range(1001)}), "more than 1000 arrays"),
    "packed by LZMA": (npz({"x.npy": npy(np.arange(9))}, zipfile.ZIP_LZMA), "does not write"),
    "member promises more": (npz({"x.npy": npy(shape=(HUGE,), content=bytes(8))}), MORE),
    "member and its entry lie": (
        claiming(npz({"x.npy": npy(shape=(1 << 28,), dtype="|u1")}), (1 << 28) + 65),
        "it ends after 0 bytes of values instead of 268435456|Bad CRC|promises",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_file_of_arrays_is_refused(tmp_path, kind, capfd):
    refused(tmp_path, *BAD[kind])
    assert capfd.readouterr() == ("", "")


def test_a_flipped_bit_of_an_archive_is_noticed(tmp_path, rng):
    content = npz({"x.npy": npy(rng.integers(0, 256, 200, np.uint8))}, zipfile.ZIP_STORED)
    for at in range(content.find(b"NUMPY") + 130, content.find(b"PK\1\2"), 7):
        damaged = bytearray(content)
        damaged[at] ^= 4
        refused(tmp_path, bytes(damaged), "Bad CRC")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_room", lambda: 32 * MEGABYTE)
    array = npy(np.zeros(48 * MEGABYTE, np.uint8))
    bomb = npz({"x.npy": array})
    assert len(bomb) < MEGABYTE
    refused(tmp_path, bomb, "it promises 50,331,776 bytes, and memory has room for 33,554,432")
    refused(tmp_path, array, "it promises 50,331,776 bytes, and memory has room for")
    halves = {f"{n}.npy": npy(np.zeros(17 * MEGABYTE, np.uint8)) for n in "xy"}
    refused(tmp_path, npz(halves), "it promises 35,")


def test_the_room_is_that_of_the_machine_or_of_the_container(tmp_path, monkeypatch):
    info, limit = tmp_path / "meminfo", tmp_path / "max"
    monkeypatch.setattr(room, "_MEMINFO", info)
    monkeypatch.setattr(room, "_LIMITS", (limit, tmp_path / "none"))
    room.require_room(1 << 60)  # nothing is known
    info.write_text("MemTotal:  900 kB\nMemAvailable:     100 kB\n")
    assert room._room() == 102_400
    for text, least in (("max\n", 102_400), ("5000\n", 5000), ("9223372036854771712\n", 102_400)):
        limit.write_text(text)
        assert room._room() == least
        room.require_room(least)
        with pytest.raises(MemoryError, match="it promises"):
            room.require_room(least + 1)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    for name in ("none", "folder", "pipe"):
        path = tmp_path / name
        {"none": lambda _: None, "folder": os.mkdir, "pipe": os.mkfifo}[name](path)
        with pytest.raises(UsageError, match="expected a file, found none"):
            read_arrays(path)
    with pytest.raises(UsageError, match="expected a file, found none"):
        read_arrays(tmp_path.__class__("/dev/zero"))
