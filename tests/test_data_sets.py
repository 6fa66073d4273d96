"""Data sets of color images: CIFAR in its forms, folders of images, the cache, reading ahead."""

import hashlib
import io
import itertools
import json
import os
import pickle
import sys
import tarfile
import threading
import time
import warnings
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from data_files import (
    REAL,
    array,
    image_bytes,
    listed,
    mapped,
    photographs,
    pickled,
    put,
    put_tiny_imagenet,
    python_batch,
    records,
    tar,
    whole,
    write,
)
from PIL import Image

from dualnet.data import SOURCES, batches, load, outline
from dualnet.data import sets as sets_module
from dualnet.data.batches import read_ahead
from dualnet.data.cache import IMAGES, LABELS
from dualnet.errors import DataError, UsageError
from dualnet.random import Key

pytestmark = pytest.mark.usefixtures("elsewhere")

CLASSES = SOURCES["cifar10"].classes
ONE_IN = 20
"""So many of the real images are decoded: all of them take half a minute."""


@pytest.fixture(scope="session")
def real():
    """`{split: (images, labels)}` of real CIFAR-10, mixed as in the official files."""
    archive = REAL / "cifar10-jpeg" / "images.tar.xz"
    if not archive.is_file():
        pytest.skip(f"CIFAR-10 is not in {REAL}; set DUALNET_DATA to the folder that holds it")
    read = {"train": ([], []), "test": ([], [])}
    with tarfile.open(archive, "r:xz") as stream:
        files = (member for member in stream if member.isfile())
        for number, member in enumerate(files):
            if number % ONE_IN == 0:
                split, label, _ = member.name.split("/")
                image = Image.open(io.BytesIO(stream.extractfile(member).read())).convert("RGB")
                read[split][0].append(np.asarray(image))
                read[split][1].append(CLASSES.index(label))
    orders = {s: np.random.default_rng(0).permutation(len(v[1])) for s, v in read.items()}
    return {s: tuple(np.array(part)[orders[s]] for part in v) for s, v in read.items()}


def cifar10_files(real, form):
    """`{file: content}` in one of the forms of CIFAR-10."""
    encode, suffix = {"binary": (records, ".bin"), "python": (python_batch, "")}[form]
    images, labels = (np.array_split(part, 5) for part in real["train"])
    files = {f"data_batch_{n}{suffix}": encode(images[n - 1], labels[n - 1]) for n in range(1, 6)}
    return {**files, f"test_batch{suffix}": encode(*real["test"])}


def check_is_real(data, real):
    assert data.train_images.dtype == data.test_images.dtype == np.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == np.int64
    for split in ("train", "test"):
        np.testing.assert_array_equal(getattr(data, f"{split}_images"), real[split][0])
        np.testing.assert_array_equal(getattr(data, f"{split}_labels"), real[split][1])


# CIFAR


