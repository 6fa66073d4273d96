"""Files that are truncated, corrupted or made to do harm: all end in DataError, exit code 3."""

import gzip
import os
import pickle
import random
import struct
import sys
import tarfile
import tracemalloc
import zlib

import numpy as np
import pytest
from data_files import (
    FILES,
    array,
    header,
    image_bytes,
    listed,
    mapped,
    mutate,
    photographs,
    pickled,
    put,
    put_tiny_imagenet,
    python_batch,
    records,
    short,
    small_set,
    tar,
    whole,
    write,
)
from PIL import Image

from dualnet.data import load
from dualnet.data.idx import MAX_BYTES
from dualnet.data.pickled import MAX_OPCODES, read_pickle
from dualnet.errors import DataError

pytestmark = pytest.mark.usefixtures("elsewhere")

GOOD = 4
"""Images in the files that are damaged here."""


def pictures(seed=0, n=GOOD):
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), np.uint8)


BINARY = records(pictures(), range(GOOD), range(GOOD))
PYTHON = python_batch(pictures(), range(GOOD), b"fine_labels")
SMALL = 1 << 20


def refused(name, folder, match="expected", peak=None, **options):
    """Check that a set is refused in one line, leaves nothing behind, and takes little memory."""
    before = set(os.listdir()) | {"cache"}
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=match) as error:
            load(name, folder, download=False, quiet=True, **options)
        assert peak is None or tracemalloc.get_traced_memory()[1] < peak
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value) and "expected" in str(error.value)
    assert set(os.listdir()) <= before
    decoded = "cache/dualnet/decoded"
    assert not os.path.isdir(decoded) or os.listdir(decoded) == []
    return str(error.value)


def put_idx(content, place=0):
    """A small set in the form of MNIST, of which one file has other content."""
    return put("mine", {**small_set(), FILES[place]: content})


def put_cifar(train_file, test_file=BINARY, suffix=".bin"):
    return put("mine", {f"train{suffix}": train_file, f"test{suffix}": test_file})


def put_archive(content):
    return put("mine", {"cifar-100-binary.tar.gz": content})


def put_image(content):
    """Folders of one class, whose second image in each split has this content."""
    images = {"0.jpeg": JPEG, "1.jpeg": content}
    files = {f"{split}/cat/{n}": image for split in ("train", "val") for n, image in images.items()}
    return put("mine", files)


# IDX files, of which test_data has more


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_header_alone_takes_no_memory(pack):
    lie = header(MAX_BYTES // 28**2, 28, 28) + bytes(1000)
    refused("mnist", put_idx(pack(lie)), "found only 1000", peak=8 * SMALL)


def test_gzip_bomb_is_not_unpacked():
    bomb = gzip.compress(header(10, 28, 28) + bytes(64 << 20), 1)
    assert len(bomb) < SMALL
    refused("mnist", put_idx(bomb), "found more", peak=8 * SMALL)


# CIFAR's binary version


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected 1 to 60000 records of 3074 bytes, found 0 bytes"),
        (BINARY[:-1], f"found {len(BINARY) - 1} bytes"),
        (BINARY + b"\0", f"found {len(BINARY) + 1} bytes"),
        (b"\0\x64" + BINARY[2:], "expected labels from 0 to 99, found 100"),
        (b"\0\xff" + BINARY[2:], "expected labels from 0 to 99, found 255"),
    ],
)
def test_bad_records(content, message):
    assert "delete it and get it again" in refused("cifar100", put_cifar(content), message)


def test_records_of_the_other_set():
    names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    folder = put("mine", {f"{name}.bin": BINARY for name in names})
    refused("cifar10", folder, r"expected 1 to 60000 records of 3073 bytes, found 12296 bytes")


def test_endless_file_is_not_read(monkeypatch):
    monkeypatch.setattr("dualnet.data.cifar._MOST_RECORDS", 10)
    put_cifar(BINARY)
    with open("mine/train.bin", "wb") as out:
        out.truncate(1 << 40)  # takes no room on the disk
    refused("cifar100", "mine", r"expected at most \d+ bytes, found more", peak=8 * SMALL)


# Pickles


