"""The cache of decoded images: a full disk, files cut short, killed processes, other users."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from data_files import image_bytes, photographs, records, tar, write

from dualnet.data import cache as cache_module
from dualnet.data import load
from dualnet.data.cache import IMAGES, LABELS
from dualnet.data.stored import Stored
from dualnet.errors import DataError, UsageError
from dualnet.locks import FolderLock

pytestmark = pytest.mark.usefixtures("elsewhere")

ROOT = Path(__file__).parent.parent
DECODED = Path("cache/dualnet/decoded")


@pytest.fixture
def mine(rng):
    """Folders of photographs: 10 for training and 10 for test, of two classes."""
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            for n, pixels in enumerate(photographs(rng, 5, 12, 12)):
                write(Path("mine", split, name, f"{n}.png"), image_bytes(pixels))
    return "mine"


def loaded(folder, side=8):
    return load("imagenet-folder", folder, image_size=side, quiet=True)


def the_cache():
    (folder,) = DECODED.iterdir()
    return folder


def refused(match, *args):
    with pytest.raises(DataError, match=match) as error:
        loaded(*args)
    assert "\n" not in str(error.value) and "expected" in str(error.value)
    assert not DECODED.exists() or not [p for p in DECODED.iterdir() if p.name.startswith(".")]


# A full disk


def test_a_full_disk_is_noticed_before_anything_is_decoded(mine, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    monkeypatch.setattr("dualnet.data.images.read_image", lambda *_, **__: pytest.fail("decoded"))
    refused("expected a cache folder with room for decoded images, found No space left", mine)
    assert list(DECODED.iterdir()) == []


@pytest.mark.parametrize("lacks", ["the call", "its support"])
def test_room_is_taken_where_the_system_cannot_reserve_it(mine, monkeypatch, lacks):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    expected = loaded(mine).train_images[:]
    shutil.rmtree(DECODED)
    if lacks == "the call":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    np.testing.assert_array_equal(loaded(mine).train_images, expected)


ON_A_FULL_DISK = """
mount -t tmpfs -o size=600k full full && DUALNET_CACHE=full/cache "$PYTHON" -m dualnet train \
    --dataset imagenet-folder --data-dir mine --image-size 256 --run-dir run --quiet
code=$?
find full/cache/decoded -mindepth 1
exit $code
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount")
def test_a_disk_that_is_really_full(mine):
    os.mkdir("full")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", ON_A_FULL_DISK],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "mount:" in done.stderr:
        pytest.skip("no file system can be mounted here")
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert "found No space left on device" in done.stderr and done.stderr.count("\n") == 1


# Files that change while they are in use


def test_images_in_a_file_are_indexed_as_arrays_are(mine, rng):
    images = loaded(mine).train_images
    assert isinstance(images, Stored) and repr(images) == "Stored(uint8(10, 8, 8, 3))"
    plain = np.load(the_cache() / "train_images.npy")
    slices = (slice(None), slice(2, 7), slice(7, 2), slice(None, None, -2))
    arrays = (np.array([], int), rng.integers(-10, 10, 33), np.array([[1, 2], [2, 9]]))
    for index in (3, -1, *slices, *arrays, rng.random(10) < 0.5):
        found = images[index]
        assert found.dtype == np.uint8 and found.flags.writeable
        np.testing.assert_array_equal(found, plain[index])
    np.testing.assert_array_equal(np.array(images, np.float32), plain)
    assert len(list(images)) == len(images) == 10
    for index in (10, -11, np.array([0, 10])):
        with pytest.raises(IndexError):
            images[index]
    with pytest.raises(UsageError, match=r"expected one index, .* got a tuple; images\[:\] reads"):
        images[..., 0]
    with pytest.raises(ValueError, match="no array without a copy"):
        images.__array__(copy=False)


def test_large_parts_are_read_in_pieces(mine, monkeypatch):
    images = loaded(mine).train_images
    whole = images[:]
    monkeypatch.setattr("dualnet.data.stored._MOST_AT_ONCE", 400)
    np.testing.assert_array_equal(images[:], whole)
    monkeypatch.delattr(os, "pread", raising=False)  # as on Windows
    np.testing.assert_array_equal(images[::-1], whole[::-1])


def cut(path):
    os.truncate(path, 300)


def overwrite(path):
    with open(path, "r+b") as stream:
        stream.seek(200)
        stream.write(b"\1\2\3")
    os.utime(path)  # where a file system's clock is coarse, the change may be in the same tick


def grow(path):
    with open(path, "ab") as stream:
        stream.write(b"\0")


@pytest.mark.parametrize("change", [cut, overwrite, grow])
def test_a_file_that_changes_while_it_is_in_use_is_refused(mine, change):
    data = loaded(mine)
    path = the_cache() / "train_images.npy"
    change(path)
    for index in (slice(None), 0, np.array([9, 1])):
        with pytest.raises(DataError, match=r"train_images.npy: expected the decoded images") as e:
            data.train_images[index]
        assert "\n" not in str(e.value) and "start again, which decodes them anew" in str(e.value)
    assert len(loaded(mine).train_images[:]) == 10  # decoded anew