@pytest.mark.parametrize("form", ["binary", "python"])
@pytest.mark.parametrize(
    "place", ["DIR/cifar10", "DIR/cifar10/inner", "DIR/inner", "DIR", "archive"]
)
def test_real_cifar10_in_every_form_and_place(tmp_path, real, form, place):
    (known,) = (f for f in SOURCES["cifar10"].forms if f.kind == form)
    files, folder = cifar10_files(real, form), tmp_path / "mine"
    if place == "archive":
        inside = [(f"{known.folder}/{name}", content) for name, content in files.items()]
        readme = (f"{known.folder}/readme.html", b"<html>")
        write(folder / known.archive, tar([readme, *reversed(inside)]))
    else:
        inner = place.removeprefix("DIR").replace("inner", known.folder).strip("/")
        put(folder / inner, files)
    data = load("cifar10", folder, download=False, quiet=True)
    check_is_real(data, real)
    assert (data.name, data.white, data.classes, data.tested_on) == (
        "cifar10",
        255,
        CLASSES,
        "test",
    )
    assert data.train_images.shape == (50_000 // ONE_IN, 32, 32, 3)
    assert np.bincount(data.train_labels).tolist() == [5000 // ONE_IN] * 10
    assert np.bincount(data.test_labels).tolist() == [1000 // ONE_IN] * 10


def test_real_cifar10_has_the_colors_of_cifar10(tmp_path, real):
    """Known means and deviations of the channels: a wrong order of axes would mix them up."""
    put(tmp_path, cifar10_files(real, "binary"))
    data = load("cifar10", tmp_path)
    mean, std = data.training_mean_and_std
    np.testing.assert_allclose(mean, [125.3, 123.0, 113.9], atol=3)
    np.testing.assert_allclose(std, [63.0, 62.1, 66.7], atol=2)
    # neighbors in a row are alike, as they are in photographs
    apart = np.abs(np.diff(data.test_images.astype(float), axis=2)).mean()
    assert apart < 0.25 * np.abs(np.diff(data.test_images.astype(float), axis=0)).mean()


def test_pickles_made_here_are_what_pickle_reads(real):
    """The files that stand in for the official ones are pickles of the right things."""
    images, labels = real["test"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy.core has another name by now
        held = pickle.loads(python_batch(images, labels), encoding="bytes")
    assert held[b"labels"] == labels.tolist()
    assert (held[b"data"].dtype, held[b"data"].shape) == (np.uint8, (len(images), 3072))
    np.testing.assert_array_equal(
        held[b"data"].reshape(-1, 3, 32, 32), images.transpose(0, 3, 1, 2)
    )


@pytest.mark.parametrize("form", ["binary", "python"])
def test_cifar100_has_the_fine_labels(tmp_path, rng, form):
    images = rng.integers(0, 256, (130, 32, 32, 3), np.uint8)
    fine, coarse = np.arange(130) % 100, np.arange(130) % 20
    if form == "binary":
        files = {f"{s}.bin": records(images, coarse, fine) for s in ("train", "test")}
    else:
        files = {s: python_batch(images, fine, b"fine_labels") for s in ("train", "test")}
    put(tmp_path, files)
    data = load("cifar100", tmp_path, download=False)
    np.testing.assert_array_equal(data.train_images, images)
    assert data.train_labels.tolist() == data.test_labels.tolist() == fine.tolist()
    assert [data.classes[n] for n in (0, 8, 99)] == ["apple", "bicycle", "worm"]


def test_fortran_order_in_a_pickle(tmp_path, rng):
    images = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    rows = images.transpose(0, 3, 1, 2).reshape(4, -1)
    data = array(rows.shape, rows.tobytes("F"), fortran=b"\x88")
    labels = listed(map(whole, range(4)))
    batch = pickled(mapped({b"fine_labels": labels, b"data": data}))
    put(tmp_path, {"train": batch, "test": batch})
    np.testing.assert_array_equal(load("cifar100", tmp_path).train_images, images)


def test_missing_cifar_says_where_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"no mirror works .* put cifar-10-binary\.tar\.gz or ci"):
        load("cifar10", quiet=True)
    with pytest.raises(DataError, match="expected the files of cifar10, found none of them; put"):
        load("cifar10", tmp_path, quiet=True)
    write(tmp_path / "data_batch_2.bin", b"")
    with pytest.raises(DataError, match=r"found only .*data_batch_2\.bin; add data_batch_1\.bin, "):
        load("cifar10", tmp_path, quiet=True)


# Pixels, limits, validation


def small(rng, n=50):
    data = load("digits")
    images = rng.integers(0, 256, (n, 6, 5, 3), np.uint8)
    images[..., 1] //= 2
    images[..., 2] = 77
    return replace(data, train_images=images, test_images=images, white=255)


def test_standard_pixels_by_channel(rng):
    data = small(rng, 600)
    mean, std = data.training_mean_and_std
    exact = data.train_images.astype(np.float64).reshape(-1, 3)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-14)
    np.testing.assert_allclose(std, [*exact.std(0)[:2], 1.0], rtol=1e-12)
    for dtype in (np.float32, np.float64):
        pixels = data.pixels(data.train_images, dtype)
        assert pixels.dtype == dtype
        np.testing.assert_allclose(pixels.mean((0, 1, 2), np.float64), 0, atol=1e-6)
        np.testing.assert_allclose(pixels.std((0, 1, 2), np.float64), [1, 1, 0], atol=1e-6)
        np.testing.assert_array_equal(data.pixels(data.train_images[7], dtype), pixels[7])


def test_validation_takes_training_images_away():
    whole = load("digits")
    data = load("digits", validation=300)
    assert (len(data.train_labels), len(data.test_labels)) == (1240, 300)
    assert (data.tested_on, whole.tested_on) == ("validation", "test")
    kept, held = data.train_images[:], data.test_images[:]
    assert (kept.shape, held.shape) == (data.train_images.shape, data.test_images.shape)
    both = {row.tobytes() for row in np.concatenate([kept, held])}
    assert both == {row.tobytes() for row in whole.train_images}  # all digits differ
    of = {row.tobytes(): n for row, n in zip(whole.train_images, whole.train_labels, strict=True)}
    for images, labels in ((kept, data.train_labels), (held, data.test_labels)):
        assert [of[row.tobytes()] for row in images] == labels.tolist()
    chosen = np.array([5, 0, 5])
    np.testing.assert_array_equal(data.train_images[chosen], kept[[5, 0, 5]])


def test_validation_is_a_fixed_split():
    first, again = (load("digits", validation=n).test_images[:] for n in (300, 300))
    np.testing.assert_array_equal(first, again)
    fewer = {row.tobytes() for row in load("digits", validation=100).test_images[:]}
    assert fewer < {row.tobytes() for row in first}  # the last of one and the same shuffle
    assert len(load("digits", validation=9, limit_train=10).train_labels) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0}, "load: validation: expected a whole number from 1 up, got 0"),
        ({"validation": 1540}, "load: validation: expected a whole number from 1 to 1539, got 15"),
        ({"validation": 9, "limit_train": 9}, "validation: expected a whole number from 1 to 8"),
        ({"validation": 9, "limit_test": 9}, "load: limit_test: expected none with validation"),
        ({"limit_train": 1541}, "limit_train: expected a whole number from 1 to 1540, got 1541"),
        ({"limit_test": 258}, "load: limit_test: expected a whole number from 1 to 257, got 258"),
        ({"image_size": 7}, "image_size: expected at least the 8 pixels that digits has, got 7"),
        ({"image_size": 4096}, "load: image_size: expected a whole number from 1 to 1024"),
    ],
)
def test_numbers_that_make_no_sense(options, message):
    with pytest.raises(UsageError, match=message):
        load("digits", **options)