class Evil:
    """Runs something when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


COMMAND = f"{sys.executable} -c \"open('harmed','w')\""
EVIL = {
    "os.system": Evil(os.system, COMMAND),
    "eval": Evil(eval, "open('harmed', 'w')"),
    "exec": Evil(exec, "open('harmed', 'w')"),
    "open": Evil(open, "harmed", "w"),
    "import": Evil(__import__, "os"),
    "objects": np.array([{}, None, Evil(os.system, COMMAND)], object),
    "dtype": np.dtype([("a", "O")]),
    "array": np.zeros((4, 3072), np.uint8),  # written by a newer Python: not what CIFAR has
    "float array": np.zeros(3),
    "set": {1, 2},
    "nothing": None,
    "list": [1, 2],
    "huge number": 1 << 5000,
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", EVIL)
def test_pickles_that_run_code_run_nothing(kind, protocol):
    for value in (EVIL[kind], {"data": EVIL[kind], "fine_labels": [0]}):
        content = pickle.dumps(value, protocol)
        refused("cifar100", put_cifar(content, PYTHON, ""))
    assert not os.path.exists("harmed")


def test_the_evil_pickles_are_evil():
    """The full unpickler would have run them."""
    pickle.loads(pickle.dumps(EVIL["open"])).close()
    assert os.path.exists("harmed")


def python_with(data=None, labels=None):
    held = {
        b"fine_labels": listed(map(whole, range(GOOD))) if labels is None else labels,
        b"data": array((GOOD, 3072), bytes(GOOD * 3072)) if data is None else data,
    }
    return pickled(mapped(held))


CALL = b"cos\nsystem\n(" + short(b"touch harmed") + b"tR"

BAD_PICKLES = {
    "empty": (b"", "its end too early"),
    "no end": (PYTHON[:-1], "its end too early"),
    "half": (PYTHON[: len(PYTHON) // 2], "its end too early"),
    "after the end": (PYTHON + b".", "more than one value"),
    "os.system": (pickled(CALL), "the name 'os.system', which CIFAR's files do not have"),
    "in the data": (python_with(CALL), "the name 'os.system'"),
    "in a list": (python_with(labels=listed([CALL])), "the name 'os.system'"),
    "old numpy": (pickled(b"cnumpy.core.multiarray\nscalar\n"), "multiarray.scalar'"),
    "long name": (pickled(b"c" + b"a" * 200), "a name that does not end"),
    "instance": (pickled(b"(i__builtin__\neval\n"), "opcode b'i'"),
    "persistent": (pickled(b"Pname\n"), "opcode b'P'"),
    "long": (pickled(b"\x8b" + struct.pack("<i", 1 << 30)), "opcode"),
    "protocol 4": (b"\x80\x04N.", "protocol 4, not 2"),
    "call of the array": (pickled(b"cnumpy\nndarray\n(J\0\0\0\x7ftR"), "a call that does not make"),
    "other type": (python_with(array((GOOD, 3072), b"", b"O8")), "a call that does not make"),
    "floats": (python_with(array((GOOD, 3072), bytes(8 * GOOD * 3072), b"f8")), "a call that does"),
    "sizes too large": (python_with(array((1 << 30, 3072), b"abc")), "sizes are not those of its"),
    "sizes too small": (python_with(array((1, 3072), bytes(9999))), "sizes are not those of its"),
    "negative sizes": (python_with(array((-1, -3072), bytes(3072))), "an array without values"),
    "no sizes": (python_with(array((), b"a")), "an array without sizes"),
    "many sizes": (python_with(array([(1 << 31) - 1] * 9999, b"a")), "an array without sizes"),
    "length": (python_with(array((1, 3072), b"abc", length=(1 << 31) - 1)), "its end too early"),
    "negative": (python_with(array((1, 3072), b"abc", length=-1)), "its end too early"),
    "other width": (python_with(array((GOOD, 1024), bytes(GOOD * 1024))), "shape any x 3072"),
    "flat": (python_with(array((GOOD * 3072,), bytes(GOOD * 3072))), "shape any x 3072"),
    "no array": (python_with(short(b"abc")), "shape any x 3072"),
    "unmade array": (
        python_with(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\1b\x87R"),
        "shape any x 3072",
    ),
    "few labels": (python_with(labels=listed([whole(1)])), "expected 4 labels, .* found 1"),
    "text labels": (python_with(labels=listed([short(b"a")] * GOOD)), "a list of numbers"),
    "true labels": (python_with(labels=listed([b"\x88"] * GOOD)), "a list of numbers"),
    "no list": (python_with(labels=whole(3)), "a list of numbers"),
    "large labels": (python_with(labels=listed(map(whole, [0, 1, 2, 100]))), "found 100"),
    "negative labels": (python_with(labels=listed(map(whole, [0, 1, 2, -1]))), "found -1"),
    "other keys": (pickled(mapped({b"data": b"N"})), "a dict with data and fine_labels"),
    "no dict": (pickled(b"N"), "a dict with data and fine_labels"),
    "unhashable key": (pickled(b"}]Ns"), "keys that are no strings"),
    "odd items": (pickled(b"}(Nu"), "what is no dict"),
    "append to a dict": (pickled(b"}Na"), "what is no list"),
    "no stack": (pickled(b"a"), "corrupted"),
    "no mark": (pickled(b"NNt"), "corrupted"),
    "mark as value": (pickled(b"(q\1"), "a mark where"),
    "marks": (pickled(b"(((("), "more than one value"),
    "memo": (pickled(b"h\7"), "not in its memo"),
    "memo at the end": (pickled(b"Nr\xff\xff\xff\xffj\xff\xff\xff\x7f"), "not in its memo"),
    "two values": (pickled(b"NN"), "more than one value"),
    "deep": (pickled(b"]" * 20_000 + b"a" * 19_999), "a dict with data"),
    "itself": (pickled(b"]q\0h\0a"), "a dict with data"),
    "text": (b"<!DOCTYPE html>", "opcode b'<'"),
}


@pytest.mark.parametrize("kind", BAD_PICKLES)
def test_bad_pickles(kind):
    content, message = BAD_PICKLES[kind]
    refused("cifar100", put_cifar(content, PYTHON, ""), message, peak=4 * SMALL)
    assert not os.path.exists("harmed")


def test_a_program_without_end_is_stopped(monkeypatch):
    monkeypatch.setattr("dualnet.data.pickled.MAX_OPCODES", 1000)
    message = "found more than 1000 opcodes"
    endless = put_cifar(pickled(b"]" * SMALL), PYTHON, "")
    refused("cifar100", endless, message, peak=8 * SMALL)
    assert MAX_OPCODES > 4 * 50_000 + 100  # CIFAR-100: two labels, a name, its number


def test_a_large_number_in_the_memo_takes_no_memory():
    content = pickled(b"Nr\xff\xff\xff\xff")
    tracemalloc.start()
    assert read_pickle(content, "here") is None
    assert tracemalloc.get_traced_memory()[1] < SMALL
    tracemalloc.stop()


# Archives

FOLDER = "cifar-100-binary/"
MEMBERS = [(f"{FOLDER}train.bin", BINARY), (f"{FOLDER}test.bin", BINARY)]


def member(name, kind=tarfile.REGTYPE, link="", **fields):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    for field, value in fields.items():
        setattr(info, field, value)
    return info, b""


STAY = "expected members that stay in their folder"
KIND = "expected files and folders alone, found .* of another kind"
BAD_MEMBERS = {
    "parent": (member("../harmed"), STAY),
    "parent inside": (member(f"{FOLDER}../../harmed"), STAY),
    "absolute": (member("/tmp/harmed"), STAY),
    "drive": (member("C:/harmed"), STAY),
    "backslash": (member("..\\harmed"), STAY),
    "symbolic link": (member(f"{FOLDER}link", tarfile.SYMTYPE, "/etc/passwd"), KIND),
    "link in its place": (member(f"{FOLDER}train.bin", tarfile.SYMTYPE, "/etc/passwd"), KIND),
    "hard link": (member(f"{FOLDER}link", tarfile.LNKTYPE, "../harmed"), KIND),
    "device": (member(f"{FOLDER}zero", tarfile.CHRTYPE, devmajor=1, devminor=5), KIND),
    "disk": (member(f"{FOLDER}disk", tarfile.BLKTYPE), KIND),
    "pipe": (member(f"{FOLDER}train.bin", tarfile.FIFOTYPE), KIND),
}


@pytest.mark.parametrize("place", [0, 1, 2], ids=["first", "between", "last"])
@pytest.mark.parametrize("mode", ["w:gz", "w"])
@pytest.mark.parametrize("kind", BAD_MEMBERS)
def test_archives_that_leave_their_folder(kind, mode, place):
    bad, message = BAD_MEMBERS[kind]
    refused("cifar100", put_archive(tar([*MEMBERS[:place], bad, *MEMBERS[place:]], mode)), message)
    assert not os.path.exists("/tmp/harmed")


def header_with(offset, field, content=None):
    """An archive with a header changed, checksum and all."""
    content = bytearray(tar(MEMBERS, "w") if content is None else content)
    content[offset : offset + len(field)] = field
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    return bytes(content)


BAD_ARCHIVES = {
    "empty": (b"", "expected an intact tar archive"),
    "text": (b"<!DOCTYPE html>" * 99, "expected an intact tar archive"),
    "no end of gzip": (tar(MEMBERS)[:-4], "expected intact gzip data"),
    "half": (tar(MEMBERS)[:5000], "expected (intact gzip data|an intact tar archive)"),
    "half, plain": (tar(MEMBERS, "w")[:5000], "expected an intact tar archive"),
    "one missing": (tar(MEMBERS[:1]), "expected cifar-100-binary/test.bin in it, found none"),
    "other folder": (tar([(n.partition("/")[2], c) for n, c in MEMBERS]), "in it, found none"),
    "many members": (tar([(f"{n}", b"") for n in range(200)]), "expected at most 100 members"),
    "folder in its place": (tar([member(f"{FOLDER}train.bin", tarfile.DIRTYPE)]), "files of at m"),
    "huge size": (header_with(124, b"77777777777\0"), "expected files of at most"),
    "negative size": (header_with(124, b"\xff" * 12), "expected"),
    "binary size": (header_with(124, b"\x80" + b"\x7f" * 11), "expected files of at most"),
    "bad checksum": (bytes(100) + tar(MEMBERS, "w")[100:], "expected (an intact|c)"),
    "sparse": (header_with(156, b"S"), "expected (an intact|files and folders alone)"),
    "unknown kind": (header_with(156, b"Z"), "expected"),
    "long name": (header_with(156, b"L"), "expected"),
    "extended header": (header_with(156, b"x"), "expected"),
    "record": (tar([(f"{FOLDER}train.bin", BINARY[:-1]), MEMBERS[1]]), "train.bin: expected 1 to"),
}


@pytest.mark.parametrize("kind", BAD_ARCHIVES)
def test_bad_archives(kind):
    content, message = BAD_ARCHIVES[kind]
    refused("cifar100", put_archive(content), message, peak=8 * SMALL)


def test_archive_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr("dualnet.data.cifar._MOST_RECORDS", 10)
    for name in ("readme.txt", "train.bin"):
        bomb = tar([(FOLDER + name, bytes(64 << 20))])
        assert len(bomb) < SMALL
        refused("cifar100", put_archive(bomb), "expected .*at most", peak=8 * SMALL)


def test_headers_without_end():
    """Extended headers one after the other, each of which says something about the next."""
    one = header_with(156, b"x", tar([("x", b"")], "w")[:512])
    refused("cifar100", put_archive(one * 5000), "expected")


def test_good_member_twice_is_read_once():
    folder = put_archive(tar([*MEMBERS, (f"{FOLDER}train.bin", b"other")]))
    assert len(load("cifar100", folder, download=False).train_labels) == GOOD


# Images


def png(width, height, depth=8, color=2, data=b"", chunks=()):
    """A PNG file made by hand, whatever it claims."""
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


SQUARE = photographs(np.random.default_rng(0), 1, 64, 64)[0]
JPEG, PNG = image_bytes(SQUARE, "JPEG"), image_bytes(SQUARE)
LARGE = "expected (at most 67108864 pixels|an intact JPEG or PNG image, found Image size)"
INTACT = "expected an intact JPEG or PNG image"
BAD_IMAGES = {
    "empty": (b"", INTACT),
    "text": (b"<!DOCTYPE html>", INTACT),
    "wide bomb": (png(1 << 30, 1), LARGE),
    "huge bomb": (png((1 << 31) - 1, (1 << 31) - 1), LARGE),
    "bomb": (png(8193, 8193, data=bytes(1 << 20)), LARGE),
    "bomb that Pillow warns about": (png(10_000, 10_000), LARGE),
    "no pixels": (png(64, 64), INTACT),
    "too few pixels": (png(64, 64, data=bytes(1000)), INTACT),
    "no width": (png(0, 64), INTACT),
    "text bomb": (
        png(64, 64, chunks=[(b"zTXt", b"a\0\0" + zlib.compress(bytes(64 << 20)))]),
        INTACT,
    ),
    "16 bits": (png(64, 64, depth=16, color=0, data=bytes(64 * 129)), "expected one of the modes"),
    "no such color": (png(64, 64, color=5), INTACT),
    "half a JPEG": (JPEG[: len(JPEG) // 2], INTACT),
    "half a PNG": (PNG[: len(PNG) // 2], INTACT),
    "GIF": (image_bytes(SQUARE, "GIF"), INTACT),
    "TIFF": (image_bytes(SQUARE, "TIFF"), INTACT),
    "BMP": (image_bytes(SQUARE, "BMP"), INTACT),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", INTACT),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images(kind):
    content, message = BAD_IMAGES[kind]
    text = refused("imagenet-folder", put_image(content), message, peak=72 * SMALL)
    assert text.startswith("mine/train/cat/1.jpeg: ") and text.endswith("replace it or remove it")


def test_image_of_another_size_in_tiny_imagenet(tmp_path, rng):
    put_tiny_imagenet(tmp_path / "mine", rng, per_class=1)
    write(tmp_path / "mine" / "val" / "images" / "val_7.JPEG", image_bytes(SQUARE[:63], "JPEG"))
    refused("tiny-imagenet", "mine", "val_7.JPEG: expected 64 x 64 pixels, found 64 x 63")


def test_what_is_no_file_is_not_opened():
    """A pipe would be waited for forever."""
    os.remove(put_image(JPEG) + "/train/cat/1.jpeg")
    os.mkfifo("mine/train/cat/1.jpeg")
    refused("imagenet-folder", "mine", "expected a file of at most .* bytes, found none")
    os.remove("mine/train/cat/1.jpeg")
    os.mkdir("mine/train/cat/1.jpeg")
    refused("imagenet-folder", "mine", "expected a file of at most .* bytes, found none")
    os.rmdir("mine/train/cat/1.jpeg")
    os.symlink("/nowhere", "mine/train/cat/1.jpeg")
    refused("imagenet-folder", "mine", "1.jpeg: expected a readable file")


# Random damage


IMAGES, LABELS, *_ = small_set().values()
FORMATS = {
    "IDX": ("mnist", IMAGES, put_idx),
    "IDX.gz": ("mnist", gzip.compress(IMAGES), put_idx),
    "labels": ("mnist", LABELS, lambda c: put_idx(c, 1)),  # as short as their head
    "labels.gz": ("mnist", gzip.compress(LABELS), lambda c: put_idx(c, 1)),
    "records": ("cifar100", BINARY, put_cifar),
    "pickle": ("cifar100", PYTHON, lambda c: put_cifar(c, PYTHON, "")),
    "tar": ("cifar100", tar(MEMBERS, "w"), put_archive),
    "tar.gz": ("cifar100", tar(MEMBERS), put_archive),
    "JPEG": ("imagenet-folder", JPEG, put_image),
    "PNG": ("imagenet-folder", PNG, put_image),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_random_damage_is_an_error_or_harmless(kind, monkeypatch):
    name, original, put_it = FORMATS[kind]
    seen, size = 0, {"image_size": 16} if name == "imagenet-folder" else {}
    for seed in range(60):
        monkeypatch.setenv("DUALNET_CACHE", f"cache-{seed}")
        folder = put_it(mutate(original, random.Random(seed), head=600))
        try:
            data = load(name, folder, download=False, quiet=True, **size)
        except DataError as error:
            seen += 1
            assert "\n" not in str(error), f"seed {seed}"
        except Exception as error:
            pytest.fail(f"seed {seed}: {error!r} instead of a DataError")
        else:
            assert data.train_images.dtype == np.uint8, f"seed {seed}"
            assert data.train_images.shape[1:] == data.test_images.shape[1:], f"seed {seed}"
            assert 0 <= data.train_labels.min() <= data.train_labels.max() < 100, f"seed {seed}"
            assert len(data.train_labels) == len(data.train_images), f"seed {seed}"
    assert seen > 10  # the damage does reach the checks
    assert not os.path.exists("harmed")


@pytest.mark.parametrize("kind", FORMATS)
def test_on_the_command_line_it_is_exit_code_3(kind, ask):
    name, original, put_it = FORMATS[kind]
    folder = put_it(original[: len(original) // 3])
    options = ["--dataset", name, "--data-dir", folder, "--run-dir", "run", "--quiet"]
    code, out, err = ask(*options)
    assert (code, out) == (3, "") and err.startswith("train.py: mine/") and err.count("\n") == 1
    assert not os.path.exists("run")


def test_pillow_is_left_as_it_was():
    put_image(JPEG)
    load("imagenet-folder", "mine", quiet=True)
    assert Image.MAX_IMAGE_PIXELS == 1024 * 1024 * 1024 // 4 // 3