def test_a_cache_cut_short_during_a_run_ends_it_in_one_line(mine, monkeypatch, ask):
    from dualnet.training import loop

    def cutting(*args):
        cut(the_cache() / "train_images.npy")
        return step(*args)

    step = loop.estimate_gradient
    monkeypatch.setattr(loop, "estimate_gradient", cutting)
    options = "--dataset imagenet-folder --image-size 8 --width 4 --batch-size 2 --quiet".split()
    code, _, err = ask(*options, "--data-dir", mine, "--run-dir", "run")
    assert code == 3 and err.count("\n") == 1 and "expected the decoded images" in err


def test_a_cache_that_another_process_replaces_stays_readable(mine):
    data = loaded(mine)
    expected = np.load(the_cache() / "train_images.npy")
    shutil.rmtree(the_cache())
    loaded(mine)
    np.testing.assert_array_equal(data.train_images, expected)


# Processes that are killed, and several at once


def test_what_killed_processes_left_is_swept(mine):
    loaded(mine)
    for name in ("killed", "alive", "other"):
        write(DECODED / f".making-{name}" / "made" / "train_images.npy", b"x")
    write(Path("elsewhere", "kept"), b"x")
    (DECODED / ".making-link").symlink_to(Path("elsewhere").resolve())
    (DECODED / ".making-other").rename(DECODED / "other")
    alive = FolderLock(DECODED / ".making-alive")
    loaded(mine)  # from the cache: leftovers are swept whenever it is used
    left = {path.name for path in DECODED.iterdir() if path.name.startswith((".", "other"))}
    assert left == {".making-alive", ".making-link", "other"}
    assert Path("elsewhere", "kept").exists()
    alive.release()
    loaded(mine)
    assert not (DECODED / ".making-alive").exists()


SLOW_DECODING = """
import sys, time
from dualnet.data import images, load
from PIL import Image
opened = Image.open
def slow(*args, **how):
    time.sleep(60)
Image.open = slow
load("imagenet-folder", "mine", image_size=8, quiet=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is of POSIX")
def test_a_process_killed_while_it_decodes(mine):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", SLOW_DECODING], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not list(DECODED.glob(".making-*/made/*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        (left,) = DECODED.glob(".making-*")
        loaded(mine)
        assert left.exists()  # it is at work
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    loaded(mine)
    assert not left.exists()


def test_the_faster_of_two_processes_wins_and_neither_fails(mine, monkeypatch):
    made = []
    make = cache_module._make

    def slower(folder, state, write_files):
        def wait_for_another(made_in):
            write_files(made_in)
            if not made:
                made.append(None)
                made[0] = loaded(mine)

        make(folder, state, wait_for_another)

    monkeypatch.setattr(cache_module, "_make", slower)
    second = loaded(mine)
    np.testing.assert_array_equal(second.train_images, made[0].train_images)
    assert [path.name[0] for path in DECODED.iterdir()] == ["i"]


# Other users


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_the_cache_is_for_its_owner_alone(mine):
    old = os.umask(0)
    try:
        loaded(mine)
    finally:
        os.umask(old)
    for folder in (DECODED.parent, DECODED, the_cache()):
        assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("index.json", *(f"{name}.npy" for name in IMAGES + LABELS)):
        assert (the_cache() / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_cache_that_others_may_write_to_is_refused(mine, monkeypatch):
    loaded(mine)
    for folder in (DECODED.parent, DECODED, the_cache()):
        for mode in (0o770, 0o707, 0o777):
            folder.chmod(mode)
            refused(f"^{folder.absolute()}: expected a cache folder .*; chmod go-w ", mine)
        folder.chmod(0o700)
    DECODED.parent.chmod(0o1777)  # as /tmp is
    assert len(loaded(mine).train_images) == 10
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    if stranger - 1:  # what is root's is everybody's
        refused(f"found that of user {stranger - 1}; name another with the env", mine)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_files_of_the_cache_that_no_digest_is_known_of(rng):
    """Whoever may write to the cache could have put them there."""
    images = rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
    place = DECODED.parent / "cifar100"
    for split in ("train", "test"):
        write(place / f"{split}.bin", records(images, range(3), range(3)))
    assert len(load("cifar100", download=False).train_labels) == 3
    place.chmod(0o777)
    with pytest.raises(DataError, match=f"^{place.absolute()}: expected a cache folder to which"):
        load("cifar100", download=False)
    place.chmod(0o700)


def test_an_archive_in_the_cache_is_held_to_its_digest(rng):
    images = rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
    content = records(images, range(3), range(3))
    archive = tar([(f"cifar-100-binary/{split}.bin", content) for split in ("train", "test")])
    write(DECODED.parent / "cifar100" / "cifar-100-binary.tar.gz", archive)
    with pytest.raises(DataError, match=r"binary\.tar\.gz: expected SHA-256 58a81ae192c2.*, found"):
        load("cifar100", download=False)


# Names that the system refuses


def test_folders_of_absurd_names_and_links_to_themselves(mine):
    for name in ("a" * 5000, "a/" * 3000, "mine\x00"):
        with pytest.raises(DataError, match="expected a folder of data files, found no folder"):
            loaded(name)
    for folder in ("train", "val"):
        Path(mine, folder, "loop").symlink_to("loop")
    assert loaded(mine).classes == ("cat", "dog")
    Path(mine, "train", "cat", "loop.png").symlink_to("loop.png")
    refused("loop.png: expected a readable file, found Too many levels of symbolic links", mine)