# The cache


@pytest.fixture
def counted(monkeypatch):
    """Counts how often CIFAR is read anew."""
    calls = []
    read = sets_module.read_cifar
    monkeypatch.setattr(sets_module, "read_cifar", lambda *args: calls.append(args) or read(*args))
    return calls


@pytest.fixture
def mine(tmp_path, rng):
    """A folder with a small CIFAR-100."""
    for split in ("train", "test"):
        images = rng.integers(0, 256, (20, 32, 32, 3), np.uint8)
        write(tmp_path / "mine" / f"{split}.bin", records(images, range(20), range(20)))
    return tmp_path / "mine"


def the_cache(tmp_path):
    (folder,) = (tmp_path / "cache" / "dualnet" / "decoded").iterdir()
    return folder


def test_decoded_once(tmp_path, mine, counted):
    first, again = load("cifar100", mine), load("cifar100", mine)
    assert len(counted) == 1
    for data in (first, again):
        assert not data.on_disk and type(data.train_images) is np.ndarray
    np.testing.assert_array_equal(first.train_images, again.train_images)
    assert sorted(p.name for p in the_cache(tmp_path).iterdir()) == sorted(
        ["index.json", *(f"{name}.npy" for name in IMAGES + LABELS)]
    )


def test_cache_of_changed_files_is_made_anew(mine, counted, rng):
    load("cifar100", mine)
    images = rng.integers(0, 256, (20, 32, 32, 3), np.uint8)
    path = write(mine / "train.bin", records(images, range(20), range(20)))
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(load("cifar100", mine).train_images, images)
    assert len(counted) == 2


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "flipped": flip,
    "missing": lambda path: path.unlink(),
    "text": lambda path: path.write_text("<html>"),
    "nested": lambda path: path.write_text("[" * 50_000),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["index.json", *(f"{name}.npy" for name in IMAGES + LABELS)])
