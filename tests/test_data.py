"""Data sets: the real files, damaged files, where files are looked for, downloads, batches."""

import gzip
import hashlib
import http.server
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import DEAD, FILES, REAL, header, idx, published, put, small_set, write
from https_server import server_context

from dualnet.data import NAMES, SOURCES, batches, connection, load, locate, outline, read_idx
from dualnet.data.download import digest, fetch
from dualnet.data.idx import MAX_BYTES
from dualnet.data.sources import RemoteFile
from dualnet.errors import DataError, UsageError
from dualnet.naming import as_flags
from dualnet.random import Key

REAL_SOURCES = dict(SOURCES)
BESIDE_CHECKOUT = locate._beside_checkout
pytestmark = pytest.mark.usefixtures("no_outside")


def need_real(name):
    if not (REAL / name).is_dir():
        pytest.skip(f"{name} is not in {REAL}; set DUALNET_DATA to the folder that holds it")


def flip(content, at, bits=1):
    content = bytearray(content)
    content[at] ^= bits
    return bytes(content)


def message_of(error):
    """The text of an error, after a check of what all of them have in common."""
    text = str(error.value)
    assert "\n" not in text
    assert "expected" in text
    return text


# Reading IDX files


VALUES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", ["a.gz", "a"])
def test_idx_is_read_whatever_its_name(tmp_path, pack, name):
    path = write(tmp_path / name, pack(idx(VALUES)))
    for shape in (None, (3, 4, 5), (None, 4, 5), (None, None, None)):
        read = read_idx(path, shape)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, VALUES)
    read[0, 0, 0] = 9  # a new array, which the caller may write to
    np.testing.assert_array_equal(read_idx(str(path), (3, 4, 5)), VALUES)
    for shape in ((60,), (2, 30), (1, 3, 4, 5)):
        values = VALUES.reshape(shape)
        np.testing.assert_array_equal(read_idx(write(path, pack(idx(values)))), values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an IDX file, .* found b''"),
        (b"\0\0\x08", "expected an IDX file"),
        (b"<!DOCTYPE html>", "begins with two zero bytes, found b'<!DO'"),
        (b"\0\1\x08\1" + bytes(8), "expected an IDX file"),
        (b"\1\0\x08\1" + bytes(8), "expected an IDX file"),
        (header(2, code=0x0D) + bytes(8), "type code 0x08, found type code 0x0d"),
        (header(2, code=0x09) + bytes(2), "type code 0x08, found type code 0x09"),
        (header() + bytes(1), "expected 1 to 4 axes, found 0"),
        (header(1, 1, 1, 1, 1) + bytes(1), "expected 1 to 4 axes, found 5"),
        (b"\0\0\x08\xff" + bytes(99), "expected 1 to 4 axes, found 255"),
        (header(3, 4, 5)[:-1], "expected sizes for 3 axes, found 11 bytes"),
        (header(3, 4, 5), r"expected 60 bytes .* \(3, 4, 5\), found only 0"),
        (idx(VALUES)[:-1], "expected 60 bytes .* found only 59"),
        (idx(VALUES) + b"\0", "expected 60 bytes .* found more"),
        (header(0), "expected 1 to .* values, found a header that says"),
        (header(0, 2**32 - 1, 2**32 - 1, 2**32 - 1), "expected 1 to .* values"),
        (header(MAX_BYTES + 1), f"expected 1 to {MAX_BYTES} values"),
        (header(2**16, 2**16, 2**16, 2**16), "expected 1 to .* values"),
        (header(2**32 - 1, 2**32 - 1), "expected 1 to .* values"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_bad_idx_is_an_error(tmp_path, content, message, pack):
    path = write(tmp_path / "bad", pack(content))
    with pytest.raises(DataError, match=message) as error:
        read_idx(path)
    assert message_of(error).startswith(f"{path}: expected ")
    assert "delete it and get it again" in str(error.value)


@pytest.mark.parametrize(
    "shape", [(3, 4), (4, 5), (None, 4, 6), (2, 4, 5), (60,), (3, 4, 5, 1), (3, 5, 4), ()]
)
def test_other_shape_is_an_error(tmp_path, shape):
    path = write(tmp_path / "a", idx(VALUES))
    sizes = " x ".join("any" if size is None else str(size) for size in shape)
    with pytest.raises(DataError, match=f"expected shape {sizes}, found 3 x 4 x 5") as error:
        read_idx(path, shape, remedy="ask Ada")
    assert message_of(error).endswith("; ask Ada")


def test_unreadable_file_is_an_error(tmp_path):
    for path in (tmp_path, tmp_path / "none", tmp_path / "none" / "none"):
        with pytest.raises(DataError, match="expected a readable file") as error:
            read_idx(path)
        assert message_of(error).startswith(f"{path}: ")


def test_every_truncation_is_an_error(tmp_path):
    for content in (idx(VALUES), gzip.compress(idx(VALUES), mtime=0)):
        for length in range(len(content)):
            path = write(tmp_path / "cut", content[:length])
            with pytest.raises(DataError) as error:
                read_idx(path)
            message_of(error)


def test_every_bit_of_the_gzip_checksum_counts(tmp_path):
    content = gzip.compress(idx(VALUES), mtime=0)
    for bit in range(8 * 8):  # CRC and length: the last eight bytes
        flipped = flip(content, -8 + bit // 8, 1 << bit % 8)
        with pytest.raises(DataError, match="expected intact gzip data"):
            read_idx(write(tmp_path / "flip", flipped))


@pytest.mark.parametrize(
    ("level", "damage", "found"),
    [
        # Stored, not compressed: a valid stream with another value in it.
        (0, lambda content: flip(content, -20, 4), "found Error -3"),
        # A block of type 3, which does not exist.
        (9, lambda content: flip(content, 10, ~content[10] & 0b110), "found Error -3"),
        (9, lambda content: content + b"x", ""),
        (9, lambda content: content + b"\x1f\x8b", ""),
        (9, lambda content: content + gzip.compress(b"") * (1 << 16), "found they have more than"),
        (9, lambda content: content + gzip.compress(b"x"), "found more"),
    ],
)
def test_damaged_gzip_data_are_an_error(level, damage, found, tmp_path):
    content = gzip.compress(idx(VALUES), compresslevel=level, mtime=0)
    with pytest.raises(DataError, match=f"expected .*{found}"):
        read_idx(write(tmp_path / "bad", damage(content)))


def test_digest_reads_no_more_than_it_may(tmp_path):
    path = write(tmp_path / "a", gzip.compress(bytes(1000)))
    assert digest(path, 10) == (10, hashlib.sha256(bytes(10)).hexdigest())
    assert digest(path, 1001) == (1000, hashlib.sha256(bytes(1000)).hexdigest())


# The data sets


def test_names_and_descriptions():
    files = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100")
    assert NAMES == (*files, "tiny-imagenet", "imagenet-folder")
    for name in NAMES:
        assert SOURCES[name].description
        assert "\n" not in SOURCES[name].description
        assert len(set(SOURCES[name].classes)) == {"cifar100": 100}.get(name, 10 * (name in files))
    for name in ("mnist", "fashion-mnist"):
        assert len(REAL_SOURCES[name].mirrors) == 2


def test_digits(tmp_path, monkeypatch):
    """It takes no notice of folders."""
    monkeypatch.setenv("DUALNET_DATA", str(tmp_path / "none"))
    data = load("digits", tmp_path / "none", download=False)
    assert (data.name, data.white) == ("digits", 16)
    assert data.classes == tuple("0123456789")
    assert data.train_images.shape == (1540, 8, 8, 1)
    assert data.test_images.shape == (257, 8, 8, 1)
    assert data.train_labels.shape == (1540,)
    assert data.test_labels.shape == (257,)
    for images in (data.train_images, data.test_images):
        assert images.dtype == np.uint8
        assert (images.min(), images.max()) == (0, 16)
    for labels in (data.train_labels, data.test_labels):
        assert labels.dtype == np.int64
    # The counts that digits/SOURCE.md states.
    train = [152, 157, 151, 159, 156, 155, 153, 156, 146, 155]
    test = [26, 25, 26, 24, 25, 27, 28, 23, 28, 25]
    assert np.bincount(data.train_labels).tolist() == train
    assert np.bincount(data.test_labels).tolist() == test
    # The file begins with three times 0 to 9; images 3, 10, 17, ... of it are for test.
    assert data.test_labels[:4].tolist() == [3, 0, 7, 4]
    assert data.train_labels[:9].tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_nearest_neighbors_of_digits():
    """The two figures of digits/SOURCE.md that say why the split is where it is."""

    def right(train, test):
        gaps = [np.square(images[train] - image).sum(1).argmin() for image in images[test]]
        return np.mean(labels[train][gaps] == labels[test])

    data = load("digits")
    number = np.arange(1797)
    test = number % 7 == 3
    images, labels = np.zeros((1797, 64)), np.zeros(1797, int)
    images[~test], images[test] = (
        data.train_images.reshape(-1, 64),
        data.test_images.reshape(-1, 64),
    )
    labels[~test], labels[test] = data.train_labels, data.test_labels
    assert round(100 * right(~test, test), 1) == 98.4
    assert round(100 * right(number < 1437, number >= 1437), 1) == 95.6


def test_digits_are_the_published_images():
    # The first row of the published file, as rows of the image.
    first = [
        [0, 0, 5, 13, 9, 1, 0, 0],
        [0, 0, 13, 15, 10, 15, 5, 0],
        [0, 3, 15, 2, 0, 11, 8, 0],
        [0, 4, 12, 0, 0, 8, 8, 0],
        [0, 5, 8, 0, 0, 9, 8, 0],
        [0, 4, 11, 0, 1, 12, 7, 0],
        [0, 2, 14, 5, 10, 12, 0, 0],
        [0, 0, 6, 13, 10, 0, 0, 0],
    ]
    data = load("digits")
    assert data.train_images[0, :, :, 0].tolist() == first
    images = np.concatenate([data.train_images, data.test_images])
    assert len(np.unique(images, axis=0)) == 1797


def test_damaged_digits_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("dualnet.data.idx_sets._DIGITS", tmp_path)
    with pytest.raises(DataError, match="install dualnet again") as error:
        load("digits")
    message_of(error)


# MD5 sums of the decompressed files as their publishers' archives give them.
MD5 = {
    "mnist": (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    "fashion-mnist": (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
}


@pytest.mark.parametrize(
    ("name", "first_labels", "mean"),
    [("mnist", [5, 0, 4, 1, 9, 2], 33.318), ("fashion-mnist", [9, 0, 0, 3, 0, 2], 72.940)],
)
def test_real_set(name, first_labels, mean):
    need_real(name)
    data = load(name, REAL, download=False)
    assert (data.name, data.white, data.classes) == (name, 255, SOURCES[name].classes)
    assert data.train_images.shape == (60000, 28, 28, 1)
    assert data.test_images.shape == (10000, 28, 28, 1)
    assert data.train_images.dtype == data.test_images.dtype == np.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == np.int64
    assert data.train_labels[:6].tolist() == first_labels
    assert set(data.test_labels.tolist()) == set(range(10))
    assert data.train_images.mean() == pytest.approx(mean, abs=1e-3)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_pinned_checksums_are_those_of_the_real_files(name):
    need_real(name)
    for file, md5 in zip(SOURCES[name].files, MD5[name], strict=True):
        path = REAL / name / f"{file.name}.gz"
        assert digest(path, file.size + 1) == (file.size, file.sha256)
        content = gzip.decompress(path.read_bytes())
        assert hashlib.md5(content, usedforsecurity=False).hexdigest() == md5


@pytest.mark.parametrize(
    ("name", "other"), [("mnist", "fashion-mnist"), ("fashion-mnist", "mnist")]
)
def test_the_other_set_is_not_taken_for_it(name, other):
    need_real(other)
    with pytest.raises(DataError, match=f"expected a file of {name}, found one of {other}") as e:
        load(name, REAL / other, download=False)
    message_of(e)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, "float32"])
def test_pixels(dtype):
    for name, white in (("digits", 16), ("any", 255)):
        data = replace(load("digits"), name=name, white=white)
        images = np.arange(white + 1, dtype=np.uint8).reshape(1, -1, 1, 1)
        pixels = data.pixels(images, dtype, "symmetric")
        assert pixels.dtype == dtype
        assert pixels.shape == images.shape
        assert pixels.min() == pixels[0, 0, 0, 0] == -1
        assert pixels.max() == pixels[0, -1, 0, 0] == 1
        np.testing.assert_allclose(np.diff(pixels[0, :, 0, 0]), 2 / white, rtol=2e-5)
        assert images[0, -1, 0, 0] == white  # not changed in place


def test_pixels_refuses_other_kinds():
    data = load("digits")
    with pytest.raises(UsageError, match="pixels: images: expected uint8, got float32"):
        data.pixels(data.pixels(data.test_images, np.float32), np.float32)
    with pytest.raises(UsageError, match="pixels: dtype: expected float32 or float64"):
        data.pixels(data.test_images, np.int64)
    with pytest.raises(
        UsageError, match="pixels: scale: expected one of standard, symmetric, none, got 'no'"
    ):
        data.pixels(data.test_images, np.float32, "no")


def test_data_set_is_frozen():
    with pytest.raises(AttributeError):
        load("digits").white = 255


def test_limits():
    whole = load("digits")
    data = load("digits", limit_train=10, limit_test=np.int64(1))
    np.testing.assert_array_equal(data.train_images, whole.train_images[:10])
    np.testing.assert_array_equal(data.train_labels, whole.train_labels[:10])
    np.testing.assert_array_equal(data.test_images, whole.test_images[:1])
    np.testing.assert_array_equal(data.test_labels, whole.test_labels[:1])
    assert len(load("digits", limit_train=1540, limit_test=257).train_labels) == 1540


@pytest.mark.parametrize("limit", [0, -1, 2.0, True, "3"])
@pytest.mark.parametrize("argument", ["limit_train", "limit_test"])
def test_bad_limit_is_an_error_before_any_file_is_looked_for(argument, limit):
    for name in NAMES:
        match = f"load: {argument}: expected a whole number from 1 up, got {limit!r}"
        with pytest.raises(UsageError, match=match):
            load(name, **{argument: limit})


@pytest.mark.parametrize("name", ["minst", "", None, "cifar", "../mnist"])
def test_unknown_name_is_an_error(name):
    for function in (load, outline):
        match = f"{function.__name__}: name: expected one of digits, mnist, fashion-mnist, .*, got"
        with pytest.raises(UsageError, match=match):
            function(name)


# Where files are looked for


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("inside", [True, False], ids=["DIR/name/file", "DIR/file"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("origin", ["argument", "variable", "cache"])
def test_places_and_forms(tmp_path, monkeypatch, name, inside, suffix, origin):
    folder = tmp_path / "cache" / "dualnet" if origin == "cache" else tmp_path / "mine"
    contents = small_set()
    use_mirrors(monkeypatch, DEAD, name=name, files=published(contents))
    put(folder / name if inside else folder, contents, suffix)
    if origin == "variable":
        monkeypatch.setenv("DUALNET_DATA", str(folder))
    data = load(name, str(folder) if origin == "argument" else None, download=False)
    assert data.train_images.shape == (7, 28, 28, 1)
    assert data.test_images.shape == (3, 28, 28, 1)
    assert data.train_images.tobytes() == contents[FILES[0]][16:]
    assert data.train_labels.tolist() == list(contents[FILES[1]][8:])
    assert data.test_images.tobytes() == contents[FILES[2]][16:]
    assert data.test_labels.tolist() == list(contents[FILES[3]][8:])


def test_argument_before_variable_before_cache(tmp_path, monkeypatch):
    places = [tmp_path / "argument", tmp_path / "variable", tmp_path / "cache" / "dualnet"]
    for n, place in enumerate(places, start=1):
        put(place / "mnist", small_set(n_train=n))
    use_mirrors(monkeypatch, DEAD, files=published(small_set(n_train=3)))
    monkeypatch.setenv("DUALNET_DATA", str(places[1]))

    def found(data_dir=None):
        return len(load("mnist", data_dir, download=False).train_labels)

    assert found(places[0]) == 1
    assert found() == 2
    # Without the files in the variable's folder, the cache comes next; an argument must have them.
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="/none': expected the files of mnist, found none of them"):
        found(tmp_path / "none")
    monkeypatch.setenv("DUALNET_DATA", str(tmp_path / "none"))
    assert found() == 3
    monkeypatch.setenv("DUALNET_DATA", "")  # unset, and not the working folder
    monkeypatch.chdir(places[0])
    assert found() == 3


def test_named_folder_before_the_folder_itself(tmp_path):
    put(tmp_path, small_set(n_train=1))
    put(tmp_path / "mnist", small_set(n_train=2))
    assert len(load("mnist", tmp_path).train_labels) == 2
    assert len(load("fashion-mnist", tmp_path).train_labels) == 1


def test_folder_with_the_name_of_a_file_is_passed_over(tmp_path):
    put(tmp_path, small_set(), ".gz")
    (tmp_path / FILES[0]).mkdir()  # some unpacking tools make these
    assert len(load("mnist", tmp_path, download=False).train_labels) == 7


def test_home_cache(tmp_path, monkeypatch):
    put(tmp_path / ".cache" / "dualnet" / "mnist", small_set())
    use_mirrors(monkeypatch, DEAD, files=published(small_set()))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for ignored in ("", "cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert len(load("mnist", download=False).train_labels) == 7


def test_no_home_is_an_error(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(DataError, match="set DUALNET_DATA or DUALNET_CACHE") as error:
        load("mnist", download=False)
    message_of(error)


def test_missing_set_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"^mnist: .*downloads are off") as error:
        load("mnist", download=False)
    text = message_of(error)
    for part in (*FILES, str(tmp_path / "cache" / "dualnet"), "data_dir='DIR'", "DUALNET_DATA"):
        assert part in text
    with as_flags(), pytest.raises(DataError, match="name it with --data-dir DIR or the env"):
        load("mnist", download=False)


@pytest.mark.parametrize("name", ["mnist", "tiny-imagenet"])
def test_a_folder_that_does_not_exist_is_an_error(tmp_path, monkeypatch, name):
    """And no reason to download, whoever names it."""
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "mien", tmp_path / "file"):
        with pytest.raises(DataError, match=r"^data_dir='/.*': expected a folder .*, found no fol"):
            load(name, wrong)
        with as_flags(), pytest.raises(DataError, match=f"^--data-dir {wrong}: expected a folder"):
            load(name, wrong)
        with monkeypatch.context() as patch:
            patch.setenv("DUALNET_DATA", str(wrong))
            with pytest.raises(DataError, match=f"^DUALNET_DATA={wrong}: expected a folder"):
                load(name)


def test_a_folder_without_the_set_is_an_error_and_not_a_download(tmp_path, monkeypatch, server):
    use_mirrors(monkeypatch, server.mirror("good"))
    put(tmp_path / "mine" / "fashion-mnist", small_set())
    with pytest.raises(DataError, match=r"^data_dir='.*/mine': expected the files of mnist, found"):
        load("mnist", tmp_path / "mine", quiet=True)
    assert server.asked == []


def test_the_folder_beside_a_checkout_is_the_users(tmp_path, monkeypatch):
    """For tests and `train.py` alike, and not where the package is installed."""
    monkeypatch.setattr(locate, "_beside_checkout", BESIDE_CHECKOUT)
    monkeypatch.setattr(locate, "__file__", str(tmp_path / "checkout" / "dualnet" / "data" / "a"))
    put(tmp_path / "shared" / "data" / "mnist", small_set())
    assert locate.user_folder() is None
    write(tmp_path / "checkout" / "pyproject.toml", b"")
    assert len(load("mnist", download=False).train_labels) == 7
    monkeypatch.setenv("DUALNET_DATA", str(tmp_path))
    assert locate.user_folder() == tmp_path


def test_part_of_a_set_in_the_users_folder_is_an_error(tmp_path):
    contents = small_set()
    del contents[FILES[3]]
    put(tmp_path / "mine" / "mnist", contents)
    put(tmp_path / "cache" / "dualnet" / "mnist", small_set())  # is not mixed in
    with pytest.raises(DataError, match=f"found only .*add {FILES[3]}") as error:
        load("mnist", tmp_path / "mine")
    message_of(error)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("origin", ["argument", "cache"])
def test_damaged_file_is_an_error_and_is_not_replaced(tmp_path, monkeypatch, file, origin):
    use_mirrors(monkeypatch, DEAD, files=published(small_set()))
    folder = tmp_path / "cache" / "dualnet" if origin == "cache" else tmp_path / "mine"
    put(folder, small_set())
    put(tmp_path / "cache" / "dualnet" / "mnist" if origin != "cache" else tmp_path, small_set())
    damaged = (folder / file).read_bytes()[:-1]
    write(folder / file, damaged)
    with pytest.raises(DataError, match=f"{file}: expected .*; delete it and get it ag") as error:
        load("mnist", folder if origin == "argument" else None)
    assert DEAD in message_of(error)  # where to get it
    assert (folder / file).read_bytes() == damaged


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_of_the_cache_are_checked_by_their_digest(tmp_path, monkeypatch, file, suffix):
    """Even if they are files of such a set."""
    use_mirrors(monkeypatch, DEAD, files=published(small_set()))
    other = {**small_set(), file: small_set(seed=1)[file]}
    put(tmp_path / "cache" / "dualnet" / "mnist", other, suffix)
    with pytest.raises(
        DataError, match=rf"{file}\S*: expected SHA-256 .*\.\.\., found .*; dele"
    ) as e:
        load("mnist")
    message_of(e)
    # The user's own folder may hold other images than the published ones.
    assert len(load("mnist", tmp_path / "cache" / "dualnet").train_labels) == 7


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        (0, np.zeros((7, 27, 28)), "expected shape any x 28 x 28, found 7 x 27 x 28"),
        (0, np.zeros((7, 784)), "expected shape any x 28 x 28, found 7 x 784"),
        (1, np.zeros((7, 1)), "expected shape any, found 7 x 1"),
        (1, np.zeros(6), "expected 7 labels, one for each image .* found 6"),
        (2, np.zeros((2, 28, 28)), "expected 2 labels, one for each image .* found 3"),
        (3, np.array([0, 10, 1]), "expected labels from 0 to 9, found 10"),
        (1, np.full(7, 255), "expected labels from 0 to 9, found 255"),
    ],
)
def test_files_that_do_not_fit_are_an_error(tmp_path, file, values, message):
    put(tmp_path, {**small_set(), FILES[file]: idx(values)})
    with pytest.raises(DataError, match=message) as error:
        load("mnist", tmp_path)
    message_of(error)


# Downloads


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        page = self.server.pages.get(self.path)
        if page is None:
            self.send_error(404)
        elif callable(page):
            page(self)
        else:
            answer(self, page, len(page))

    def log_message(self, *_):
        pass


def answer(handler, content, length):
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(content)


@pytest.fixture
def server(certificate):
    """Answers with `pages[path]`: bytes, or a function that takes the request handler."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = server_context(certificate).wrap_socket(server.socket, server_side=True)
        server.pages, server.asked = {"/good/letters.gz": PACKED}, []
        server.mirror = lambda folder: f"https://127.0.0.1:{server.server_port}/{folder}/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


CONTENT = idx(np.random.default_rng(3).integers(0, 256, 5000))
FILE = RemoteFile("letters", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
PACKED = gzip.compress(CONTENT)


def use_mirrors(monkeypatch, *mirrors, name="mnist", files=(FILE,)):
    monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], mirrors=mirrors, files=files))


def left_in(folder):
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("terminal", [True, False])
def test_download(terminal, tmp_path, monkeypatch, server, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    use_mirrors(monkeypatch, server.mirror("good"), server.mirror("unused"))
    path = fetch("mnist", FILE, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "letters.gz"
    assert path.read_bytes() == PACKED
    assert left_in(path.parent) == ["letters.gz"]
    assert server.asked == ["/good/letters.gz"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("letters.gz: 100%" in captured.err) == terminal  # a log has no bars
    assert max(map(len, [*captured.err.splitlines(), ""])) < 80


def test_archive_is_kept_and_checked_as_it_is_sent(tmp_path, monkeypatch, server):
    """The known checksum of a CIFAR archive is that of the packed file."""
    file = RemoteFile("a.tar.gz", len(PACKED), hashlib.sha256(PACKED).hexdigest(), packed=False)
    use_mirrors(monkeypatch, server.mirror("bad"), name="cifar10", files=(file,))
    server.pages["/bad/a.tar.gz"] = gzip.compress(CONTENT, 1)  # the same after decompression
    with pytest.raises(DataError, match=r"expected .* bytes, found|expected SHA-256"):
        fetch("cifar10", file, tmp_path, quiet=True)
    assert left_in(tmp_path) == []
    server.pages["/good/a.tar.gz"] = PACKED
    use_mirrors(monkeypatch, server.mirror("good"), name="cifar10", files=(file,))
    assert fetch("cifar10", file, tmp_path, quiet=True).read_bytes() == PACKED
    assert left_in(tmp_path) == ["a.tar.gz"]


@pytest.mark.parametrize(
    "page",
    [gzip.compress(CONTENT, 1), CONTENT, lambda handler: answer(handler, PACKED, None)],
    ids=["compressed otherwise", "not compressed", "no length"],
)
def test_only_the_decompressed_bytes_count(tmp_path, monkeypatch, server, page):
    use_mirrors(monkeypatch, server.mirror("good"))
    server.pages["/good/letters.gz"] = page
    np.testing.assert_array_equal(
        read_idx(fetch("mnist", FILE, tmp_path, quiet=True), (5000,)),
        np.frombuffer(CONTENT[8:], np.uint8),
    )


def redirect_to_nonsense(handler):
    handler.send_response(302)
    handler.send_header("Location", "https://[")
    handler.end_headers()


def send_forever(handler):
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(bytes(1 << 16))
    except OSError:
        pass  # the client has had enough


def stay_silent(handler):
    handler.rfile.read(1)  # until the client gives up


BAD_PAGES = {
    "other content": (gzip.compress(flip(CONTENT, 99)), "expected SHA-256 .*, found"),
    "other content, not compressed": (flip(CONTENT, 99), "expected SHA-256"),
    "damaged": (flip(PACKED, 2000), "(damaged or incomplete after|expected SHA-256)"),
    "truncated": (PACKED[:2000], "damaged or incomplete after 2000 bytes"),
    "truncated, full length promised": (
        lambda handler: answer(handler, PACKED[:2000], len(PACKED)),
        "(damaged or incomplete after 2000 bytes|IncompleteRead)",
    ),
    "too short": (gzip.compress(CONTENT[:-1]), f"expected {FILE.size} bytes .* {FILE.size - 1}"),
    "too long": (gzip.compress(CONTENT + b"x"), "expected 5008 bytes .* found more"),
    "bomb": (gzip.compress(bytes(8 << 20)), "expected 5008 bytes .* found more"),
    "endless": (send_forever, "expected 5008 bytes .* found more"),
    "empty": (b"", "expected 5008 bytes .* found 0"),
    "web page": (b"<html>Please log in</html>", "expected 5008 bytes .* found 26"),
    "not there": (None, "HTTP 404"),
    "refused": (lambda handler: handler.send_error(403), "HTTP 403"),
    "redirect to nonsense": (redirect_to_nonsense, "Invalid IPv6 URL"),
    "not HTTP": (lambda handler: handler.wfile.write(b"hello\r\n"), "hello"),
    "hangs up": (lambda handler: handler.connection.shutdown(2), ".*without response"),
    "nonsense for length": (
        lambda handler: answer(handler, PACKED[:50], "9" * 9999),
        "(Exceeds the limit|damaged or incomplete)",
    ),
    "silent": (stay_silent, "(.*timed out|less than 10000 bytes a second)"),
}


@pytest.mark.parametrize("kind", BAD_PAGES)
def test_bad_mirror_then_good_one(tmp_path, monkeypatch, server, kind):
    if kind == "silent":
        monkeypatch.setattr(connection, "TIMEOUT", 1.0)
    page, message = BAD_PAGES[kind]
    server.pages["/bad/letters.gz"] = page
    old = write(tmp_path / "letters.gz", b"old")
    use_mirrors(monkeypatch, server.mirror("bad"))
    with pytest.raises(DataError, match=f"{server.mirror('bad')}: {message}") as error:
        fetch("mnist", FILE, tmp_path, quiet=True)
    assert old.read_bytes() == b"old"
    text = message_of(error)
    assert text.startswith(f"mnist: expected to download letters.gz into {tmp_path}, but no mir")
    assert "data_dir='DIR' or the environment variable DUALNET_DATA" in text
    assert left_in(tmp_path) == ["letters.gz"]
    use_mirrors(monkeypatch, server.mirror("bad"), server.mirror("good"))
    assert fetch("mnist", FILE, tmp_path, quiet=True).read_bytes() == PACKED
    assert left_in(tmp_path) == ["letters.gz"]


def test_all_mirrors_dead(tmp_path, monkeypatch, server):
    use_mirrors(monkeypatch, DEAD, server.mirror("gone"), files=SOURCES["mnist"].files)
    with pytest.raises(DataError) as error:
        load("mnist", quiet=True)
    text = message_of(error)
    for part in (DEAD, "refused", server.mirror("gone"), "HTTP 404", *FILES, str(tmp_path)):
        assert part in text


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, MemoryError])
def test_interrupted_download_leaves_nothing(tmp_path, monkeypatch, server, stop):
    use_mirrors(monkeypatch, server.mirror("good"))
    seen = []

    def interrupted(*_):
        yield PACKED[:1000]
        seen.extend(left_in(tmp_path))
        raise stop

    monkeypatch.setattr("dualnet.data.download._received", interrupted)
    with pytest.raises(stop):
        fetch("mnist", FILE, tmp_path, quiet=True)
    assert len(seen) == 3  # a folder, its lock and the partial file in it
    assert seen[0].startswith(".download-") and ".lock" in seen
    assert left_in(tmp_path) == []


def test_folder_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    use_mirrors(monkeypatch, DEAD)
    write(tmp_path / "file", b"")
    with pytest.raises(DataError, match="expected a folder to download mnist into") as error:
        fetch("mnist", FILE, tmp_path / "file" / "folder", quiet=True)
    assert "data_dir='DIR'" in message_of(error)


def test_the_user_agent_is_ours(tmp_path, monkeypatch, server):
    """Some hosts turn away Python's own."""
    agents = []

    def page(handler):
        agents.append(handler.headers["User-Agent"])
        answer(handler, PACKED, len(PACKED))

    server.pages["/good/letters.gz"] = page
    use_mirrors(monkeypatch, server.mirror("good"))
    fetch("mnist", FILE, tmp_path, quiet=True)
    assert agents == ["dualnet"]


def test_all_mirrors_are_of_https():
    for source in REAL_SOURCES.values():
        assert all(mirror.startswith("https://") for mirror in source.mirrors)


def test_load_downloads_what_is_missing_into_the_cache(tmp_path, monkeypatch, server, capsys):
    contents = small_set()
    files = published(contents)
    for name, content in contents.items():
        server.pages[f"/good/{name}.gz"] = gzip.compress(content)
    use_mirrors(monkeypatch, server.mirror("good"), name="fashion-mnist", files=files)
    with pytest.raises(DataError, match="downloads are off"):
        load("fashion-mnist", download=False)
    assert server.asked == []

    monkeypatch.setenv("DUALNET_DATA", str(write(tmp_path / "mine" / "other", b"").parent))
    data = load("fashion-mnist", limit_train=5)
    assert data.train_images.shape == (5, 28, 28, 1)
    assert data.test_labels.tolist() == list(contents[FILES[3]][8:])
    cache = tmp_path / "cache" / "dualnet" / "fashion-mnist"
    assert left_in(cache) == sorted(f"{name}.gz" for name in FILES)
    assert left_in(tmp_path / "mine") == ["other"]
    err = capsys.readouterr().err
    assert f"fashion-mnist: not in {tmp_path / 'mine'} or {cache.parent}; downloading it" in err
    assert len(server.asked) == 4

    # The second time nothing is asked for; of an incomplete cache, only what is missing.
    load("fashion-mnist")
    assert len(server.asked) == 4
    (cache / f"{FILES[2]}.gz").unlink()
    load("fashion-mnist", quiet=True)
    assert server.asked[4:] == [f"/good/{FILES[2]}.gz"]
    assert capsys.readouterr().err == ""


# Batches


@pytest.mark.parametrize(("n", "size"), [(1, 1), (10, 3), (12, 4), (5, 99), (1540, 64), (7, 1)])
def test_batches_hold_every_example_once(n, size):
    cut = batches(n, size, Key(0))
    assert all(batch.dtype == np.int64 and batch.ndim == 1 for batch in cut)
    assert [len(batch) for batch in cut] == [size] * (n // size) + [n % size] * (n % size > 0)
    assert sorted(np.concatenate(cut).tolist()) == list(range(n))


def test_order_of_batches_follows_from_the_key():
    def order(key, size=10):
        return np.concatenate(batches(100, size, key)).tolist()

    assert order(Key(1)) == order(Key(1)) == order(Key(1), size=7)
    orders = [order(Key(1).fold_in(epoch)) for epoch in range(20)]
    assert len({tuple(each) for each in orders}) == 20
    assert list(range(100)) not in orders
    # Every example comes first about equally often: the mean of 20 first ones, 6 sigma wide.
    firsts = [order(Key(seed))[0] for seed in range(200)]
    assert abs(np.mean(firsts) - 49.5) < 6 * 28.9 / np.sqrt(200)


@pytest.mark.parametrize("bad", [0, -1, 1.0, True, None, "3"])
def test_batches_refuses_other_things(bad):
    with pytest.raises(UsageError, match="batches: n: expected a whole number from 1 up, got"):
        batches(bad, 1, Key(0))
    with pytest.raises(UsageError, match="batches: batch_size: expected a whole number from 1"):
        batches(1, bad, Key(0))
    with pytest.raises(UsageError, match=r"batches: key: expected a Key, as in Key\(0\), got"):
        batches(1, 1, bad)
