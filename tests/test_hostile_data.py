"""Hundreds of hostile files of every format: each is refused in one printable line, or harmless.

Where the format has a checksum, or the cache a digest, what is read must be the same as ever.  In
others a changed pixel is a pixel: there, what is read must be of the right kind.
"""

import gzip
import hashlib
import io
import os
import random
import shutil
import socket
import time
import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    FILES,
    image_bytes,
    mutate,
    photographs,
    published,
    put,
    python_batch,
    records,
    small_set,
    tar,
    write,
)

from dualnet.console import exit_code
from dualnet.data import SOURCES, load
from dualnet.data.array_files import read_arrays
from dualnet.data.image_files import read_fitted
from dualnet.data.preparation import Preparation

pytestmark = [
    pytest.mark.usefixtures("elsewhere"),
    pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes in folders"),
]

MOST_SECONDS = 20
"""Far more than any of them takes, also on a busy machine."""
MOST_MEMORY = 600 << 20

SMALL = small_set()
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
SQUARE = photographs(np.random.default_rng(0), 1, 64, 64)[0]
RECORDS = records(PIXELS, range(4), range(4))
BATCH = python_batch(PIXELS, range(4), b"fine_labels")
ARCHIVE = [(f"cifar-100-binary/{name}.bin", RECORDS) for name in ("train", "test")]
JPEG = image_bytes(SQUARE, "JPEG")
ANNOTATIONS = b"0.JPEG\tcat\t0\t0\t9\t9\n1.JPEG\tdog\t0\t0\t9\t9\n"
TINY = {
    **{f"train/{name}/images/0.JPEG": JPEG for name in ("cat", "dog")},
    **{f"val/images/{n}.JPEG": JPEG for n in range(2)},
}


def saved(save, **how):
    out = io.BytesIO()
    save(out, **how)
    return out.getvalue()


def of_set(name, **how):
    """What reads a set from the folder `mine` or, without it, from the cache."""

    def read():
        data = load(name, "mine" if Path("mine").exists() else None, download=False, **how)
        assert 0 <= data.train_labels.min() <= data.train_labels.max() < len(data.classes)
        return [data.train_images[:], data.train_labels, data.test_images[:], data.test_labels]

    return read


@dataclass
class Format:
    """A file in the midst of others.

    Args:
        path: of the file, in which something is planted.
        files: the others, and this one as it should be: path → content.
        read: reads them; returns arrays.
        checked: whether no change of a value can go unnoticed.
        healed: whether the file is made anew from others, so that nothing is refused.
    """

    path: str
    files: dict
    read: object
    checked: bool = False
    healed: bool = False


def in_folder(folder, files):
    return {f"{folder}/{name}": content for name, content in files.items()}


def of_mnist(file, pack=bytes, folder="mine", checked=False):
    ending = "" if pack is bytes else ".gz"
    files = {f"{name}{ending}": pack(content) for name, content in SMALL.items()}
    path = f"{folder}/{FILES[file]}{ending}"
    return Format(path, in_folder(folder, files), of_set("mnist"), checked)


def of_folder(content):
    files = {f"mine/{part}/cat/{n}.png": JPEG for part in ("train", "val") for n in range(2)}
    path = "mine/train/cat/1.png"
    return Format(
        path, {**files, path: content}, of_set("imagenet-folder", image_size=8, quiet=True)
    )


def of_cifar(files, checked=False):
    """The first of some files of CIFAR-100."""
    files = in_folder("mine", files)
    return Format(next(iter(files)), files, of_set("cifar100"), checked)


KIND = Preparation("none", np.zeros(1), np.ones(1), (16, 16, 3), 255)


def single(kind, **how):
    path = f"image.{kind.lower()}"
    content = image_bytes(SQUARE, kind, **how)
    return Format(path, {path: content}, lambda: [read_fitted(Path(path), KIND)], kind == "PNG")


def arrays(path, content, checked):
    return Format(path, {path: content}, lambda: list(read_arrays(Path(path)).values()), checked)