def test_damaged_cache_is_made_anew(tmp_path, mine, counted, file, damage):
    before = load("cifar100", mine)
    expected = before.train_images.copy(), before.test_images.copy()
    DAMAGES[damage](the_cache(tmp_path) / file)
    data = load("cifar100", mine)
    assert len(counted) == 2
    np.testing.assert_array_equal(data.train_images, expected[0])
    np.testing.assert_array_equal(data.test_images, expected[1])
    assert data.train_labels.tolist() == list(range(20))
    load("cifar100", mine)
    assert len(counted) == 2


@pytest.mark.parametrize("values", [np.array([{}] * 20), np.zeros(20), np.zeros((20, 1), np.int64)])
def test_cache_with_other_arrays_is_made_anew(tmp_path, mine, counted, values):
    """Even with the right checksum; an array of objects would be unpickled."""
    load("cifar100", mine)
    folder = the_cache(tmp_path)
    np.save(folder / "train_labels.npy", values, allow_pickle=True)
    index = json.loads((folder / "index.json").read_text())
    content = (folder / "train_labels.npy").read_bytes()
    index["digests"]["train_labels"] = [len(content), hashlib.sha256(content).hexdigest()]
    (folder / "index.json").write_text(json.dumps(index))
    assert load("cifar100", mine).train_labels.tolist() == list(range(20))
    assert len(counted) == 2


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError, SystemExit])
def test_half_written_cache_is_not_there(tmp_path, mine, monkeypatch, stop):
    write_array = sets_module.write_array

    def interrupted(path, *args):
        write_array(path, *args)
        if "test_images" in str(path):
            raise stop

    monkeypatch.setattr(sets_module, "write_array", interrupted)
    with pytest.raises(stop):
        load("cifar100", mine)
    assert list((tmp_path / "cache" / "dualnet" / "decoded").iterdir()) == []


def test_cache_folder_can_be_named(tmp_path, mine, monkeypatch, counted):
    monkeypatch.setenv("DUALNET_CACHE", str(tmp_path / "other"))
    load("cifar100", mine)
    assert [p.name for p in tmp_path.iterdir() if p != mine] == ["other"]
    monkeypatch.setenv("DUALNET_CACHE", str(write(tmp_path / "file", b"") / "x"))
    with pytest.raises(DataError, match=r"expected a cache folder .* DUALNET_CACHE") as error:
        load("cifar100", mine)
    assert "\n" not in str(error.value)


# Folders of images


def test_tiny_imagenet(tmp_path, rng):
    colors = put_tiny_imagenet(tmp_path / "tiny-imagenet-200", rng)
    data = load("tiny-imagenet", tmp_path, quiet=True)
    assert data.train_images.shape == (400, 64, 64, 3)
    assert data.test_images.shape == (200, 64, 64, 3)
    assert len(data.classes) == 200 and data.classes[1] == "n00001007"
    for images, labels, prefix in (
        (data.train_images, data.train_labels, "n"),
        (data.test_images, data.test_labels, "val_"),
    ):
        for label in range(200):
            found = images[labels == label].astype(int)
            drawn = [c for file, (n, c) in colors.items() if n == label and file.startswith(prefix)]
            assert len(found) == len(drawn)
            # Each file is one of the images, in some order: two colors may be nearly the same.
            orders = itertools.permutations(np.array(drawn)[:, None, None])
            assert min(np.abs(found - order).max() for order in orders) <= 3  # JPEG
    assert len(set(data.train_labels[:20].tolist())) > 10  # classes are mixed
    few = load("tiny-imagenet", tmp_path, limit_train=10, limit_test=5, quiet=True)
    np.testing.assert_array_equal(few.train_images, data.train_images[:10])
    np.testing.assert_array_equal(few.test_labels, data.test_labels[:5])
    assert outline("tiny-imagenet") == ((64, 64, 3), 200)  # needs no files


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../../train/x.JPEG\tn00001000", r"val_annotations.txt: expected a file of .*'\.\./"),
        ("val_0.JPEG\tn00001000", "expected a file of .* each once"),  # a second time
        ("val_1.JPEG\tcat", "and a class"),
        ("\x00", "and a class"),
        ("", "and a class"),
    ],
)
def test_wrong_annotations(tmp_path, rng, line, message):
    put_tiny_imagenet(tmp_path, rng, per_class=1)
    path = tmp_path / "val" / "val_annotations.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=message) as error:
        load("tiny-imagenet", tmp_path, quiet=True)
    assert "\n" not in str(error.value)
    path.write_text(path.read_text().partition("\n")[2].replace(line + "\n", ""))
    with pytest.raises(DataError, match=r"expected a line for val_0\.JPEG, found none"):
        load("tiny-imagenet", tmp_path, quiet=True)


def put_folder(folder, rng, classes=("cat", "dog"), count=3, size=(40, 60), **how):
    for split in ("train", "val"):
        for name in classes:
            for n, pixels in enumerate(photographs(rng, count, *size)):
                write(folder / split / name / f"{n}.png", image_bytes(pixels, **how))


def test_imagenet_folder_scales_and_crops(tmp_path, rng):
    folder = tmp_path / "imagenet-folder"
    put_folder(folder, rng)
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96, 0] = 255  # what is left of it is all red, the sides are cut off
    for name in ("a.PNG", ".hidden.png", "notes.txt"):
        write(folder / "train" / "cat" / name, image_bytes(wide))
    data = load("imagenet-folder", tmp_path, image_size=32, quiet=True)
    assert data.classes == ("cat", "dog")
    assert np.bincount(data.train_labels).tolist() == [4, 3]
    assert data.test_images.shape == (6, 32, 32, 3)
    red = [image for image in data.train_images if not image[..., 1:].any()]
    assert len(red) == 1 and (red[0][:, 2:-2, 0] > 250).all() and red[0].mean() > 80
    assert load("imagenet-folder", tmp_path, quiet=True).test_images.shape == (6, 64, 64, 3)
    assert outline("imagenet-folder", tmp_path, 32) == ((32, 32, 3), 2)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_other_modes_become_colors(tmp_path, mode):
    gray = np.full((64, 64, 3), 255, np.uint8)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    for split in ("train", "val"):
        write(tmp_path / split / "white" / "a.jpg", image_bytes(gray, kind, mode))
    assert (load("imagenet-folder", tmp_path, quiet=True).train_images[:] > 250).all()


def test_folders_that_do_not_fit(tmp_path, rng):
    for name in ("tiny-imagenet", "imagenet-folder"):
        with pytest.raises(DataError, match=r"expected its folders train and val in .* get it"):
            load(name)
        with pytest.raises(DataError, match=f"expected {name}'s folders train and val, found none"):
            load(name, tmp_path)
    put_folder(tmp_path, rng)
    with pytest.raises(DataError, match="expected 200 folders, one for each class, found 2"):
        load("tiny-imagenet", tmp_path)
    with pytest.raises(UsageError, match="limit_train: expected a whole number from 1 to 6, got 7"):
        load("imagenet-folder", tmp_path, limit_train=7)
    write(tmp_path / "val" / "cow" / "a.png", b"")
    with pytest.raises(DataError, match="expected a class of the training set"):
        load("imagenet-folder", tmp_path)
    (tmp_path / "train" / "cow").mkdir()
    with pytest.raises(
        DataError, match=r"cow: expected files \*\.jpeg \*\.jpg \*\.png, found none"
    ):
        load("imagenet-folder", tmp_path)