X = {"x": np.arange(40.0).reshape(8, 5), "y": np.array(["cat", "dog"] * 4)}
CACHE = "cache/dualnet/mnist"
OF_CIFAR = in_folder("mine", {"train.bin": RECORDS, "test.bin": RECORDS})
"""From which the cache of a set is decoded."""
FORMATS = {
    "IDX": of_mnist(0),
    "IDX.gz": of_mnist(0, gzip.compress, checked=True),
    "labels": of_mnist(1),
    "labels.gz": of_mnist(1, gzip.compress, checked=True),
    "IDX of the cache": of_mnist(2, folder=CACHE, checked=True),
    "IDX.gz of the cache": of_mnist(3, gzip.compress, CACHE, True),
    "records": of_cifar({"train.bin": RECORDS, "test.bin": RECORDS}),
    "pickle": of_cifar({"train": BATCH, "test": BATCH}),
    "tar": of_cifar({"cifar-100-binary.tar.gz": tar(ARCHIVE, "w")}),
    "tar.gz": of_cifar({"cifar-100-binary.tar.gz": tar(ARCHIVE)}, checked=True),
    "JPEG in folders": of_folder(JPEG),
    "PNG in folders": of_folder(image_bytes(SQUARE)),
    "annotations": Format(
        "mine/val/val_annotations.txt",
        in_folder("mine", {**TINY, "val/val_annotations.txt": ANNOTATIONS}),
        of_set("tiny-imagenet", quiet=True),
    ),
    **{
        f"cache: {file}": Format(f"decoded/{file}", OF_CIFAR, of_set("cifar100"), True, True)
        for file in ("index.json", "train_images.npy", "test_labels.npy")
    },
    "npy": arrays("a.npy", saved(np.save, arr=X["x"]), False),
    "npz": arrays("a.npz", saved(np.savez, **X), True),
    "npz, compressed": arrays("a.npz", saved(np.savez_compressed, **X), True),
    **{kind: single(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")},
    "TIFF, compressed": single("TIFF", compression="tiff_lzw"),
}


def lie(content, rng):
    """Overwrite a number near the head by a huge or a tiny one."""
    size = rng.choice((2, 4, 8))
    at = rng.randrange(max(1, min(len(content), 120) - size))
    value = rng.choice((0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1))
    return content[:at] + value.to_bytes(size, rng.choice(("little", "big"))) + content[at + size :]


BYTES = {
    **{f"edited {n}": lambda c, rng: mutate(c, rng, 200) for n in range(3)},
    **{f"a lie {n}": lie for n in range(4)},
    "cut": lambda c, rng: c[: rng.randrange(len(c))],
    "cut at its head": lambda c, rng: c[: rng.randrange(40)],
    "empty": lambda c, rng: b"",
    "twice": lambda c, rng: c + c,
    "reversed": lambda c, rng: c[::-1],
    "zeros": lambda c, rng: bytes(len(c)),
    "ones": lambda c, rng: b"\xff" * len(c),
    "random": lambda c, rng: rng.randbytes(len(c)),
    "escapes": lambda c, rng: b"\x1b[31m\x07\n\0" * 99,
    "a page": lambda c, rng: b"<!DOCTYPE html><html>" * 9,
    "another format": lambda c, rng: (lambda f: f.files.get(f.path, b""))(
        FORMATS[rng.choice(sorted(FORMATS))]
    ),
    "brackets": lambda c, rng: b"[" * 100_000,
}


def sparse(path):
    with open(path, "wb") as stream:
        stream.truncate(1 << 40)


def longer(path):
    """The file as it should be, and a terabyte that takes no room on the disk."""
    os.truncate(path, 1 << 40)


def linked_to_a_pipe(path):
    os.mkfifo("pipe")
    path.symlink_to(Path("pipe").absolute())


def bound(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def instead(make):
    def plant(path):
        path.unlink()
        make(path)

    return plant


SPECIAL = {
    "a pipe": instead(os.mkfifo),
    "a folder": instead(os.mkdir),
    "a socket": instead(bound),
    "a link to itself": instead(lambda path: path.symlink_to(path.name)),
    "a link to nowhere": instead(lambda path: path.symlink_to("/nowhere/at/all")),
    "a link to zeros": instead(lambda path: path.symlink_to("/dev/zero")),
    "a link to a pipe": instead(linked_to_a_pipe),
    "a terabyte of zeros": sparse,
    "a terabyte longer": longer,
    "not there": instead(lambda path: None),
}
CASES = [(name, harm) for name in FORMATS for harm in (*BYTES, *SPECIAL)]


def digest_of(arrays):
    joined = hashlib.sha256()
    for array in arrays:
        joined.update(repr((array.shape, array.dtype.str)).encode())
        joined.update(np.ascontiguousarray(array).tobytes())
    return joined.hexdigest()


@pytest.fixture
def sets(monkeypatch):
    """Sets as small as the files here."""
    mnist = replace(SOURCES["mnist"], files=published(SMALL))
    monkeypatch.setitem(SOURCES, "mnist", mnist)
    monkeypatch.setitem(SOURCES, "tiny-imagenet", replace(SOURCES["tiny-imagenet"], class_count=2))


def plant(made, harm, rng):
    """Put a hostile file in the place of a good one."""
    path = Path(made.path)
    if path.parts[0] == "decoded":
        (folder,) = Path("cache/dualnet/decoded").iterdir()
        path = folder / path.name
    if harm in BYTES:
        path.write_bytes(BYTES[harm](path.read_bytes(), rng))
    else:
        SPECIAL[harm](path)


def attempt(made, capfd):
    """Read a file as a command does; return exit code, standard error, and what was read."""
    read = []

    def main(*_):
        read.append(made.read())

    began = time.monotonic()
    tracemalloc.start()
    try:
        code = exit_code("dualnet", main, [])
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    out, err = capfd.readouterr()
    assert out == "" and most < MOST_MEMORY and time.monotonic() - began < MOST_SECONDS
    return code, err, read[0] if read else None


def check(case, seed, folder, monkeypatch, capfd):
    """Hold one hostile file to what is promised; return what became of it."""
    (name, harm), made = case, FORMATS[case[0]]
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for path, content in made.files.items():
        write(Path(path), content)
    code, err, good = attempt(made, capfd)
    assert (code, err) == (0, ""), f"{name} as it should be"
    if not made.healed:
        shutil.rmtree("cache/dualnet/decoded", ignore_errors=True)
    plant(made, harm, random.Random(seed))
    before = {path for path in folder.rglob("*") if "decoded" not in path.parts}
    try:
        code, err, read = attempt(made, capfd)
        if read is None:
            assert code in (2, 3) and not made.healed, f"{code} {err}"
            assert err.count("\n") == 1 and err[:-1].isprintable(), repr(err)
        else:
            assert (code, err) == (0, "")
            same = digest_of(read) == digest_of(good)
            # A good file of another format may be one that is read here, too.
            exchanged = harm == "another format" and not made.path.startswith(("cache", "decoded"))
            free = exchanged or not made.checked
            assert same or free, "other numbers, and not a word"
            assert all(array.size for array in read)
    except Exception as error:
        pytest.fail(f"{name}, {harm}, seed {seed}: {error!r}")
    after = {path for path in folder.rglob("*") if "decoded" not in path.parts}
    assert after - before <= {folder / "cache", folder / "cache" / "dualnet"}, (name, harm)
    return "refused" if read is None else "the same" if same else "other values"


def check_all(cases, tmp_path, rng, monkeypatch, capfd):
    seeds = rng.integers(0, 1 << 32, len(cases)).tolist()
    found = [
        check(case, seed, tmp_path / str(n), monkeypatch, capfd)
        for n, (case, seed) in enumerate(zip(cases, seeds, strict=True))
    ]
    return {kind: found.count(kind) for kind in sorted(set(found))}


def test_some_hostile_files(sets, tmp_path, rng, monkeypatch, capfd):
    cases = [CASES[n] for n in rng.choice(len(CASES), 60, replace=False)]
    assert check_all(cases, tmp_path, rng, monkeypatch, capfd)["refused"] > 10


@pytest.mark.slow
def test_all_hostile_files(sets, tmp_path, rng, monkeypatch, capfd):
    found = check_all(CASES, tmp_path, rng, monkeypatch, capfd)
    print(len(CASES), found)
    assert sum(found.values()) == len(CASES) >= 300


def test_paths_do_not_steer_the_terminal(ask):
    name = "mine\x1b[31m\n\x07"
    put(name, {**SMALL, FILES[0]: b"damaged"})
    for command in ("train", "evaluate"):
        options = ["--data-dir", name] if command == "train" else [name]
        code, _, err = ask("--dataset", "mnist", *options)
        assert code in (2, 3) and err.count("\n") == 1 and err[:-1].isprintable()