def test_without_pillow(tmp_path, rng, monkeypatch):
    put_folder(tmp_path, rng)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(
        DataError, match=r"expected Pillow, .* pip install 'dualnet\[images\]'"
    ) as e:
        load("imagenet-folder", tmp_path)
    assert "\n" not in str(e.value)
    assert len(load("digits").train_labels) == 1540  # what needs no Pillow works


# Reading ahead


def test_reading_ahead_gives_the_same_in_the_same_order(rng):
    data = small(rng)
    order = batches(50, 7, Key(0))
    for on_disk in (False, True):
        read = list(replace(data, on_disk=on_disk).training_batches(order))
        assert len(read) == len(order)
        for (images, labels), chosen in zip(read, order, strict=True):
            np.testing.assert_array_equal(images, data.train_images[chosen])
            np.testing.assert_array_equal(labels, data.train_labels[chosen])
    assert list(read_ahead(str, [])) == []
    assert list(read_ahead(str, range(2))) == ["0", "1"]


def reading_threads():
    return [t for t in threading.enumerate() if t.name.startswith("batches")]


def test_reading_goes_on_during_a_step_but_not_too_far():
    began = []

    def read(n):
        began.append((n, threading.current_thread().name))
        return n

    with closing(read_ahead(read, range(99))) as ahead:
        assert next(ahead) == 0
        deadline = time.monotonic() + 60  # on a busy machine the thread waits for its turn
        while len(began) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert [n for n, _ in began] == [0, 1, 2]  # the one in use, and two ahead
        assert all(name.startswith("batches") for _, name in began)
    assert reading_threads() == []
    assert len(began) == 3


def test_an_error_of_the_thread_is_met_where_the_batch_is_asked_for():
    def read(n):
        if n == 3:
            raise DataError("the disk has gone")
        return n

    got = []
    with pytest.raises(DataError, match="the disk has gone"):
        for n in read_ahead(read, range(9)):
            got.append(n)
    assert got == [0, 1, 2]
    assert reading_threads() == []


RUN = (
    "--dataset imagenet-folder --image-size 8 --width 4 --epochs 2 --batch-size 4 --quiet "
    "--data-dir photographs"
).split()


def test_a_run_reads_ahead_to_the_same_numbers(tmp_path, rng, monkeypatch, ask):
    put_folder(tmp_path / "photographs", rng, count=10)
    code, out, _ = ask(*RUN, "--run-dir", "ahead", "--validation", 5)
    assert code == 0 and out.startswith("validation accuracy 0.")
    monkeypatch.setattr("dualnet.data.dataset.read_ahead", map)
    assert ask(*RUN, "--run-dir", "plain", "--validation", 5)[0] == 0
    rows = [
        [line.split(",")[:-1] for line in (tmp_path / d / "metrics.csv").read_text().split()]
        for d in ("ahead", "plain")
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 3
    assert (
        json.loads((tmp_path / "ahead" / "summary.json").read_text())["tested_on"] == "validation"
    )
    assert reading_threads() == []


def test_an_interrupted_run_ends_its_thread(tmp_path, rng, monkeypatch, ask):
    put_folder(tmp_path / "photographs", rng, count=10)
    from dualnet.training import loop

    steps = []

    def interrupted(*args):
        steps.append(len(reading_threads()))
        if len(steps) == 3:
            raise KeyboardInterrupt
        return step(*args)

    step = loop.estimate_gradient
    monkeypatch.setattr(loop, "estimate_gradient", interrupted)
    assert ask(*RUN, "--run-dir", "run")[0] == 130
    assert steps == [1, 1, 1]
    assert reading_threads() == []
